"""Values of JSON texts, each name of an object given once; what is wrong is said by its place."""

import json
from typing import Any

from weft.recipes.common.errors import RecipeError


def parse_json(text: str, where: str) -> Any:
    """Return the value of a JSON text; raises RecipeError that begins with `where`."""
    try:
        return json.loads(text, object_pairs_hook=_object_of)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise RecipeError(f"{where}: not JSON ({error.msg} at {place}).") from error
    except _GivenTwice as error:
        raise RecipeError(f"{where}: the name {str(error)!r} is there twice: give it once.") from error
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise RecipeError(f"{where}: a number has too many digits to be read: write it as text.") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: nested too deeply.") from error


def refuse_halves(value: Any, where: str) -> None:
    """Raise RecipeError that begins with `where` if a text in a value is none that can be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RecipeError(
                f"{where} holds half of a surrogate pair (U+{ord(value[error.start]):04X}), which UTF-8 cannot: write "
                "the whole pair."
            ) from error
    elif isinstance(value, dict | list | tuple):
        for each in (*value, *value.values()) if isinstance(value, dict) else value:
            refuse_halves(each, where)


class _GivenTwice(ValueError):
    """A name that an object has twice, of which json would keep the last alone."""


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _GivenTwice(next(name for name in names if names.count(name) > 1))
    return found
