"""Mask tokens, and put others in their place, as pure functions of seed, pass, document and position.

A scheme draws for each unit of the text (a token or a word) whether a masked span of units begins there, and its
length. Every unit that such a span covers is masked. A span begins where the unit's own random number is below a
threshold that follows from the wanted rate. So a document that is cut over several rows is masked as a whole, and a
unit that is masked at a low rate is masked at a higher one too. Masked spans may overlap; the threshold allows for
that. They may begin before a document does, so that its first words are masked as often as all others.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.common.schedule import Schedule, read_schedule
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.packed import DocumentSpan

SCHEMES = ("token", "word", "span", "ngram")
BEGINS, LENGTH, REPLACEMENT, RANDOM_TOKEN, DRAWN_TOKEN = range(5)  # streams of random numbers
FIRST_RATE, LAST_RATE = 0.3, 0.15  # as GPT-BERT anneals it
LOOK_BACK = 64  # tokens in which the words before a document span are first looked for


@dataclass
class MaskingArguments(Options):
    """What is masked, and how; at how many places it is predicted."""

    masking: str = option(
        "token",
        "token; word: all tokens of a word together; span: words in a row, of geometric length (SpanBERT); "
        "ngram: up to max_ngram words, short ones more often (ALBERT)",
        choices=SCHEMES,
    )
    mask_rate: float | str | None = option(
        None,
        f"share of the tokens that are masked; without it, from {FIRST_RATE} at the beginning of the run "
        f"to {LAST_RATE} at its end, falling linearly; in stages as 0.3@0.5,0.15@0.4,0.05: 0.3 in half of the steps, "
        "0.15 in the next 0.4 of them, then 0.05",
        above=0,
        below=1,
        staged=True,
    )
    mask_rate_end: float | None = option(
        None, "the share at the end of the run, reached linearly; without it mask_rate stays", above=0, below=1
    )
    validation_mask_rate: float | None = option(
        None,
        "share of the held-out tokens that are masked; without it the last of mask_rate",
        above=0,
        below=1,
        rare=True,
    )
    mask_token_share: float = option(0.8, "of the masked tokens: replaced by the mask token", least=0, rare=True)
    random_token_share: float = option(
        0.1,
        "of the masked tokens: replaced by a random one (the rest stays as it is)",
        least=0,
        rare=True,
    )
    span_success: float = option(
        0.2,
        "span: the geometric distribution's parameter; mean length is about its inverse",
        above=0,
        most=1,
        rare=True,
    )
    max_span: int = option(10, "span: longest, in words", least=1, rare=True)
    max_ngram: int = option(3, "ngram: longest, in words", least=1, rare=True)
    target_share: float | None = option(
        None,
        "compute head and loss at this share of the places of every batch, whatever the number of masked "
        "tokens (too few are filled up, too many thinned out), so that shapes never change, as compilers like it; "
        "without it at the masked ones",
        above=0,
        most=1,
    )

    @property
    def needs_words(self) -> bool:
        """Whether the corpus must know where words begin."""
        return self.masking != "token"

    def idle_fields(self) -> dict[str, str]:
        """Fields without effect on this scheme, and what each needs to have one."""
        owners = {"span_success": "span", "max_span": "span", "max_ngram": "ngram"}
        return {name: f"--masking {scheme}" for name, scheme in owners.items() if scheme != self.masking}

    def check(self) -> None:
        """Raises RecipeError for an unknown scheme, a share outside its range, or two ends of the rate."""
        super().check()
        if isinstance(self.mask_rate, str) and self.mask_rate_end is not None:
            raise RecipeError(f"mask_rate {self.mask_rate} says how the rate ends: leave mask_rate_end out.")
        shares = (self.mask_token_share, self.random_token_share)
        if sum(shares) > 1:
            raise RecipeError(
                f"mask_token_share and random_token_share are {shares[0]} and {shares[1]}: give shares that sum to 1 "
                "at most (the rest of the masked tokens stays as it is)."
            )

    @property
    def rate(self) -> Schedule:
        """The share that is masked, by the step."""
        if self.mask_rate is not None and self.mask_rate_end is None:
            return read_schedule(self.mask_rate)
        first, last = self.mask_rate, self.mask_rate_end
        return Schedule.line(FIRST_RATE if first is None else first, LAST_RATE if last is None else last)

    @property
    def final_rate(self) -> float:
        """The share at the end of a run."""
        return self.rate.final

    @property
    def held_out_rate(self) -> float:
        """The share with which models are evaluated."""
        return self.final_rate if self.validation_mask_rate is None else self.validation_mask_rate

    def rate_at(self, step: int, steps: int) -> float:
        """The share that is masked at a step of a run of so many."""
        return self.rate.at(step, steps)

    def length_shares(self) -> np.ndarray:
        """How often a span has 1, 2, ... units [longest].

        SpanBERT (https://huggingface.co/papers/1907.10529) draws lengths from a geometric distribution that is cut off
        at max_span; ALBERT (https://huggingface.co/papers/1909.11942) draws n with probability proportional to 1/n.
        """
        if self.masking == "span":
            shares = self.span_success * (1 - self.span_success) ** np.arange(self.max_span)
        elif self.masking == "ngram":
            shares = 1 / np.arange(1, self.max_ngram + 1)
        else:
            shares = np.ones(1)
        return shares / shares.sum()


@dataclass(frozen=True)
class Vocabulary:
    """The ids that masking knows: `mask`, what random tokens are drawn from, and what is never masked."""

    mask: int
    ordinary: np.ndarray
    special: np.ndarray


class Masker:
    """Masks spans of documents."""

    def __init__(self, corpus: Corpus, arguments: MaskingArguments, vocabulary: Vocabulary, seed: int) -> None:
        """Raises RecipeError where the scheme needs words and the corpus does not know where they begin."""
        if arguments.needs_words and not corpus.has_boundaries:
            raise RecipeError(
                f"{corpus.folder} does not know where words begin, which masking={arguments.masking} needs: prepare it "
                "again with --segmenter characters (or jieba), or give --masking token."
            )
        self.corpus, self.arguments, self.vocabulary, self.seed = corpus, arguments, vocabulary, seed
        self.lengths = arguments.length_shares()

    def __call__(self, spans: Sequence[DocumentSpan], rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Mask all document spans of a row.

        Returns:
            Which tokens are to be predicted (bool), and the ids that stand in the text instead (int64), both
            [tokens of all spans], one span after another.
        """
        windows = [self._window(span) for span in spans]
        keys = [make_key(self.seed, span.pass_number, span.document) for span in spans]
        unit_positions = np.concatenate([window.unit_positions for window in windows])
        unit_keys = np.repeat(keys, [len(window.unit_positions) for window in windows])
        unit_spans = np.repeat(np.arange(len(windows)), [len(window.unit_positions) for window in windows])
        owners = self._cover(unit_keys, unit_positions, unit_spans, rate)

        counts = [len(window.units) for window in windows]
        first_units = np.cumsum([0, *(len(window.unit_positions) for window in windows)])[:-1]
        units = np.concatenate([window.units for window in windows]) + np.repeat(first_units, counts)
        positions = np.concatenate([span.first + np.arange(len(span.tokens)) for span in spans])
        tokens = np.concatenate([span.tokens for span in spans]).astype(np.int64)
        token_keys = np.repeat(keys, counts)
        selected = (owners[units] >= 0) & ~np.isin(tokens, self.vocabulary.special)
        draw_positions = unit_positions[owners[units]] if self.arguments.masking == "span" else positions
        return selected, np.where(selected, self._replace(tokens, token_keys, positions, draw_positions), tokens)

    def _window(self, span: DocumentSpan) -> "_Window":
        """A document span's units, and those before them from which a masked span may reach in.

        Units before the document's beginning have negative positions.
        """
        longest, count = len(self.lengths), len(span.tokens)
        if not self.arguments.needs_words:
            return _Window(span.first + np.arange(count), np.arange(count))
        offset = int(self.corpus.offsets[span.document])
        back = LOOK_BACK
        while True:
            low = max(0, span.first - back)
            begins = self.corpus.begins("words", offset + low, offset + span.first + count)
            if low == 0:
                begins[0] = True
            starts = np.flatnonzero(begins)
            before = int(np.searchsorted(starts, span.first - low, side="right"))  # units that begin up to the span
            if before >= longest or low == 0:
                break
            back *= 4
        starts = starts[max(0, before - longest) :]
        units = np.searchsorted(starts, span.first - low + np.arange(count), side="right") - 1
        missing = max(0, longest - before)
        positions = np.concatenate((np.arange(-missing, 0), starts + low))
        return _Window(positions, units + missing)

    def _cover(self, keys: np.ndarray, positions: np.ndarray, spans: np.ndarray, rate: float) -> np.ndarray:
        """For each unit the beginning of the masked span that covers it (of several the last), or -1."""
        begins = uniform(keys, positions, BEGINS) < begin_probability(rate, tuple(self.lengths))
        lengths = 1 + np.searchsorted(np.cumsum(self.lengths)[:-1], uniform(keys, positions, LENGTH), side="right")
        owners = np.full(len(positions), -1)
        for distance in range(len(self.lengths)):
            start = np.arange(len(positions)) - distance
            inside = start >= 0
            start = start.clip(min=0)
            inside &= (spans[start] == spans) & begins[start] & (lengths[start] > distance)
            owners = np.where((owners < 0) & inside, start, owners)
        return owners

    def _replace(
        self, tokens: np.ndarray, keys: np.ndarray, positions: np.ndarray, draw_positions: np.ndarray
    ) -> np.ndarray:
        """What stands in the place of each token if it is masked; tokens with one draw position share their fate."""
        vocabulary, mask_share = self.vocabulary, self.arguments.mask_token_share
        drawn = uniform(keys, draw_positions, REPLACEMENT)
        place = (uniform(keys, positions, RANDOM_TOKEN) * len(vocabulary.ordinary)).astype(np.int64)
        with_random = np.where(
            drawn < mask_share + self.arguments.random_token_share, vocabulary.ordinary[place], tokens
        )
        return np.where(drawn < mask_share, vocabulary.mask, with_random)


@dataclass(frozen=True)
class _Window:
    """Units around a document span: where each begins in its document, and the unit of each of its tokens."""

    unit_positions: np.ndarray
    units: np.ndarray


@functools.lru_cache(maxsize=4096)
def begin_probability(rate: float, length_shares: tuple[float, ...]) -> float:
    """How often a masked span must begin at a unit for a share `rate` of the units to be covered.

    A unit stays uncovered when none of the units up to it begins a span that is long enough:
    1 - rate = product over k of (1 - p * P(length > k)), which falls as p grows; found by bisection.
    """
    reaches = 1 - np.concatenate(([0.0], np.cumsum(length_shares)[:-1]))
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if 1 - np.prod(1 - middle * reaches) > rate else (middle, high)
    return high
