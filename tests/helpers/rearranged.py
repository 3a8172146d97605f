"""Fill-in-the-middle written out: documents rearranged token by token, and put back into their order."""

from collections.abc import Sequence

from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.fill_in_the_middle import (
    CHOICE,
    FORM,
    ONE_CUT,
    OTHER_CUT,
    FillInTheMiddleRows,
    InfillingArguments,
)
from weft.tokenizer.fill_in_the_middle import MiddleTokens

TOKENS = MiddleTokens(prefix=64_001, suffix=64_002, middle=64_003)


def make_rows(corpus, row_length: int, seed: int = 0, rate: float = 0.5, suffix_first: float = 0.5):
    """Rows of a run as long as any."""
    return FillInTheMiddleRows(corpus, row_length, 10**6, seed, InfillingArguments(rate, suffix_first), TOKENS)


def rearranged_by_hand(
    documents: dict[int, Sequence[int]], seed: int, number: int, rate: float, share: float
) -> dict[int, list[int]]:
    """The documents of a source, by their indices in the corpus, as they are in pass `number` over it."""
    drawn = {index: float(uniform(make_key(seed, number), index, CHOICE)) for index in documents}
    chosen = sorted(drawn, key=drawn.get)[: round(rate * len(documents))]
    return {
        index: by_hand(ids, index, seed, number, share) if index in chosen else list(ids)
        for index, ids in documents.items()
    }


def by_hand(ids: Sequence[int], index: int, seed: int, number: int, share: float) -> list[int]:
    """One document that is rearranged."""
    start, *text, end = ids
    key = make_key(seed, number, index)
    first, last = sorted(int(float(uniform(key, 0, cut)) * (len(text) + 1)) for cut in (ONE_CUT, OTHER_CUT))
    prefix, middle, suffix = text[:first], text[first:last], text[last:]
    if float(uniform(key, 0, FORM)) < share:
        return [start, TOKENS.prefix, TOKENS.suffix, *suffix, TOKENS.middle, *prefix, *middle, end]
    return [start, TOKENS.prefix, *prefix, TOKENS.suffix, *suffix, TOKENS.middle, *middle, end]


def put_back(ids: Sequence[int]) -> list[int]:
    """The document that a rearranged one, or one as it is, was made of."""
    ids = list(ids)
    if TOKENS.prefix not in ids:
        return ids
    suffix, middle = ids.index(TOKENS.suffix), ids.index(TOKENS.middle)
    before, after, last = ids[2:suffix], ids[suffix + 1 : middle], ids[middle + 1 : -1]
    return [ids[0], *before, *last, *after, ids[-1]]
