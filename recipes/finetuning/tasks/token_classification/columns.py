"""Words and tags in columns (CoNLL): a word a line, and blank lines between sentences."""

import re
from collections import Counter
from itertools import islice
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.text_files import read_lines
from weft.recipes.finetuning.tasks.token_classification.passages import Sentence

DOCUMENT_START = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")  # others, such as the ideographic blank, are words


def read_columns(path: Path, word_column: str | None, tag_column: str | None, labelled: bool = True) -> list[Sentence]:
    """The sentences of a file; see `Reader`. Raises RecipeError that names the line."""
    lines = [(number, text.rstrip("\r\n")) for number, text in read_lines(path)]
    filled = [text for _, text in lines if text.strip(" \t")]
    tabs = sum("\t" in text for text in filled) > len(filled) / 2
    cut = [
        (number, text.split("\t") if tabs else _BLANKS.split(text.strip(" \t"))) if text.strip(" \t") else (number, [])
        for number, text in lines
    ]
    rows = [row for _, row in cut if row and not row[0].startswith("#") and row[0] != DOCUMENT_START]
    widths = Counter(len(row) for row in rows)
    if not widths:
        raise RecipeError(f"{path} holds no words: give a file with a word a line.")
    width = max(widths, key=lambda number: widths[number])
    word, tag = _places(path, width, word_column, tag_column, labelled)
    known = {(place, value) for row in rows if len(row) == width for place, value in enumerate(row) if place != word}
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    places: list[int] = []

    def close() -> None:
        nonlocal words, tags, places
        if words:
            where = f"{path}, line {places[0]}"
            sentences.append(Sentence(words, tags if labelled else None, where, places))
        words, tags, places = [], [], []

    for number, row in cut:
        if not row or row[0] == DOCUMENT_START:
            close()
            continue
        if row[0].startswith("#") and not _is_word(row, width, word, known):
            continue
        if len(row) != width:
            raise RecipeError(
                f"{path}, line {number}: {counted(len(row), 'column')}, where the others have {width}: mend the line."
            )
        words.append(row[word])
        if labelled and not row[tag].strip():
            raise RecipeError(f"{path}, line {number}: the tag is empty: write one, or drop the line.")
        tags.append(row[tag].strip())
        places.append(number)
    close()
    return sentences


def _places(path: Path, width: int, word_column: str | None, tag_column: str | None, labelled: bool) -> tuple[int, int]:
    """The columns of words and tags."""
    found = []
    for option, text, default in (("word_column", word_column, 0), ("tag_column", tag_column, -1)):
        try:
            number = default if text is None else int(text)
        except ValueError:
            raise RecipeError(
                f"{option} is {text!r}, but {path} has columns without names: give a number, 0 for the first and "
                "-1 for the last."
            ) from None
        if option == "tag_column" and not labelled and not -width <= number < width:
            number = -1
        if not -width <= number < width:
            raise RecipeError(f"{option} is {number}, but {path} has {counted(width, 'column')}: the first is 0.")
        found.append(number % width)
    if labelled and found[0] == found[1]:
        raise RecipeError(
            f"{path}: column {found[0]} would be word and tag at once (there are {width}): each line needs both; "
            "name them with --word_column and --tag_column."
        )
    return found[0], found[1]


def _is_word(row: list[str], width: int, word: int, known: set[tuple[int, str]]) -> bool:
    """Whether a line that begins with # holds a word, as "#" and "#tag" are, and is no comment: it has as many columns
    as the others, and in one of them a value that others have there, or the sign's own tag."""
    if len(row) != width:
        return False
    others = [(place, value) for place, value in enumerate(row) if place != word]
    return not others or any(entry in known for entry in others) or {row[word], *(v for _, v in others)} == {"#"}


def looks_like_columns(path: Path) -> bool:
    """Whether a file holds words in columns rather than a text a line: sentences with blank lines between them, and
    equally many columns in all lines."""
    lines = [text.strip() for _, text in islice(read_lines(path), 1000)]
    widths = {len(_BLANKS.split(line)) for line in lines if line and not line.startswith("#")}
    return len(widths) == 1 and "" in "\n".join(lines).strip().split("\n")
