"""What the rows of a split ask of a model: to find what belongs to a query, or to say how alike two texts are."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.embeddings.arguments import LABELLED, PAIRS, SCORED, TEXT, TRIPLETS
from weft.recipes.finetuning.embeddings.documents import title_and_rest
from weft.recipes.finetuning.embeddings.reading import Row
from weft.recipes.finetuning.report_files import evenly

MOST_QUERIES = 2000  # of a split; the others' texts are searched all the same


@dataclass(frozen=True)
class SimilaritySet:
    """Pairs of texts with the scores that people gave them."""

    firsts: list[str]
    seconds: list[str]
    scores: list[float]

    def describe(self) -> str:
        return counted(len(self.scores), "scored pair")


@dataclass(frozen=True)
class RetrievalSet:
    """Queries, the texts that are searched, and the places of those that belong to each query.

    Attributes:
        by_label: whether the texts that belong to a query are all with its label.
        distractors: how many of the texts are of the training split.
    """

    queries: list[str]
    documents: list[str]
    relevant: list[set[int]]
    by_label: bool = False
    distractors: int = 0

    def describe(self) -> str:
        beside = f", {self.distractors:,} of them of the training split" if self.distractors else ""
        return f"{counted(len(self.queries), 'query', 'queries')} over {counted(len(self.documents), 'text')}{beside}"


EvaluationSet = SimilaritySet | RetrievalSet


def as_pairs(rows: Sequence[Row]) -> list[Row]:
    """Pairs of a title and its document; documents that are a title alone are left out."""
    parted = (title_and_rest(row.texts[0]) for row in rows)
    return [Row(PAIRS, pair) for pair in parted if pair is not None]


def make_set(name: str, rows: Sequence[Row], training: Sequence[Row], distractors: int, seed: int) -> EvaluationSet:
    """What a split is scored by.

    Args:
        training: the training rows; of pairs, triplets and text so many of their texts are searched too, and of
            labelled texts all: those with a query's label belong to it.
        seed: which ones.

    Raises:
        RecipeError: there is nothing to score.
    """
    kind = rows[0].kind
    if kind == SCORED:
        if len({row.target for row in rows}) < 2:
            raise RecipeError(f"all scores of {name} are equal, so that no order can be compared: give others.")
        return SimilaritySet(*map(list, zip(*((*row.texts, float(row.target)) for row in rows))))
    if kind == LABELLED:
        return _by_label(name, rows, training)
    rows = as_pairs(rows) if kind == TEXT else rows
    if not rows:
        raise RecipeError(f"no document of {name} has more than a title, so that none can be found: give longer ones.")
    draw = random.Random(f"{seed} {name}")
    return _by_pairs(rows, _sample(_searched(training), distractors, draw))


def _searched(rows: Sequence[Row]) -> list[str]:
    """The texts of training rows that could be found, each once."""
    if rows and rows[0].kind == TEXT:
        rows = as_pairs(rows)
    kinds = (PAIRS, TRIPLETS)
    return list(dict.fromkeys(text for row in rows if row.kind in kinds for text in row.texts[1:]))


def _sample(texts: list[str], number: int, draw: random.Random) -> list[str]:
    return texts if len(texts) <= number else draw.sample(texts, number)


def _by_pairs(rows: Sequence[Row], others: list[str]) -> RetrievalSet:
    own = dict.fromkeys(text for row in rows for text in row.texts[1:])
    added = [text for text in others if text not in own]
    place_of = {text: place for place, text in enumerate((*own, *added))}
    relevant: dict[str, set[int]] = {}
    for row in rows:
        relevant.setdefault(row.texts[0], set()).add(place_of[row.texts[1]])
    queries = evenly(list(relevant), MOST_QUERIES)
    return RetrievalSet(queries, list(place_of), [relevant[query] for query in queries], distractors=len(added))


def _by_label(name: str, rows: Sequence[Row], training: Sequence[Row]) -> RetrievalSet:
    """The texts of the training split with a query's label belong to it."""
    places: dict[str, set[int]] = {}
    labelled = [row for row in training if row.kind == LABELLED]
    texts = list({row.texts[0]: row for row in labelled}.values())
    for place, row in enumerate(texts):
        places.setdefault(str(row.target), set()).add(place)
    asked = evenly([row for row in rows if str(row.target) in places], MOST_QUERIES)
    if not asked:
        raise RecipeError(f"no label of {name} is one of the training rows: look at both, nothing could be found.")
    return RetrievalSet(
        [row.texts[0] for row in asked],
        [row.texts[0] for row in texts],
        [places[str(row.target)] for row in asked],
        by_label=True,
        distractors=len(texts),
    )
