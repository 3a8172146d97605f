"""Which tokens each scheme masks and what it puts in their place: a plain loop over whole documents, and statistics."""

import random
from itertools import pairwise

import numpy as np
import pytest
from helpers.chi_square import assert_fits, assert_share
from helpers.masks import (
    END,
    MASK,
    START,
    VOCABULARY,
    cut,
    draw_length,
    length_shares_by_hand,
    mask_by_hand,
    random_text,
    whole,
    write_marked,
)
from helpers.text import write_ids

from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.masking import SCHEMES, Masker, MaskingArguments, begin_probability

OF_WORDS = ("word", "span", "ngram")


def masker_for(corpus, scheme="token", seed=3, **fields):
    return Masker(corpus, MaskingArguments(masking=scheme, **fields), VOCABULARY, seed)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Long and short documents; words of one token, of several, and longer than anything that is looked back for."""
    documents, words = random_text([1, 2, 3, 1, 5, 30, 70, 200, 700, 0, 12])
    longest, long_words = random_text([900, 600], seed=1, longest=300)
    middle, middle_words = random_text([800, 700], seed=2, longest=40)
    documents, words = documents + longest + middle, words + long_words + middle_words
    words[5] = [False] * len(words[5])  # a tail that goes on in the middle of a word
    return write_marked(tmp_path_factory.mktemp("texts") / "ids", documents, words)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Many short documents, for statistics."""
    draw = np.random.default_rng(5)
    lengths = np.where(draw.random(1600) < 0.2, draw.integers(1, 5, 1600), draw.integers(1, 80, 1600))
    return write_marked(tmp_path_factory.mktemp("many") / "ids", *random_text(lengths, seed=2))


def mask_everything(corpus, masker, rate, number=0):
    """Selected, replacement and original tokens of the corpus, document after document."""
    selected, masked = masker([whole(corpus, i, number) for i in range(len(corpus.offsets) - 1)], rate)
    return selected, masked, np.array(corpus.tokens, dtype=np.int64)


@pytest.mark.parametrize("rate", [0.02, 0.15, 0.6, 0.97])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_cut_of_a_document_is_masked_as_the_whole_in_a_plain_loop(texts, scheme, rate):
    masker = masker_for(texts, scheme, mask_token_share=0.5, random_token_share=0.3)
    draw = random.Random(0)
    expected, spans = [], []
    for document in range(len(texts.offsets) - 1):
        number = draw.randrange(3)
        by_hand = mask_by_hand(masker, document, rate, number)
        length = len(by_hand[0])
        ends = sorted(
            {0, length, *(draw.randrange(1, length) for _ in range(30 if length > 500 else draw.choice([0, 1, 5])))}
        )
        for first, last in pairwise(ends):
            spans.append(cut(texts, document, first, last, number))
            expected.append([each[first:last] for each in by_hand])
    order = draw.sample(range(len(spans)), len(spans))
    while order:  # rows of several spans, one after another
        row, order = order[:6], order[6:]
        selected, masked = masker([spans[i] for i in row], rate)
        assert selected.tolist() == [flag for i in row for flag in expected[i][0]]
        assert masked.tolist() == [token for i in row for token in expected[i][1]]


@pytest.mark.parametrize("rate", [0.001, 0.15, 0.5, 0.85, 0.999])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_masked_share_is_the_rate_wherever_in_a_document(many, scheme, rate):
    selected, _, tokens = mask_everything(many, masker_for(many, scheme), rate)
    begins = many.begins("words", 0, len(tokens))
    shares, by_place = [], {place: [] for place in (1, 2, 3, 4, 6, 9, 12)}
    last, short = [], []
    for first, end in pairwise(many.offsets.tolist()):
        inside = selected[first + 1 : end - 1]
        units = inside[begins[first + 1 : end - 1]]
        shares.append(inside.mean())
        last.append(units[-1])
        short += [units[0]] if len(units) <= 2 else []
        for place, flags in by_place.items():
            flags += [units[place - 1]] if len(units) >= place else []
    for flags in (last, short, *by_place.values()):
        assert len(flags) > 100
        assert_share(np.mean(flags), rate, len(flags))
    weights = np.diff(many.offsets) - 2
    mean = np.average(shares, weights=weights)
    error = np.sqrt(np.average((np.array(shares) - mean) ** 2, weights=weights) * (weights**2).sum()) / weights.sum()
    assert abs(mean - rate) <= 5 * error + 1e-5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_masked_at_a_rate_is_masked_at_every_higher_one(many, scheme):
    masker = masker_for(many, scheme)
    before = np.zeros(len(many.tokens), dtype=bool)
    for rate in (0.01, 0.15, 0.16, 0.5, 0.99):
        selected = mask_everything(many, masker, rate)[0]
        assert (selected | ~before).all() and selected.sum() > before.sum()
        before = selected


@pytest.mark.parametrize("scheme", OF_WORDS)
def test_no_word_is_half_masked(texts, many, scheme):
    for corpus in (texts, many):
        selected, _, tokens = mask_everything(corpus, masker_for(corpus, scheme), 0.3)
        begins = corpus.begins("words", 0, len(tokens))
        begins[corpus.offsets[:-1]] = True
        is_special = np.isin(tokens, VOCABULARY.special)
        words = np.cumsum(begins)[~is_special]
        flags = selected[~is_special]
        some, number = np.bincount(words, flags), np.bincount(words)
        assert ((some == 0) | (some == number)).all()
        assert ((some == number) & (number > 1)).any() and ((some == 0) & (number > 1)).any()


def test_tokens_of_a_word_have_nothing_to_do_with_each_other_when_tokens_are_masked(many):
    selected = mask_everything(many, masker_for(many), 0.4)[0]
    inner = np.ones(len(selected), dtype=bool)
    inner[many.offsets[:-1]] = inner[many.offsets[1:] - 1] = False
    both = inner[:-1] & inner[1:]
    assert_fits(np.bincount(selected[:-1][both] * 2 + selected[1:][both], minlength=4), [0.36, 0.24, 0.24, 0.16])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_special_tokens_are_never_masked(tmp_path, scheme):
    documents = [[START, 5, MASK, 6, 0, END, START, 7, END]] * 40
    corpus = write_marked(tmp_path / "ids", documents, [[True] * 9] * 40)
    selected, masked, tokens = mask_everything(corpus, masker_for(corpus, scheme, random_token_share=0.2), 0.999)
    assert selected.tolist() == [token >= 5 for token in tokens]
    assert (masked[~selected] == tokens[~selected]).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_masked_tokens_are_replaced_in_the_given_shares(many, scheme):
    for mask_share, random_share in ((0.8, 0.1), (0.3, 0.6), (1, 0)):
        masker = masker_for(many, scheme, mask_token_share=mask_share, random_token_share=random_share)
        selected, masked, tokens = mask_everything(many, masker, 0.5)
        masked, tokens = masked[selected], tokens[selected]
        by_chance = random_share / len(VOCABULARY.ordinary)  # a random token that is the token itself
        expected = [mask_share, random_share - by_chance, 1 - mask_share - random_share + by_chance]
        counts = [(masked == MASK).sum(), ((masked != MASK) & (masked != tokens)).sum(), (masked == tokens).sum()]
        if scheme == "span":  # one draw for all tokens of a span
            for count, share in zip(counts, expected):
                assert count / len(tokens) == pytest.approx(share, abs=0.02)
        else:
            for count, share in zip(counts, expected):
                assert_share(count / len(tokens), share, len(tokens))


def test_the_tokens_of_a_span_share_one_fate(many):
    """At a low rate hardly any two spans touch, so that what is masked in a row is one span."""
    fields = {"mask_token_share": 0.4, "random_token_share": 0.3}
    mixed = {}
    for scheme in ("span", "ngram"):
        selected, masked, tokens = mask_everything(many, masker_for(many, scheme, **fields), 0.02)
        fate = np.where(masked == MASK, 1, np.where(masked == tokens, 2, 3)) * selected
        runs = [run for run in np.split(fate, np.flatnonzero(np.diff(selected)) + 1) if run[0] and len(run) > 2]
        assert len(runs) > 100
        mixed[scheme] = np.mean([len(set(run)) > 1 for run in runs])
    assert mixed["span"] < 0.1  # touching spans, and random tokens that are the token itself
    assert mixed["ngram"] > 0.5


def test_random_tokens_are_even_over_the_ordinary_ones(many):
    selected, masked, _ = mask_everything(many, masker_for(many, mask_token_share=0, random_token_share=1), 0.9)
    counts = np.bincount(masked[selected], minlength=VOCABULARY.ordinary[-1] + 1)
    assert counts[VOCABULARY.special].sum() == counts[: VOCABULARY.ordinary[0]].sum() == 0
    assert_fits(counts[VOCABULARY.ordinary], np.full(len(VOCABULARY.ordinary), 1 / len(VOCABULARY.ordinary)))


@pytest.mark.parametrize(
    "fields",
    [
        {"masking": "span"},
        {"masking": "span", "span_success": 0.5, "max_span": 4},
        {"masking": "span", "span_success": 1.0},
        {"masking": "ngram"},
        {"masking": "ngram", "max_ngram": 6},
        {"masking": "word"},
        {"masking": "token"},
    ],
    ids=str,
)
def test_spans_are_as_long_as_their_distribution_says(tmp_path, fields):
    """At a low rate hardly any two spans touch: the lengths of what is masked in a row are those of the spans."""
    arguments = MaskingArguments(**fields)
    expected = np.array(length_shares_by_hand(arguments))
    assert arguments.length_shares() == pytest.approx(expected)
    key, numbers = make_key(7), np.arange(20_000)
    drawn = [draw_length(number, expected) for number in uniform(key, numbers, 1).tolist()]
    expected = expected[: np.count_nonzero(expected)]
    if len(expected) > 1:
        assert_fits(np.bincount(drawn, minlength=len(expected) + 1)[1:], expected)

    corpus = write_marked(tmp_path / "ids", [[START, *[9] * 400_000, END]], [[True] * 400_002])
    selected = mask_everything(corpus, Masker(corpus, arguments, VOCABULARY, 11), 0.005)[0]
    edges = np.flatnonzero(np.diff(np.concatenate(([False], selected, [False]))))
    lengths = edges[1::2] - edges[::2]
    counts = np.bincount(lengths)[1:]
    together = counts[len(expected) :].sum()
    assert together < 0.03 * counts.sum()
    if len(expected) > 1:
        assert_fits(counts[: len(expected)], expected)


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 0.3, 0.2), tuple(MaskingArguments(masking="span").length_shares())])
@pytest.mark.parametrize("rate", [0.001, 0.15, 0.3, 0.7, 0.99])
def test_spans_begin_often_enough_to_cover_the_rate(shares, rate):
    probability = begin_probability(rate, shares)
    if len(shares) == 1:
        assert probability == pytest.approx(rate, rel=1e-12)
    draw, number = np.random.default_rng(0), 300_000
    begins = np.flatnonzero(draw.random(number) < probability)
    lengths = draw.choice(np.arange(1, len(shares) + 1), len(begins), p=np.array(shares) / sum(shares))
    covered = np.zeros(number + len(shares), dtype=bool)
    for distance in range(len(shares)):
        covered[begins[lengths > distance] + distance] = True
    mean_length = sum(length * share for length, share in enumerate(shares, 1))
    assert_share(covered[len(shares) : number].mean(), rate, int(number / (2 * mean_length)))


def test_seed_and_pass_change_the_masks(many):
    longest = int(np.argmax(np.diff(many.offsets)))
    cases = ((0, 0), (1, 0), (0, 1), (1, 1))
    found = {masker_for(many, seed=s)([whole(many, longest, number)], 0.5)[0].tobytes() for s, number in cases}
    assert len(found) == len(cases)


def test_the_rate_falls_linearly_from_the_first_step_to_the_last():
    arguments = MaskingArguments(mask_rate=0.4, mask_rate_end=0.1)
    assert [arguments.rate_at(step, 7) for step in range(8)] == pytest.approx(
        [0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.1]
    )
    assert arguments.rate_at(0, 1) == 0.4 and arguments.final_rate == 0.1
    for end in (None, 0.25):
        arguments = MaskingArguments(mask_rate=0.25, mask_rate_end=end)
        assert {arguments.rate_at(step, 50) for step in range(50)} == {0.25} and arguments.final_rate == 0.25


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"masking": "words"}, "masking is 'words' .did you mean word..: choose one of token, word, span, ngram"),
        ({"mask_rate": 0.0}, "mask_rate is 0.0: give a number above 0 and below 1"),
        ({"mask_rate": 15.0}, "mask_rate is 15.0"),
        ({"mask_rate": float("nan")}, "mask_rate is nan"),
        ({"mask_rate_end": 1.0}, "mask_rate_end is 1.0"),
        ({"mask_token_share": 0.95}, "are 0.95 and 0.1: give shares that sum to 1 at most"),
        ({"random_token_share": -0.1}, "random_token_share is -0.1: give at least 0"),
        ({"random_token_share": float("nan")}, "random_token_share is nan: give a finite number"),
        ({"span_success": 0.0}, "span_success is 0.0: give a number above 0"),
        ({"max_span": 0}, "max_span is 0: give at least 1"),
        ({"max_ngram": 0}, "max_ngram is 0: give at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, message):
    MaskingArguments().check()
    with pytest.raises(RecipeError, match=message):
        MaskingArguments(**fields).check()


@pytest.mark.parametrize("scheme", OF_WORDS)
def test_words_are_not_masked_where_they_are_not_known(tmp_path, scheme):
    corpus = write_ids(tmp_path, [[START, 5, 6, END]])
    masker_for(corpus, "token")
    with pytest.raises(RecipeError, match=rf"does not know where words begin, which masking={scheme} needs: prepare"):
        masker_for(corpus, scheme)
