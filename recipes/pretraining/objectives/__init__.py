"""The objectives of pretraining: one file each, with everything that only it knows."""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import fields

from weft.recipes.common.command_line import Parsed, shape_fields
from weft.recipes.pretraining.objectives.base import Objective

_registered: dict[str, type[Objective]] = {}


def register(name: str, objective: type[Objective]) -> None:
    """Offer an objective that is defined outside of this folder as `--objective NAME`.

    Raises:
        ValueError: another objective has that name.
    """
    if objectives().get(name, objective) is not objective:
        raise ValueError(f"an objective is called {name!r} already: choose another name.")
    _registered[name] = objective


def objectives() -> dict[str, type[Objective]]:
    """Every objective by its name: those that files of this folder list as `OBJECTIVES`, then the registered ones.

    The fewer fields of its own an objective has, the earlier it comes.
    """
    modules = [importlib.import_module(f"{__name__}.{entry.name}") for entry in pkgutil.iter_modules(__path__)]
    found = {name: made for module in modules for name, made in getattr(module, "OBJECTIVES", {}).items()}
    return dict(sorted(found.items(), key=lambda item: len(item[1].arguments))) | _registered


def offered_by(recipe: str) -> list[str]:
    """The names of the objectives that a recipe offers; pretrain_clm.py is for causal alone."""
    return [name for name, made in objectives().items() if made.recipe == recipe and name != "causal"]


def argument_groups(names: Sequence[str]) -> list[type]:
    """The dataclasses of command-line fields that these objectives take, each once."""
    known = objectives()
    return list(dict.fromkeys(group for name in names for group in known[name].arguments))


def model_fields(names: Sequence[str]) -> list[str]:
    """The fields of WeftConfig that may be given with these objectives."""
    known = objectives()
    return [*shape_fields(), *dict.fromkeys(field for name in names for field in known[name].model_fields)]


def make_objective(name: str, offered: Sequence[str], parsed: Parsed) -> Objective:
    """Make one of the offered objectives out of its fields, and note which fields only others have."""
    known = objectives()
    own = known[name].arguments
    objective = known[name](*(parsed[group] for group in own))
    for group in argument_groups(offered):
        if group not in own:
            owners = " or ".join(other for other in offered if group in known[other].arguments)
            objective.idle_fields |= dict.fromkeys((field.name for field in fields(group)), f"--objective {owners}")
    return objective
