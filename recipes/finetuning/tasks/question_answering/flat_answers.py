"""Answers in columns of their own: a text, or several, and perhaps where it begins in the context."""

from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.json_values import parse_json

SEARCH = object()  # the start of an answer whose file gives none
TEXTS = ("answer", "answer_text", "answers")
STARTS = ("answer_start", "answer_starts", "start")
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": None}


def without_flat_columns(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The values of a row with its answers as SQuAD has them; rows that have them so stay as they are.

    An answer without a start is searched for, and the first place is taken: its `answer_start` is SEARCH. An empty one
    (null, no text) says that the context holds no answer. `answers` may be the JSON of SQuAD's lists.

    Raises:
        RecipeError: starts are no numbers, or not as many as texts.
    """
    column = next((name for name in TEXTS if name in values), None)
    if column is None:
        return values
    given = values[column]
    if isinstance(given, str) and given.lstrip()[:1] in ("{", "[") and column == "answers":
        given = parse_json(given, f"{where}, column {column!r}")
    changed = {**values, "answers": given}
    if isinstance(values.get("is_impossible"), str):
        said = values["is_impossible"].strip().lower()
        changed["is_impossible"] = _TRUTH.get(said, values["is_impossible"])
    is_flat = given is None or isinstance(given, str) or (isinstance(given, list) and all(map(_is_text, given)))
    if not is_flat or (column == "answers" and given in (None, [])):
        return changed
    texts = given if isinstance(given, list) else [] if given is None or not given.strip() else [given]
    name = next((name for name in STARTS if name in values), None)
    starts = values[name] if name is not None and texts else None
    starts = starts if isinstance(starts, list) else [starts] * len(texts)
    if len(starts) != len(texts):
        raise RecipeError(
            f"{where}: {counted(len(texts), 'answer')} and {counted(len(starts), 'start')} ({name!r}): give one for "
            "each."
        )
    places = [_start(start, name, where) for start in starts]
    changed["answers"] = [{"text": text, "answer_start": place} for text, place in zip(texts, places)]
    return changed


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _start(value: Any, name: str | None, where: str) -> Any:
    if isinstance(value, str):
        value = int(value) if value.strip().isdecimal() else value.strip() or None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None:
        return SEARCH
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecipeError(
            f"{where}: {name!r} holds {value!r}, where the number of the answer's first character is needed."
        )
    return value
