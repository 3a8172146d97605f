"""Documents out of a column of a table: texts, lists of them, and nulls."""

from collections.abc import Iterable, Iterator

from weft.recipes.common.processes import is_first_process
from weft.recipes.common.wording import counted
from weft.recipes.data.tables import Record, text_of, value_of

BETWEEN_PARAGRAPHS = "\n\n"
_told: set[str] = set()  # sources of which it was said that they hold nulls


def documents_of_column(rows: Iterable[Record], column: str, name: str) -> Iterator[str]:
    """Yield a document for each row: a text as it is, the texts of a list as paragraphs, and "" for null.

    An empty document is left out and counted by whatever reads it. The number of nulls is printed once for a source.

    Args:
        name: of the source.

    Raises:
        RecipeError: there is no such column, or it holds anything else; names the row.
    """
    nulls = 0
    try:
        for row in rows:
            value = value_of(row, column, "text_column")
            nulls += value is None
            if value is None:
                yield ""
            elif isinstance(value, list):
                yield BETWEEN_PARAGRAPHS.join(texts_of_list(row, value, column, "text_column"))
            else:
                yield text_of(row, column, "text_column", may_be_blank=True)
    finally:
        if nulls and name not in _told and is_first_process():
            _told.add(name)
            rows_with = counted(nulls, "row with", "rows with")
            print(f"{name}: {rows_with} null in column {column!r}, left out as empty", flush=True)


def texts_of_list(row: Record, values: list, column: str, option: str) -> list[str]:
    """Return the texts of a list in a column but for nulls and blank ones (raises RecipeError: one is no text)."""
    entries = [
        (value, Record({column: value}, f"{row.where}, text {number}")) for number, value in enumerate(values, start=1)
    ]
    return [
        text_of(entry, column, option)
        for value, entry in entries
        if value is not None and not (isinstance(value, str) and not value.strip())
    ]
