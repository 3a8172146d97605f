"""Fields of the dataclasses that a command's words fill, each with its line of `--help` and what its value may be."""

import dataclasses
import difflib
import math
import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.schedule import read_schedule

RULES = "rules"  # in a field's metadata, beside what argparse knows
_LIMITS = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}


class Rules(NamedTuple):
    """What a field's value may be, whether few need the field, and whether the value may depend on the step."""

    choices: tuple[str, ...] = ()
    limits: dict[str, float] = {}
    otherwise: str | None = None
    folder_or_id: bool = False
    rare: bool = False
    staged: bool = False


def rules_of(field: dataclasses.Field) -> Rules:
    """What a field was declared with."""
    return field.metadata.get(RULES, Rules())


def option(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] = (),
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    otherwise: str | None = None,
    folder_or_id: bool = False,
    rare: bool = False,
    staged: bool = False,
    alone: str | None = None,
    also: str | None = None,
) -> Any:
    """A field with its default, of which each instance gets a list of its own, and its line of `--help`.

    Args:
        choices: the values that it may have; none: any.
        least, above, most, below: limits of a number, which may be `least` and `most` themselves.
        otherwise: what to do instead of giving an allowed value.
        folder_or_id: the value is a folder or an id of the Hub; what can only be a folder has to be there.
        rare: few need it, so that `--help_all` shows it and `--help` does not.
        staged: besides a number, it may be a schedule (schedule.py), whose values have the same limits.
        alone: what the field's name means where no value stands behind it on a command line; None: one has to.
        also: another name on a command line, for one that no dataclass can have.
    """
    limits = dict(zip(_LIMITS, (least, above, most, below)))
    limits = {words: limit for words, limit in limits.items() if limit is not None}
    metadata = {"help": help, RULES: Rules(tuple(choices), limits, otherwise, folder_or_id, rare, staged)}
    if alone is not None:
        metadata |= {"nargs": "?", "const": alone}
    if also is not None:
        metadata |= {"aliases": [f"--{also}"]}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Options:
    """What a dataclass of such fields is derived from."""

    def check(self) -> None:
        """Raise RecipeError where a value, or one of a list, is not what its field was declared with."""
        for field in dataclasses.fields(self):
            choices, limits, otherwise, is_model, _, is_staged = rules_of(field)
            if otherwise is None and field.default is None:
                otherwise = "leave it out"
            value = getattr(self, field.name)
            if is_model and value is not None:
                refuse_missing_folder(field.name, value)
            is_schedule = is_staged and isinstance(value, str)
            many = _values_of(field.name, value) if is_schedule else value if isinstance(value, list) else None
            for each in [value] if many is None else many:
                wrong = _advice(each, choices, limits)
                if wrong is not None:
                    verb = "is" if many is None else "has"
                    raise RecipeError(f"{field.name} {verb} {each!r}{wrong}{f', or {otherwise}' if otherwise else ''}.")


def _values_of(name: str, text: str) -> list[float]:
    """The values of a field's schedule; raises RecipeError where it cannot be read."""
    try:
        return read_schedule(text).values
    except ValueError as error:
        raise RecipeError(f"{name} is {text!r}, of which {error}.") from error


def refuse_missing_folder(field: str, name: str) -> None:
    """Raise RecipeError where a model is given that can only be a folder, and is not there."""
    if is_missing_folder(name):
        raise RecipeError(f"{field} is {name!r}: there is no such folder; give another, or an id of the Hub.")


def is_missing_folder(name: str) -> bool:
    """Whether a name can only be that of a folder, as runs/mine can, and there is none."""
    parts = Path(name).parts
    return (name[:1] in (".", "/", "~") or parts[:1] == ("runs",) or len(parts) > 2) and not Path(name).exists()


def _advice(value: Any, choices: tuple[str, ...], limits: dict[str, float]) -> str | None:
    """What to give instead of a value; None where it is allowed."""
    if isinstance(value, str) and choices and value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        return f"{f' (did you mean {near[0]}?)' if near else ''}: choose one of {', '.join(choices)}"
    if not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return ": give a finite number"
    if all(_LIMITS[words](value, limit) for words, limit in limits.items()):
        return None
    start = ": give " if next(iter(limits)) == "at least" else ": give a number "
    return start + " and ".join(f"{words} {limit}" for words, limit in limits.items())
