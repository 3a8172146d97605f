"""What a tagger's predictions look like to people: tables, columns for other tools, plots."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weft.recipes.common.files import write_text
from weft.recipes.common.markdown import table
from weft.recipes.finetuning.plots import plot_confusion, plot_scores
from weft.recipes.finetuning.report_files import write_csv
from weft.recipes.finetuning.tasks.token_classification.decoding import Prediction
from weft.recipes.finetuning.tasks.token_classification.passages import EntitySpan

MOST_ROWS_IN_CARD = 40  # types in the card's table; all of them are in types.csv
TYPE_COLUMNS = ("precision", "recall", "f1", "support")


class Row(NamedTuple):
    """An entity or a tagged word: right, predicted, or both.

    Attributes:
        example: its number in the split, from 1.
        start, end: characters of the text.
        gold, predicted: empty where it is only predicted or only right.
        score: the mean probability of what was predicted there.
    """

    example: int
    start: int
    end: int
    text: str
    gold: str
    predicted: str
    score: float


def entity_rows(
    example: int,
    text: str,
    gold: Sequence[EntitySpan] | None,
    predicted: Sequence[Prediction],
    offsets: np.ndarray,
    probabilities: np.ndarray,
) -> list[Row]:
    """A row for each stretch of a text that is an entity or was taken for one, in order.

    Args:
        offsets, probabilities: of all tokens, for the score of an entity that was missed.
    """
    right = {(span.start, span.end): span.label for span in gold or ()}
    rows = []
    # pieces of one character may be entities of the same place: the right one of them first
    for start, end, label, score in sorted(predicted, key=lambda e: (e.start, e.end, right.get(e[:2]) != e.label)):
        rows.append(Row(example, start, end, text[start:end], right.pop((start, end), ""), label, score))
    for (start, end), label in right.items():
        inside = (offsets[:, 0] < end) & (offsets[:, 1] > start)
        score = float(probabilities[inside].mean()) if inside.any() else 0.0
        rows.append(Row(example, start, end, text[start:end], label, "", score))
    return sorted(rows, key=lambda row: (row.start, row.end))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """A table of rows as CSV."""
    write_csv(path, Row._fields, ([*row[:-1], f"{row.score:.4f}"] for row in rows))


def write_columns(path: Path, sentences: Iterable[Sequence[Sequence[str]]]) -> None:
    """Words and their tags between blanks, a blank line after each sentence, as conlleval reads them.

    Args:
        sentences: for each its columns, the words first; blanks inside of words are left out.
    """
    lines = []
    for columns in sentences:
        for word, *tags in zip(*columns, strict=True):
            lines.append(" ".join(["".join(word.split()) or "_", *tags]))
        lines.append("")
    write_text(path, "\n".join(lines) + "\n")


def write_spans(path: Path, examples: Iterable[tuple[str, Sequence[EntitySpan] | None, Sequence[Prediction]]]) -> None:
    """A text a line as JSON, with the predicted entities in the form that the recipe reads, and the right ones."""
    lines = []
    for text, gold, predicted in examples:
        entities = [{**entity._asdict(), "score": round(entity.score, 4)} for entity in predicted]
        line: dict[str, Any] = {"text": text, "entities": entities}
        if gold is not None:
            line["gold"] = [span._asdict() for span in gold]
        lines.append(json.dumps(line, ensure_ascii=False))
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_types(path: Path, types: Mapping[str, Mapping[str, float]]) -> None:
    """Scores of each type as CSV."""
    write_csv(path, ("type", *TYPE_COLUMNS), ([name, *(of[c] for c in TYPE_COLUMNS)] for name, of in types.items()))


def type_table(types: Mapping[str, Mapping[str, float]], what: str) -> str:
    """Scores of each type in Markdown, the most frequent first, with their numbers in `places`."""
    rows = [
        (place, name, *(f"{types[name][one]:.4f}" for one in TYPE_COLUMNS[:3]), f"{types[name]['support']:,}")
        for name, place in list(places(types).items())[:MOST_ROWS_IN_CARD]
    ]
    rest = len(types) - len(rows)
    more = f"\n\n{rest} more are in `types.csv`." if rest > 0 else ""
    return table(("", what, "precision", "recall", "F1", "support"), rows) + more


def places(types: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """The types from the most frequent to the rarest, each with its place, counted from 1."""
    ordered = sorted(types, key=lambda name: (-types[name]["support"], name))
    return {name: place for place, name in enumerate(ordered, 1)}


def plot_types(types: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """F1 of each type as bars, the most frequent on top; in brackets stands how often it occurs."""
    ordered = list(places(types).items())[:MOST_ROWS_IN_CARD][::-1]
    times = [f"({types[name]['support']:,})" for name, _ in ordered]
    names = [f"{name} {often}" for (name, _), often in zip(ordered, times)]
    numbers = [f"{place} {often}" for (_, place), often in zip(ordered, times)]
    plot_scores(path, names, [types[name]["f1"] for name, _ in ordered], numbers=numbers)


def plot_tags(
    gold: Sequence[int],
    predicted: Sequence[int],
    labels: Sequence[str],
    types: Mapping[str, Mapping[str, float]],
    path: Path,
) -> None:
    """Which tags are taken for which, of those that occur; a predicted -1 is none."""
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    pairs = [(one, other) for one, other in zip(gold, predicted, strict=True) if other >= 0]
    if pairs:
        np.add.at(counts, tuple(np.array(pairs).T), 1)
    place_of_tag = places(types)
    plot_confusion(path, labels, counts, [place_of_tag.get(label, 0) for label in labels])
