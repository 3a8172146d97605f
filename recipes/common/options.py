"""Fields of the dataclasses that a command's words fill, each with its line of `--help` and what its value may be."""

import dataclasses
import difflib
import math
import operator
from collections.abc import Iterable
from typing import Any

from weft.recipes.common.errors import RecipeError

RULES = "rules"  # in a field's metadata, beside what argparse knows
_LIMITS = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}


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
) -> Any:
    """A field with its default, of which each instance gets a list of its own, and its line of `--help`.

    Args:
        choices: the values that it may have; none: any.
        least, above, most, below: limits of a number, which may be `least` and `most` themselves.
        otherwise: what to do instead of giving an allowed value.
    """
    limits = dict(zip(_LIMITS, (least, above, most, below)))
    rules = (tuple(choices), {words: limit for words, limit in limits.items() if limit is not None}, otherwise)
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"help": help, RULES: rules})
    return dataclasses.field(default=default, metadata={"help": help, RULES: rules})


class Options:
    """What a dataclass of such fields is derived from."""

    def check(self) -> None:
        """Raise RecipeError where a value, or one of a list, is not what its field was declared with."""
        for field in dataclasses.fields(self):
            choices, limits, otherwise = field.metadata.get(RULES, ((), {}, None))
            if otherwise is None and field.default is None:
                otherwise = "leave it out"
            value = getattr(self, field.name)
            for each in value if isinstance(value, list) else [value]:
                wrong = _advice(each, choices, limits)
                if wrong is not None:
                    verb = "has" if isinstance(value, list) else "is"
                    raise RecipeError(f"{field.name} {verb} {each!r}{wrong}{f', or {otherwise}' if otherwise else ''}.")


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
