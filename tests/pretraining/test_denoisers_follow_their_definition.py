"""What a denoiser takes out of a text and puts there is what the papers define: by count, by chance, by plain loops."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from helpers.chi_square import assert_fits, assert_share
from helpers.denoised import MASK, SENTINELS, cuts_of, piece_of, restored

from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.counter_rng import make_key
from weft.recipes.pretraining.datasets.denoising.infilling import InfillDenoiser
from weft.recipes.pretraining.datasets.denoising.mixture import (
    UL2,
    MixtureArguments,
    MixtureDenoiser,
    parse_denoiser,
)
from weft.recipes.pretraining.datasets.denoising.pieces import STRETCH, Piece
from weft.recipes.pretraining.datasets.denoising.prefix import PrefixDenoiser
from weft.recipes.pretraining.datasets.denoising.spans import (
    SpanDenoiser,
    corrupted_lengths,
    count_spans,
    longest_text,
    noise_mask,
)

SPANS = [(0.15, 3.0), (0.15, 8.0), (0.5, 3.0), (0.5, 8.0), (0.15, 64.0), (0.5, 64.0), (0.9, 1.0), (0.01, 1.5)]
LONG = 2 * STRETCH + 77


def noise_by_hand(length: int, rate: float, mean: float) -> tuple[int, int]:
    """Noise tokens and spans of a text, as T5 counts them; there is as much text between spans as spans."""
    noise = int(np.round(length * rate))
    noise = min(max(noise, 1), length - 1)
    spans = int(np.round(noise / mean))
    return noise, min(max(spans, 1), noise, length - noise)


def runs_of(mask: np.ndarray) -> list[tuple[bool, int]]:
    """The lengths of what is masked and of what is not, in order."""
    return [(bool(kind), len(list(group))) for kind, group in itertools.groupby(mask)]


@pytest.mark.parametrize("rate, mean", SPANS)
def test_every_text_has_the_noise_spans_and_lengths_that_are_computed(rate, mean):
    denoiser = SpanDenoiser(np.arange(10_000, 20_000), rate, mean)
    for length in [*range(1, 601), STRETCH, STRETCH + 1, LONG]:
        piece = piece_of(length, number=length)
        mask, pair = denoiser.mask(piece), denoiser(piece)
        parts = [STRETCH] * (length // STRETCH) + [length % STRETCH] * (length % STRETCH > 0)
        noise, spans = np.sum([noise_by_hand(part, rate, mean) for part in parts], axis=0)
        runs = runs_of(mask)
        assert mask.sum() == noise and sum(kind for kind, _ in runs) == spans
        assert not runs[0][0] and (runs[-1][0] or not noise or parts[-1] == 1)  # text first, noise last
        assert (len(pair.source), len(pair.target)) == (length - noise + spans, noise + spans)
        assert corrupted_lengths(length, rate, mean) == (len(pair.source), len(pair.target))
        assert count_spans(length, rate, mean) == spans
        assert len(pair.source) <= length and len(pair.target) <= length + 1


def test_lengths_are_those_of_t5():
    """An encoder of 512 tokens takes texts of 568, a decoder of 114 their targets; an end token is on both sides."""
    assert longest_text(511) == 568
    assert corrupted_lengths(568) == (511, 113)


@pytest.mark.parametrize("rate, mean", SPANS)
def test_the_longest_text_is_the_longest(rate, mean):
    for limit in [*range(1, 601), 3 * STRETCH]:
        longest = longest_text(limit, rate, mean)
        assert corrupted_lengths(longest, rate, mean)[0] <= limit < corrupted_lengths(longest + 1, rate, mean)[0]


def test_every_choice_of_spans_is_as_likely_as_every_other():
    """Of 12 tokens 6 are noise, in 3 spans: 10 ways to divide the noise, and 10 to divide the rest."""
    counts = Counter(tuple(noise_mask(make_key(1, number), 12, 0.5, 2.0)) for number in range(8000))
    assert len(counts) == math.comb(5, 2) ** 2
    assert_fits(list(counts.values()), np.full(100, 0.01))


def test_places_are_masked_as_often_as_in_t5():
    """T5's way to draw: shuffled marks that begin a part, for the noise and for the rest."""
    length, number, draw = 40, 6000, np.random.default_rng(0)

    def parts(total: int, count: int) -> np.ndarray:
        begins = np.arange(total - 1) < count - 1
        draw.shuffle(begins)
        return np.bincount(np.cumsum(np.concatenate(([0], begins))))

    expected = np.zeros(length)
    for _ in range(number):
        lengths = np.stack([parts(30, 3), parts(10, 3)], axis=1).ravel()
        expected += np.repeat(np.arange(6) % 2, lengths)
    found = sum(noise_mask(make_key(2, each), length, 0.25, 3.0) for each in range(number))
    for one, other in zip(found / number, expected / number):
        spread = math.sqrt(2 * max(other * (1 - other), 1e-9) / number)
        assert abs(one - other) <= 5 * spread + 1e-9


@pytest.mark.parametrize("rate, mean", SPANS)
def test_source_and_target_give_the_text_back(rate, mean):
    denoiser, draw = SpanDenoiser(SENTINELS, rate, mean), random.Random(0)
    for length in [*range(1, 200), 600, LONG]:
        for first, end in cuts_of(length, draw, 3):
            piece = piece_of(length, length, first, end)
            assert restored(denoiser(piece)) == piece.tokens.tolist()


def test_sentinels_come_in_their_order_and_surplus_spans_stay_in_the_text():
    piece = piece_of(300, number=5)
    whole = SpanDenoiser(SENTINELS)(piece)
    used = [token for token in whole.source.tolist() if token in SENTINELS]
    assert used == [token for token in whole.target.tolist() if token in SENTINELS] == SENTINELS[:15].tolist()
    few = SpanDenoiser(SENTINELS[:4])(piece)
    assert [token for token in few.source.tolist() if token in SENTINELS] == SENTINELS[:4].tolist()
    assert restored(few) == restored(whole) == list(range(300))
    assert few.target.tolist() == whole.target.tolist()[: len(few.target)]


@pytest.mark.parametrize("length", [1, 2, 30, 400, LONG])
def test_a_text_that_is_cut_is_masked_as_a_whole(length):
    denoiser, draw = SpanDenoiser(SENTINELS), random.Random(length)
    whole = denoiser.mask(piece_of(length))
    for _ in range(5):
        parts = [denoiser.mask(piece_of(length, 0, *cut)) for cut in cuts_of(length, draw, 6)]
        assert np.array_equal(np.concatenate(parts), whole)


def slots_by_hand(denoiser: InfillDenoiser, piece: Piece) -> list[tuple[int, bool]]:
    """What a source is made of, one token of the text and one span after another: place in the piece, and mask?"""
    found, inserted = [], []
    for start in range(0, piece.length, STRETCH):
        length = min(STRETCH, piece.length - start)
        place = start
        for size, is_mask in zip(*denoiser._draw_slots(make_key(int(piece.key), start), length)):
            if size == 0:
                home = min(place, start + length - 1)
                if piece.first <= home < piece.end:
                    inserted.append(len(found))
                    found.append((home - piece.first, True))
            elif any(piece.first <= covered < piece.end for covered in range(place, place + size)):
                found.append((max(place - piece.first, 0), bool(is_mask)))
            place += int(size)
        assert place == start + length
    while len(found) > len(piece.tokens):
        found.pop(inserted.pop())
    return found


@pytest.mark.parametrize("rate, mean", [(0.3, 3.0), (0.15, 1.0), (0.9, 5.0), (1.0, 3.0)])
def test_infilling_is_that_of_a_plain_loop_wherever_a_text_is_cut(rate, mean):
    denoiser, draw = InfillDenoiser(MASK, rate, mean, permute=False), random.Random(0)
    for length in [*range(1, 120), 600, LONG]:
        kept = []
        for first, end in cuts_of(length, draw, 3):
            piece = piece_of(length, length, first, end)
            places, is_mask = denoiser.slots(piece)
            assert list(zip(places.tolist(), is_mask.tolist())) == slots_by_hand(denoiser, piece)
            pair = denoiser(piece)
            assert pair.target.tolist() == piece.tokens.tolist() and len(pair.source) <= len(pair.target)
            kept += [token for token in pair.source.tolist() if token != MASK]
        whole = denoiser(piece_of(length, length)).source
        assert kept == [token for token in whole.tolist() if token != MASK]
        noise = sum(math.ceil(rate * min(STRETCH, length - start) - 1e-9) for start in range(0, length, STRETCH))
        assert len(kept) == length - noise


def test_spans_of_infilling_have_poisson_lengths_and_make_up_the_rate():
    denoiser, lengths = InfillDenoiser(MASK), []
    for number in range(2000):
        drawn = denoiser._draw_lengths(make_key(3, number), 90)
        assert drawn.sum() == 90 and (drawn >= 0).all() and drawn[-1] >= 1
        lengths += drawn[:10].tolist()  # the last one is cut down, and that a sum is reached tells of later ones
    shares = [math.exp(-3) * 3**length / math.factorial(length) for length in range(9)]
    counts = np.bincount(lengths, minlength=10)
    assert_fits([*counts[:9], counts[9:].sum()], [*shares, 1 - sum(shares)])


def test_a_span_of_infilling_stands_anywhere_with_the_same_chance():
    """6 tokens of which a span takes 3: its mask stands before, between or behind the 3 others."""
    denoiser = InfillDenoiser(MASK, 0.5, 100.0, permute=False)
    found = [denoiser(piece_of(6, number)).source for number in range(4000)]
    assert all(len(source) == 4 for source in found)
    assert_fits(np.bincount([int(np.flatnonzero(source == MASK)[0]) for source in found]), np.full(4, 0.25))


def test_sentences_come_in_any_order_with_the_same_chance_and_stay_whole():
    begins = [True, False, False, True, True, False, False, False]
    sentences = [[0, 1, 2], [3], [4, 5, 6, 7]]
    denoiser = InfillDenoiser(MASK, 0.01, 1.0)
    counts = Counter()
    for number in range(2000):
        source = denoiser(piece_of(8, number, sentences=begins)).source.tolist()
        plain = InfillDenoiser(MASK, 0.01, 1.0, permute=False)(piece_of(8, number)).source.tolist()
        masked = next(iter({*range(8)} - {*plain}))
        words = [[MASK if word == masked else word for word in sentence] for sentence in sentences]
        orders = [order for order in itertools.permutations(range(3)) if [w for i in order for w in words[i]] == source]
        assert len(orders) == 1
        counts[orders[0]] += 1
    assert_fits(list(counts.values()), np.full(6, 1 / 6))


def test_sentences_of_a_part_keep_the_order_that_they_have_in_the_whole():
    begins = [place % 5 == 0 for place in range(100)]
    denoiser = InfillDenoiser(MASK)
    whole = [token for token in denoiser(piece_of(100, 1, sentences=begins)).source.tolist() if token != MASK]
    for first, end in ((0, 50), (50, 100), (20, 85)):
        part = denoiser(piece_of(100, 1, first, end, sentences=begins)).source.tolist()
        assert [t for t in part if t != MASK] == [t for t in whole if first <= t < end]
    with pytest.raises(ValueError, match="permuting sentences needs to know where they begin"):
        denoiser(piece_of(10))


def test_a_prefix_has_any_length_with_the_same_chance():
    lengths = []
    for number in range(8000):
        pair = PrefixDenoiser()(piece_of(8, number))
        assert [*pair.source, *pair.target] == list(range(8)) and len(pair.target)
        lengths.append(len(pair.source))
    assert_fits(np.bincount(lengths), np.full(8, 1 / 8))
    cuts = {len(PrefixDenoiser()(piece_of(1000, 3, first, first + 100)).source) for first in range(0, 1000, 100)}
    assert len(cuts) > 5  # the parts of a text are cut apart from each other


def mixture_of(*denoisers: str) -> MixtureDenoiser:
    chosen = [parse_denoiser(text) for text in denoisers]
    made = tuple(
        PrefixDenoiser() if each.mode == "S" else SpanDenoiser(SENTINELS, each.noise_rate, each.mean_length)
        for each in chosen
    )
    modes = tuple("RSX".index(each.mode) for each in chosen)
    tokens = tuple(20_000 + number for number in range(len(chosen)))
    return MixtureDenoiser(made, tokens, modes, tuple(each.weight for each in chosen))


DENOISERS = {
    "span": SpanDenoiser(SENTINELS),
    "dense": SpanDenoiser(SENTINELS, 0.9, 1.0),
    "infill": InfillDenoiser(MASK, permute=False),
    "all": InfillDenoiser(MASK, 1.0, permute=False),
    "permuted": InfillDenoiser(MASK),
    "prefix": PrefixDenoiser(),
    "mixture": mixture_of(*UL2),
}


def test_a_mixture_takes_each_denoiser_as_often_as_it_weighs_and_names_it():
    mixture = mixture_of("X:3:0.5=0", *UL2[1:], "R:3:0.15=3", "S=0")
    weights = np.array([0, 1, 1, 1, 1, 1, 1, 3, 0])
    counts = np.zeros(len(weights), dtype=int)
    for number in range(3000):
        piece = piece_of(30, number)
        pair = mixture(piece)
        chosen = int(pair.source[0]) - 20_000
        counts[chosen] += 1
        expected = mixture.denoisers[chosen](piece)
        assert pair.source[1:].tolist() == expected.source.tolist() and pair.target.tolist() == expected.target.tolist()
        assert pair.mode == mixture.modes[chosen]
    assert not counts[weights == 0].any()
    assert_fits(counts[weights > 0], weights[weights > 0] / weights.sum())


def test_a_long_text_has_all_modes_and_a_short_one_the_same_in_all_its_parts():
    mixture = mixture_of(*UL2)
    length = 100 * STRETCH
    pieces = [piece_of(length, 0, first, first + 50) for first in range(0, length, STRETCH)]
    assert len({int(mixture(piece).source[0]) for piece in pieces}) == len(UL2)
    for number in range(50):
        assert len({int(mixture(piece_of(400, number, first, first + 40)).source[0]) for first in (0, 40, 360)}) == 1


@pytest.mark.parametrize("denoiser", DENOISERS.values(), ids=DENOISERS)
def test_a_long_text_becomes_as_many_tokens_as_a_denoiser_says(denoiser):
    begins = [place % 20 == 0 for place in range(500)]
    pairs = [denoiser(piece_of(500, number, sentences=begins)) for number in range(400)]
    found = [sum(len(getattr(pair, side)) for pair in pairs) / 500 / len(pairs) for side in ("source", "target")]
    assert found == pytest.approx(denoiser.shares(), abs=0.05)


@pytest.mark.parametrize("denoiser", DENOISERS.values(), ids=DENOISERS)
def test_what_becomes_of_a_text_depends_on_its_key_alone(denoiser):
    sentences = [place % 20 == 0 for place in range(200)]
    first = [denoiser(piece_of(200, number, sentences=sentences)) for number in range(10)]
    again = [denoiser(piece_of(200, number, sentences=sentences)) for number in reversed(range(10))][::-1]
    for one, other in zip(first, again):
        assert one.source.tolist() == other.source.tolist() and one.target.tolist() == other.target.tolist()
    assert len({pair.source.tobytes() for pair in first}) > 5


def test_the_noise_rate_is_that_of_many_texts():
    draw = np.random.default_rng(0)
    lengths = draw.integers(200, 2000, 300)
    noise = sum(noise_mask(make_key(0, number), int(length), 0.15, 3.0).sum() for number, length in enumerate(lengths))
    assert_share(noise / lengths.sum(), 0.15, int(lengths.sum()))


NONSENSE = ["R", "S:3:0.15", "Q:3:0.5", "X:3", "X:3:1", "X:0.5:0.5", "X:inf:0.5", "R:3:0.15=-1", "X:a:0.5", "S=x"]


@pytest.mark.parametrize("text", NONSENSE)
def test_denoisers_that_make_no_sense_are_refused(text):
    MixtureArguments().check()
    with pytest.raises(RecipeError, match=r"denoisers has .*: give MODE:MEAN_SPAN_LENGTH:NOISE_RATE"):
        MixtureArguments(["R:3:0.15", text]).check()


def test_a_mixture_of_nothing_is_refused():
    with pytest.raises(RecipeError, match="give one with a weight above 0"):
        MixtureArguments(["S=0", "R:3:0.15=0"]).check()
