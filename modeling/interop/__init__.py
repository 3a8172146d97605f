"""Weights and configs to and from the known families. Not shipped with checkpoints.

What a family is made of is imported when it is first asked for, and torch and transformers with it.
"""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.interop import families as families_package

if TYPE_CHECKING:
    from weft.interop.family import HEADS, Family, InteropError, find_head, weft_class

__all__ = ["HEADS", "Family", "InteropError", "families", "family_names", "find_family", "find_head", "weft_class"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("weft.interop.family"), name)


def families() -> "dict[str, Family]":
    """Every family by its `model_type`; each is a file of `weft.interop.families`."""
    found = {}
    for entry in pkgutil.iter_modules(families_package.__path__):
        family = importlib.import_module(f"{families_package.__name__}.{entry.name}").FAMILY
        found[family.model_type] = family
    return found


def family_names() -> list[str]:
    """The `model_type` of every family in order, as its file says, which is not imported for that."""
    texts = [path.read_text(encoding="utf-8") for path in Path(families_package.__file__).parent.glob("[!_]*.py")]
    return sorted(re.search(r'^    model_type="(.+)"', text, re.MULTILINE).group(1) for text in texts)


def find_family(model_type: str) -> "Family":
    """The family of a `model_type`; raises InteropError for one that is not known."""
    from weft.interop.family import InteropError

    known = families()
    if model_type not in known:
        raise InteropError(f"{model_type!r} is no known family: choose one of {', '.join(sorted(known))}.")
    return known[model_type]
