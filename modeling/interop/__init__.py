"""Weights and configs to and from the known families. Not shipped with checkpoints."""

import importlib
import pkgutil

from weft.interop import families as families_package
from weft.interop.family import HEADS, Family, InteropError, find_head, weft_class

__all__ = ["HEADS", "Family", "InteropError", "families", "find_family", "find_head", "weft_class"]


def families() -> dict[str, Family]:
    """Every family by its `model_type`; each is a file of `weft.interop.families`."""
    found = {}
    for entry in pkgutil.iter_modules(families_package.__path__):
        family = importlib.import_module(f"{families_package.__name__}.{entry.name}").FAMILY
        found[family.model_type] = family
    return found


def find_family(model_type: str) -> Family:
    """The family of a `model_type`; raises InteropError for one that is not known."""
    known = families()
    if model_type not in known:
        raise InteropError(f"{model_type!r} is no known family: choose one of {', '.join(sorted(known))}.")
    return known[model_type]
