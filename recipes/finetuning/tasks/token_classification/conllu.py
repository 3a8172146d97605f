"""Sentences of Universal Dependencies (CoNLL-U)."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.text_files import read_lines
from weft.recipes.finetuning.tasks.token_classification.passages import Sentence
from weft.recipes.finetuning.tasks.token_classification.schemes import OUTSIDE, split_tag

CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
NO_VALUE = "_"
_ID = re.compile(r"\d{1,6}(-\d{1,6}|\.\d{1,6})?")  # no sentence has a million words


def is_word_line(row: list[str]) -> bool:
    """Whether the fields of a line are those of a word."""
    return len(row) == len(CONLLU_COLUMNS) and _ID.fullmatch(row[0]) is not None


def read_conllu(path: Path, tag_column: str | None, notes: Counter[str], labelled: bool = True) -> list[Sentence]:
    """The sentences of a file, in order. A word without a value is outside where the others are parts of entities.

    Args:
        tag_column: one of CoNLL-U's columns or a key of FEATS or MISC; None: upos.
        notes: counts what is odd, in words.

    Raises:
        RecipeError: a line is broken, or no word has a tag.
    """
    sentences = list(_sentences(path, tag_column, notes, labelled))
    tags = {tag for sentence in sentences for tag in sentence.tags or ()} - {NO_VALUE, OUTSIDE}
    if not tags or not all(map(split_tag, tags)):
        return sentences
    for sentence in sentences:
        sentence.tags[:] = [OUTSIDE if tag == NO_VALUE else tag for tag in sentence.tags or ()]
    return sentences


def _sentences(path: Path, tag_column: str | None, notes: Counter[str], labelled: bool) -> Iterator[Sentence]:
    block: list[tuple[int, list[str]]] = []
    column = tag_column or "upos"
    any_tag = False
    for number, text in (*read_lines(path), (0, "")):
        line = text.rstrip("\r\n")
        if line.startswith("#"):
            continue
        if line.strip():
            row = line.split("\t")
            if not is_word_line(row):
                raise RecipeError(
                    f"{path}, line {number}: no line of CoNLL-U, which has a number and {len(CONLLU_COLUMNS) - 1} "
                    "more fields between tabs: mend it, or give --format conll."
                )
            block.append((number, row))
        elif block:
            sentence = _sentence(path, block, column, notes, labelled)
            block = []
            if sentence.words:
                any_tag = any_tag or sentence.tags is None or any(tag != NO_VALUE for tag in sentence.tags)
                yield sentence
    if not any_tag:
        raise RecipeError(
            f"{path}: no word has a tag in {column!r}: give --tag_column upos, xpos or a key of FEATS or MISC."
        )


def _sentence(
    path: Path, block: list[tuple[int, list[str]]], column: str, notes: Counter[str], labelled: bool
) -> Sentence:
    """The syntactic words of a sentence. Those of a multiword token ("don't" = do + n't) stand without blanks
    between them where they spell it; where they do not ("du" = de + le) they are joined like other words."""
    words: list[str] = []
    tags: list[str] = []
    places: list[int] = []
    blanks: list[bool] = []
    ranges: list[tuple[int, int, str, bool]] = []
    number_of: dict[int, int] = {}
    for line, row in block:
        follows = "SpaceAfter=No" not in row[9].split("|")
        if "-" in row[0]:
            first, last = map(int, row[0].split("-"))
            ranges.append((first, last, row[1], follows))
        elif "." not in row[0]:
            number_of[int(row[0])] = len(words)
            words.append(row[1])
            tags.append(_tag(row, column))
            places.append(line)
            blanks.append(follows)
    for first, last, surface, follows in ranges:
        inside = [number_of[number] for number in range(first, last + 1) if number in number_of]
        if not inside:
            continue
        spelt = "".join(words[place] for place in inside) == surface
        notes["multiword tokens that their words do not spell"] += not spelt
        for place in inside[:-1]:
            blanks[place] = not spelt
        blanks[inside[-1]] = follows
    return Sentence(words, tags if labelled else None, f"{path}, line {block[0][0]}", places, blanks)


def _tag(row: list[str], column: str) -> str:
    """A word's tag: one of the ten fields, or a key of FEATS or MISC ("_" where it has none)."""
    if column.lower() in CONLLU_COLUMNS:
        return row[CONLLU_COLUMNS.index(column.lower())]
    for field_ in (row[5], row[9]):
        for entry in field_.split("|"):
            key, _, value = entry.partition("=")
            if key == column and value:
                return value
    return NO_VALUE
