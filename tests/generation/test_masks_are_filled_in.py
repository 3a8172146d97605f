"""Unmasking fills each mask once and nothing else, in the order that was asked for, from the model's distribution."""

import itertools
import math
from collections import Counter

import pytest
import torch
from helpers.chi_square import assert_fits
from helpers.diffusion import END, LETTERS, MASK, PAD, START, VOCAB_SIZE, make_letters_model
from helpers.elsewhere import make_folder
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from weft import WeftForCausalLM
from weft.recipes.generation.diffusion.custom_generate.generate import never_written, plan_steps, unmask

NEVER = (PAD, START, END, MASK)
GAPS = [[START, MASK, 5, MASK, MASK, 4, MASK, END], [START, 6, MASK, 7, 7, MASK, MASK, END]]
SHORT = [START, MASK, 4, END]


@pytest.fixture(scope="module")
def model():
    return make_letters_model()


@pytest.fixture(scope="module")
def shifted():
    """A model that predicts a mask from the place before it, and a causal class with its weights."""
    masked = make_letters_model(masked_next_token=True)
    causal = WeftForCausalLM(masked.config).double().eval()
    causal.load_state_dict(masked.state_dict())
    return masked, causal


def fill(model, rows=GAPS, **options):
    """The rows filled, and the rows before the first and after each step."""
    seen = [torch.tensor(rows)]
    filled = unmask(model, torch.tensor(rows), MASK, never=NEVER, watch=lambda ids: seen.append(ids.clone()), **options)
    return filled, seen


OPTIONS = [
    {},
    {"steps": 2},
    {"steps": 3, "block_length": 2},
    {"order": "random", "temperature": 1.0},
    {"order": "random", "steps": 1},
    {"temperature": 0.7, "top_k": 2, "top_p": 0.9, "steps": 3},
    {"steps": 100},
    {"block_length": 1},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_mask_is_filled_once_and_nothing_else_is_touched(model, options):
    filled, seen = fill(model, **options)
    start = torch.tensor(GAPS)
    assert not (filled == MASK).any() and torch.equal(filled[start != MASK], start[start != MASK])
    assert torch.equal(seen[-1], filled)
    for before, after in itertools.pairwise(seen):
        assert torch.equal(after[before != MASK], before[before != MASK])  # what is filled stays
        assert ((before == MASK) & (after != MASK)).any()
    if options.get("steps") in (1, 2):
        assert len(seen) == 1 + options["steps"]
    assert torch.isin(filled[start == MASK], torch.tensor(LETTERS)).all()


@pytest.mark.parametrize("gaps", range(9))
@pytest.mark.parametrize("steps", [None, 1, 2, 3, 7, 20])
@pytest.mark.parametrize("block_length", [None, 1, 3, 8, 50])
def test_steps_share_the_masks_evenly_and_blocks_come_one_after_another(gaps, steps, block_length):
    plan, size = plan_steps(gaps, steps, block_length), block_length or gaps
    blocks = [min(size, gaps - first) for first in range(0, gaps, size or 1)]
    assert [block for block, _ in plan] == sorted(block for block, _ in plan)
    for block, wanted in enumerate(blocks):
        counts = [count for number, count in plan if number == block]
        assert sum(counts) == wanted and max(counts) - min(counts) <= 1 and min(counts) >= 1
    assert len(plan) == gaps if steps is None else len(plan) <= max(steps + len(blocks), len(blocks))
    if block_length is None and gaps:
        assert len(plan) == min(steps or gaps, gaps)


@torch.no_grad()
def fill_by_hand(model, row):
    """One mask at a time, the one whose most probable letter is the most probable."""
    row = list(row)
    while MASK in row:
        probabilities = model(torch.tensor([row])).logits[0].clone()
        probabilities[:, list(NEVER)] = -math.inf
        probabilities = probabilities.softmax(-1)
        place = max((i for i, token in enumerate(row) if token == MASK), key=lambda i: probabilities[i].max())
        row[place] = int(probabilities[place].argmax())
    return row


def test_the_most_certain_mask_comes_first_the_same_every_time_and_beside_any_others(model):
    expected = [fill_by_hand(model, row) for row in GAPS]
    for _ in range(2):
        assert fill(model)[0].tolist() == expected
    for row, filled in zip(GAPS, expected):
        assert fill(model, [row])[0].tolist() == [filled]
    padded = torch.tensor([GAPS[0], SHORT + [PAD] * 4])
    mask = (torch.arange(8) < torch.tensor([[8], [4]])).long()
    found = unmask(model, padded, MASK, mask, never=NEVER)
    assert found[0].tolist() == expected[0] and found[1].tolist() == [*fill_by_hand(model, SHORT), *[PAD] * 4]


def test_several_at_once_are_the_most_certain_ones(model):
    _, seen = fill(model, [GAPS[0]], steps=2)
    probabilities = model(seen[0]).logits[0].clone()
    probabilities[:, list(NEVER)] = -math.inf
    best = probabilities.softmax(-1).max(-1).values
    gaps = [i for i, token in enumerate(GAPS[0]) if token == MASK]
    first = sorted(gaps, key=lambda i: -best[i])[:2]
    assert (seen[1] != seen[0]).nonzero()[:, 1].tolist() == sorted(first)


def test_blocks_are_filled_from_the_left(model):
    _, seen = fill(model, block_length=2)
    for row in range(2):
        gaps = [i for i, token in enumerate(GAPS[row]) if token == MASK]
        steps = {place: next(n for n, ids in enumerate(seen) if ids[row, place] != MASK) for place in gaps}
        order = sorted(gaps, key=steps.get)
        assert sorted(order[:2]) == gaps[:2]


@torch.no_grad()
def shares_by_enumeration(model, row):
    """How probable each filling is: over all orders, the product of the probabilities of one token after another."""
    gaps = [i for i, token in enumerate(row) if token == MASK]
    orders, shares = list(itertools.permutations(gaps)), {}
    for letters in itertools.product(LETTERS, repeat=len(gaps)):
        shares[letters] = 0.0
        for order in orders:
            ids, share = list(row), 1.0
            for place in order:
                scores = model(torch.tensor([ids])).logits[0, place].clone()
                scores[list(NEVER)] = -math.inf
                ids[place] = letters[gaps.index(place)]
                share *= scores.softmax(-1)[ids[place]].item()
            shares[letters] += share / len(orders)
    return shares


@pytest.mark.parametrize("kind", ["own places", "places before", "places before, causal class"])
def test_drawn_one_by_one_in_random_order_texts_come_as_often_as_the_model_says(model, shifted, kind):
    row, masked = [START, MASK, 5, MASK, END], model if kind == "own places" else shifted[0]
    shares = shares_by_enumeration(masked, row)
    model = shifted[1] if "causal" in kind else masked
    assert sum(shares.values()) == pytest.approx(1)
    generator = torch.Generator().manual_seed(0)
    options = {"order": "random", "temperature": 1.0, "never": NEVER, "generator": generator}
    filled = unmask(model, torch.tensor([row]).expand(20000, -1), MASK, **options)
    found = Counter(map(tuple, filled[:, [1, 3]].tolist()))
    often = [letters for letters, share in shares.items() if share * 20000 >= 5]
    rest = len(filled) - sum(found[letters] for letters in often)
    rare = 1 - sum(shares[letters] for letters in often)
    counts, expected = [found[letters] for letters in often], [shares[letters] for letters in often]
    assert len(often) > 8
    assert_fits(*((counts, expected) if rare * 20000 < 5 else ([*counts, rest], [*expected, rare])))


def test_the_generator_decides_what_is_drawn(model):
    def draw(seed):
        options = {"order": "random", "temperature": 2.0, "generator": torch.Generator().manual_seed(seed)}
        return fill(model, GAPS * 4, **options)[0].tolist()

    assert draw(1) == draw(1) != draw(2)


def test_special_tokens_are_never_written_however_probable(model):
    eager = make_letters_model(lm_head_bias=True, tie_word_embeddings=False)
    eager.lm_head.bias.data[list(NEVER)] = 50.0
    for options in ({}, {"temperature": 1.0}, {"temperature": 1.0, "order": "random"}):
        filled = unmask(eager, torch.tensor(GAPS), MASK, never=NEVER, **options)
        assert torch.isin(filled[torch.tensor(GAPS) == MASK], torch.tensor(LETTERS)).all()
    assert not (unmask(eager, torch.tensor(GAPS), MASK) == MASK).any()  # the mask itself without being told


def test_ids_that_are_no_text_are_known_from_the_tokenizer(tmp_path):
    make_folder(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    letters = {tokenizer.convert_tokens_to_ids(chr(code)) for code in range(ord("a"), ord("z") + 1)}
    assert {*range(40)} - {*never_written(tokenizer, 40)} == letters


def test_text_without_masks_stays_and_costs_nothing(model):
    text = torch.tensor([[START, 5, 6, END]])
    assert torch.equal(unmask(None, text, MASK, never=NEVER), text)


def test_a_causal_class_with_the_weights_and_a_stock_class_are_read_alike(model):
    causal = WeftForCausalLM(model.config).double().eval()
    causal.load_state_dict(model.state_dict())
    assert torch.equal(fill(causal)[0], fill(model)[0])
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "hidden_size": 32}
    stock = BertForMaskedLM(BertConfig(vocab_size=VOCAB_SIZE, **shape)).double().eval()
    assert fill(stock)[0].tolist() == [fill_by_hand(stock, row) for row in GAPS]


def test_a_model_that_predicts_from_the_place_before_fills_the_masks_own_places(shifted):
    """By any class, beside any padding, with the letters that the logits of those places name."""
    masked, causal = shifted
    expected = [fill_by_hand(masked, row) for row in GAPS]
    assert expected != [fill_by_hand(make_letters_model(), row) for row in GAPS]
    for each in (masked, causal):
        assert fill(each)[0].tolist() == expected
        right = [GAPS[0] + [PAD] * 2, SHORT + [PAD] * 6]
        left = [[PAD] * 2 + GAPS[0], [PAD] * 6 + SHORT]
        for rows, kept in ((right, [slice(8), slice(4)]), (left, [slice(2, None), slice(6, None)])):
            mask = (torch.tensor(rows) != PAD).long()
            found = unmask(each, torch.tensor(rows), MASK, mask, never=NEVER).tolist()
            assert [row[own] for row, own in zip(found, kept)] == [expected[0], fill_by_hand(masked, SHORT)]


@pytest.mark.parametrize(
    "options", [{"order": "random"}, {"temperature": 1.0, "steps": 2}, {"block_length": 2}], ids=str
)
def test_the_causal_class_draws_what_the_masked_one_draws(shifted, options):
    drawn = [fill(each, **options, generator=torch.Generator().manual_seed(3))[0] for each in shifted]
    assert torch.equal(*drawn)


def test_a_mask_before_which_nothing_stands_is_refused_where_it_is_predicted_from_there(shifted):
    for each in shifted:
        for row in ([MASK, 5, END], [PAD, MASK, 5, END]):
            mask = (torch.tensor([row]) != PAD).long()
            with pytest.raises(ValueError, match="from the place before it: let no text begin with a mask"):
                unmask(each, torch.tensor([row]), MASK, mask, never=NEVER)


class Hidden(torch.nn.Module):
    """A model in another one, which does not say what its `forward` takes."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def test_a_model_that_hides_which_class_it_is_of_is_refused_where_that_matters(model, shifted):
    with pytest.raises(ValueError, match="Hidden does not show what its logits predict: give the model in it"):
        fill(Hidden(shifted[0]))
    assert torch.equal(fill(Hidden(model))[0], fill(model)[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps is 0: give at least 1"),
        ({"block_length": -1}, "block_length is -1: give at least 1"),
        ({"order": "left"}, "order is 'left': choose one of confidence, random"),
        ({"temperature": -1}, "temperature is -1: give 0"),
    ],
)
def test_what_makes_no_sense_is_refused(model, options, said):
    with pytest.raises(ValueError, match=said):
        fill(model, **options)
