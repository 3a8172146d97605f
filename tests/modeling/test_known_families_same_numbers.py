"""A checkpoint of a known family, imported, computes what transformers' own class does, and comes back bit for bit."""

import re

import pytest
import torch
from helpers import families
from helpers.families import CASES, WITHOUT_LEFT_PADDING, all_cases, differences, make_pair

from weft.interop import find_family

LIMITS = {torch.float32: 1e-5, torch.float64: 1e-9}
CASES_AND_HEADS = pytest.mark.parametrize(("case", "head"), all_cases())


@CASES_AND_HEADS
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_outputs_and_gradients_are_those_of_the_stock_class(case: str, head: str, dtype: torch.dtype) -> None:
    outputs, gradients = differences(case, head, dtype)
    assert outputs < LIMITS[dtype]
    assert gradients < LIMITS[dtype]


@pytest.mark.parametrize("case", [case for case, (name, _) in CASES.items() if name not in WITHOUT_LEFT_PADDING])
def test_left_padding_changes_nothing(case: str) -> None:
    outputs, gradients = differences(case, "base", torch.float64, side="left")
    assert outputs < LIMITS[torch.float64]
    assert gradients < LIMITS[torch.float64]


@CASES_AND_HEADS
def test_every_tensor_comes_back_bit_for_bit(case: str, head: str) -> None:
    family, stock, model = make_pair(case, head)
    back = family.stock_class(head)(family.export_config(model.config, head))
    family.export_weights(model, back, head)
    free = [*family.ignored, *family.heads[head].dropped]
    before, after = stock.state_dict(), back.state_dict()
    compared = [name for name in before if not any(re.search(pattern, name) for pattern in free)]
    assert len(compared) > 10
    for name in compared:
        assert torch.equal(before[name], after[name]), name


@pytest.mark.parametrize("case", [c for c, (name, _) in CASES.items() if "causal" in find_family(name).heads])
def test_greedy_continuations_are_those_of_the_stock_class(case: str) -> None:
    _, stock, model = make_pair(case, "causal")
    ids = families.make_batch(stock, "causal", "right")["input_ids"][:1]
    options = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    assert torch.equal(stock.generate(ids, **options), model.generate(ids, **options))


@pytest.mark.parametrize("case", [c for c, (name, _) in CASES.items() if "seq2seq" in find_family(name).heads])
@pytest.mark.parametrize("beams", [1, 3])
def test_translations_are_those_of_the_stock_class(case: str, beams: int) -> None:
    _, stock, model = make_pair(case, "seq2seq")
    batch = families.make_batch(stock, "seq2seq", "right")
    batch.pop("decoder_input_ids")
    start = model.config.decoder_start_token_id
    options = {"max_new_tokens": 9, "num_beams": beams, "do_sample": False, "decoder_start_token_id": start}
    options |= {"eos_token_id": -1, "pad_token_id": 0, "forced_eos_token_id": None}
    assert torch.equal(stock.generate(**batch, **options), model.generate(**batch, **options))
