"""N-grams with interpolated modified Kneser-Ney smoothing: S. Chen and J. Goodman: An Empirical Study of Smoothing
Techniques for Language Modeling (1999).

    p(w | h) = max(a(hw) - D(a(hw)), 0) / sum_x a(hx) + backoff(h) p(w | h without its first token)

a counts a text's n-grams where they have the full length. Shorter ones count by how many tokens were seen before them;
each document that begins with one counts as another, since nothing stands before it (K. Heafield and others: Scalable
Modified Kneser-Ney Language Model Estimation, 2013). D has values of its own for counts of 1, 2 and more, which follow
from how many n-grams were seen 1, 2, 3 and 4 times. backoff(h) is what D took off. Below single tokens stands the
uniform distribution over the vocabulary.

The n-grams of a length are rows of a sorted table. The key of a row is (row of the n-gram without its last token) x
vocabulary + last token, so that looking up all windows of a text is one binary search for each length.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from weft.recipes.classical.token_model import Arrays, TokenModel, places_of
from weft.recipes.data.corpus import token_dtype

Block = tuple[np.ndarray, np.ndarray]  # tokens [tokens] and begins [documents + 1] of some documents
Discounts = tuple[float, float, float]
USUAL_DISCOUNTS: Discounts = (0.5, 1.0, 1.5)  # where too few n-grams were seen for an estimate
NOTHING = -1  # the row of an n-gram that was not seen


class Keys:
    """The n-grams of one length, to be looked up: their keys, sorted [n-grams]."""

    def __init__(self, keys: np.ndarray, vocab_size: int) -> None:
        self.keys, self.vocab_size = keys, vocab_size

    def find(self, histories: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The rows of n-grams, given as the rows of their histories and their last tokens; NOTHING for unseen ones."""
        if not len(self.keys):
            return np.full(len(tokens), NOTHING)
        wanted = histories * self.vocab_size + tokens
        rows = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[rows] == wanted, rows, NOTHING)


class Table(Keys):
    """The same with all that their probabilities need.

    Attributes:
        counts: a of each [n-grams].
        mass: a - D(a) of each [n-grams].
        totals: sum of a over the n-grams that begin with each history [histories].
        backoff: what is left of each history's probability for shorter ones [histories].
    """

    def __init__(
        self, keys: np.ndarray, counts: np.ndarray, histories: int, vocab_size: int, discounts: Discounts | None = None
    ) -> None:
        """Args:
        histories: rows of the table of the n-grams that are shorter by one.
        discounts: of counts of 1, 2 and more; None: they are estimated.
        """
        super().__init__(keys, vocab_size)
        self.counts = counts.astype(np.int64)
        self.discounts = discounts_of(self.counts) if discounts is None else discounts
        taken = np.minimum(np.array([0.0, *self.discounts])[np.minimum(self.counts, 3)], self.counts)
        self.mass = self.counts - taken
        self.begins = np.searchsorted(keys, np.arange(histories + 1) * vocab_size)
        self.totals = self._sums(self.counts)
        self.backoff = self._sums(taken) / np.maximum(self.totals, 1)

    @property
    def tokens(self) -> np.ndarray:
        """The last token of each n-gram [n-grams]."""
        return self.keys % self.vocab_size

    def interpolate(self, histories: np.ndarray, rows: np.ndarray, shorter: np.ndarray) -> np.ndarray:
        """Probabilities given histories, of n-grams in `rows`, from those given histories that are shorter by one."""
        seen = np.flatnonzero(histories != NOTHING)
        seen = seen[self.totals[histories[seen]] > 0]
        histories, rows = histories[seen], rows[seen]
        own = np.where(rows == NOTHING, 0.0, self.mass[rows])
        result = shorter.copy()
        result[seen] = own / self.totals[histories] + self.backoff[histories] * shorter[seen]
        return result

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the n-grams that begin with each history [histories]."""
        ends = np.concatenate(([0], np.cumsum(values)))[self.begins]
        return np.diff(ends)


class NGramModel(TokenModel):
    """Tables of the n-grams of 1, 2 ... tokens."""

    KIND = "n-gram"

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables, self.vocab_size = list(tables), tables[0].vocab_size

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.tables)

    @property
    def title(self) -> str:
        return f"{self.order}-gram, Kneser-Ney"

    @property
    def size(self) -> tuple[int, str]:
        return sum(int(np.count_nonzero(table.counts)) for table in self.tables), "counts"

    def log_probs(self, tokens: np.ndarray, begins: np.ndarray) -> np.ndarray:
        tokens, places = tokens.astype(np.int64), places_of(begins)
        probabilities = np.full(len(tokens), 1 / self.vocab_size)
        histories = np.zeros(len(tokens), dtype=np.int64)
        for length, table in enumerate(self.tables, 1):
            rows = table.find(histories, tokens)
            probabilities = table.interpolate(histories, rows, probabilities)
            histories = _histories_behind(rows, places, length)
        return np.where(places == 0, 0.0, np.log(probabilities))

    def begin(self) -> tuple[int, ...]:
        return ()

    def advance(self, state: tuple[int, ...], token: int) -> tuple[int, ...]:
        return (*state, token)[-(self.order - 1) :] if self.order > 1 else ()

    def next_probabilities(self, state: tuple[int, ...]) -> np.ndarray:
        probabilities = np.full(self.vocab_size, 1 / self.vocab_size)
        for length, table in enumerate(self.tables[: len(state) + 1]):
            history = self._row(state[len(state) - length :])
            if history == NOTHING or not table.totals[history]:
                break  # nor was a longer one seen before anything
            here = slice(*table.begins[history : history + 2])
            probabilities *= table.backoff[history]
            probabilities[table.keys[here] % self.vocab_size] += table.mass[here] / table.totals[history]
        return probabilities

    def settings(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size, "discounts": [list(table.discounts) for table in self.tables]}

    def arrays(self) -> Arrays:
        """Of each length, the last tokens of its n-grams, their counts, and where those of each history begin; in the
        smallest types that hold them."""
        found: Arrays = {}
        for length, table in enumerate(self.tables, 1):
            found[f"tokens.{length}"] = table.tokens.astype(token_dtype(self.vocab_size))
            found[f"counts.{length}"] = _smallest(table.counts)
            found[f"begins.{length}"] = _smallest(table.begins)
        return found

    @classmethod
    def from_saved(cls, settings: dict[str, Any], arrays: Arrays) -> "NGramModel":
        tables, vocab_size, histories = [], int(settings["vocab_size"]), 1
        for length, (one, two, more) in enumerate(settings["discounts"], 1):
            tokens, counts, begins = (arrays[f"{name}.{length}"] for name in ("tokens", "counts", "begins"))
            numbers = np.diff(begins.astype(np.int64))
            if len(numbers) != histories or (numbers < 0).any() or not numbers.sum() == len(tokens) == len(counts):
                raise ValueError(f"the numbers of its {length}-grams contradict each other")
            keys = np.repeat(np.arange(histories), numbers) * vocab_size + tokens
            is_whole = length > 1 or len(keys) == vocab_size
            if not is_whole or (tokens >= vocab_size).any() or (np.diff(keys) <= 0).any():
                raise ValueError(f"its {length}-grams are in no order")
            tables.append(Table(keys, counts, histories, vocab_size, (one, two, more)))
            histories = len(keys)
        return cls(tables)

    def _row(self, ngram: Sequence[int]) -> int:
        """The row of an n-gram in the table of its length; that of the empty one is 0."""
        row = np.zeros(1, dtype=np.int64)
        for table, token in zip(self.tables, ngram):
            row = table.find(row, np.array([token]))
        return int(row[0])


def count_ngrams(
    read: Callable[[], Iterator[Block]],
    order: int,
    vocab_size: int,
    tokens: int | None = None,
    quiet: bool = False,
    discounts: Sequence[Discounts] | None = None,
) -> NGramModel:
    """Count the n-grams of documents and estimate their discounts.

    Args:
        read: yields blocks of documents, each time it is called all of them; of each only the n-grams of one length are
            in memory beside those of all.
        order: length of the longest n-grams.
        tokens: of all blocks together, for the progress bar.
        quiet: show none.
        discounts: of each length, instead of estimates.
    """
    keys: list[np.ndarray] = [np.arange(vocab_size)]
    counts: list[np.ndarray] = [np.zeros(vocab_size, dtype=np.int64)]
    suffixes = np.zeros(0, dtype=np.int64)  # of the last n-grams, their rows without their first token
    passes = None if tokens is None else max(1, order - 1) * tokens
    with tqdm(
        total=passes, desc="counting", unit=" tokens", unit_scale=True, disable=quiet or None, leave=False
    ) as bar:
        if order == 1:
            for block, begins in read():
                counts[0] += np.bincount(block[places_of(begins) > 0], minlength=vocab_size)
                bar.update(len(block))
        for length in range(2, order + 1):
            bare = [Keys(each, vocab_size) for each in keys]
            found = _count_length(read, bare, vocab_size, bar)
            parents, last = np.divmod(found.keys, vocab_size)
            suffixes = last if length == 2 else bare[-1].find(suffixes[parents], last)
            counts[-1] = counts[-1] + np.bincount(suffixes, minlength=len(keys[-1]))
            keys.append(found.keys)
            counts.append(found.counts if length == order else found.openings)
    sizes = [1, *map(len, keys)]
    given = [None] * order if discounts is None else discounts
    return NGramModel([Table(*each, vocab_size, own) for *each, own in zip(keys, counts, sizes, given)])


def discounts_of(counts: np.ndarray) -> Discounts:
    """What modified Kneser-Ney smoothing takes off counts of 1, 2 and more (Chen and Goodman, 1999, section 4.1.6).

    Where the counts of counts allow no estimate, or one that no count could give, `USUAL_DISCOUNTS`.
    """
    once, twice, thrice, four = (int(np.count_nonzero(counts == number)) for number in (1, 2, 3, 4))
    if not (once and twice and thrice and four):
        return USUAL_DISCOUNTS
    share = once / (once + 2 * twice)
    found = (1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four / thrice)
    return found if all(0 <= each <= most for most, each in enumerate(found, 1)) else USUAL_DISCOUNTS


class _Counted:
    """N-grams of one length: keys, how often each was seen, and how many documents begin with it [n-grams]."""

    def __init__(self) -> None:
        self.keys = self.counts = self.openings = np.zeros(0, dtype=np.int64)

    def add(self, keys: np.ndarray, is_opening: np.ndarray) -> None:
        """Count n-grams, those that begin a document flagged."""
        every = np.concatenate((self.keys, keys))
        self.keys, places = np.unique(every, return_inverse=True)
        old, new = places[: len(self.counts)], places[len(self.counts) :]
        self.counts = self._joined(old, self.counts) + np.bincount(new, minlength=len(self.keys))
        begin = np.bincount(new[is_opening], minlength=len(self.keys))
        self.openings = self._joined(old, self.openings) + begin

    def _joined(self, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        result = np.zeros(len(self.keys), dtype=np.int64)
        result[places] = values
        return result


def _count_length(read: Callable[[], Iterator[Block]], shorter: Sequence[Keys], vocab_size: int, bar: tqdm) -> _Counted:
    """Count the n-grams that are longer by one than those of the last table."""
    found = _Counted()
    for block, begins in read():
        tokens, places = block.astype(np.int64), places_of(begins)
        histories = np.zeros(len(tokens), dtype=np.int64)
        for length, table in enumerate(shorter, 1):
            histories = _histories_behind(table.find(histories, tokens), places, length)
        whole = histories != NOTHING
        found.add(histories[whole] * vocab_size + tokens[whole], places[whole] == len(shorter))
        bar.update(len(tokens))
    return found


def _histories_behind(rows: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    """The rows of the n-grams that end before each token, from those that end with it; NOTHING where a document has not
    got so many tokens yet."""
    before = np.concatenate(([NOTHING], rows[:-1]))
    return np.where(places >= length, before, NOTHING)


def _smallest(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest unsigned type."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
