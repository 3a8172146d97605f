"""The cache that writing fills on a processor holds what transformers' own does, without copying it for each token."""

import copy
from collections.abc import Callable

import pytest
import torch
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from transformers.cache_utils import DynamicLayer

from weft.growing_cache import LEAST_ROOM, GrowingLayer

CHANGES: dict[str, Callable[[DynamicLayer], None]] = {
    "nothing": lambda layer: None,
    "crop": lambda layer: layer.crop(-2),
    "reorder": lambda layer: layer.reorder_cache(torch.arange(layer.keys.shape[0]).flip(0)),
    "select": lambda layer: layer.batch_select_indices(torch.arange(layer.keys.shape[0]).flip(0)[:2]),
    "first rows": lambda layer: layer.batch_select_indices(slice(0, 2)),
    "repeat": lambda layer: layer.batch_repeat_interleave(2),
    "reset": lambda layer: layer.reset(),
    "offload": lambda layer: (layer.offload(), layer.prefetch()),
}


def states_of(layer: DynamicLayer, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of new tokens, for as many rows as the layer has."""
    rows = layer.keys.shape[0] if layer.get_seq_length() else 3
    draw = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, 2, tokens, 4, generator=draw) for _ in range(2))


@pytest.mark.parametrize("change", list(CHANGES))
def test_it_holds_what_a_copying_cache_holds(change: str) -> None:
    """Before and behind all that is done to caches, beyond the first room too, and so does a copy of it."""
    grows, copies = GrowingLayer(), DynamicLayer()
    with torch.no_grad():
        for number, tokens in enumerate((5, 1, 1, LEAST_ROOM, 3, 200, 1, 1)):
            if number in (2, 4, 7):
                CHANGES[change](grows)
                CHANGES[change](copies)
            if number == 3:
                grows = copy.deepcopy(grows)
            found = grows.update(*states_of(copies, tokens, number))
            expected = copies.update(*states_of(copies, tokens, number))
            for each, other, kept in zip(found, expected, (grows.keys, grows.values)):
                assert torch.equal(each, other) and torch.equal(kept, other)
            assert grows.get_seq_length() == copies.get_seq_length()


def test_a_token_is_written_behind_the_others_without_copying_them() -> None:
    layer, places = GrowingLayer(), set()
    with torch.no_grad():
        for number in range(LEAST_ROOM):
            keys, _ = layer.update(*states_of(layer, 1, number))
            places.add(keys.data_ptr())
    assert len(places) == 1


def test_a_cache_made_without_gradients_goes_on_in_every_mode() -> None:
    grows, copies = GrowingLayer(), DynamicLayer()
    for number, mode in enumerate((torch.inference_mode, torch.no_grad, torch.inference_mode, torch.enable_grad)):
        with mode():
            for layer in (grows, copies):
                states = [each.requires_grad_(mode is torch.enable_grad) for each in states_of(layer, 2, number)]
                layer.update(*states)
            assert torch.equal(grows.keys, copies.keys)
    assert grows.keys.requires_grad


def test_keys_of_another_precision_make_it_wider() -> None:
    """As behind a prompt that was read under autocast."""
    grows, copies = GrowingLayer(), DynamicLayer()
    with torch.no_grad():
        for number, dtype in enumerate((torch.bfloat16, torch.float32, torch.float32)):
            states = [each.to(dtype) for each in states_of(copies, 2, number)]
            for found, expected in zip(grows.update(*states), copies.update(*states)):
                assert found.dtype == expected.dtype and torch.equal(found, expected)


def test_a_compiled_model_writes_with_it_in_one_graph() -> None:
    model, ids = make_model(tiny_config(pad_token_id=0)), random_ids(2, 6)
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = model.generate(ids, **options)
    torch._dynamo.reset()
    model.forward = torch.compile(model.forward, backend="eager", fullgraph=True, dynamic=True)
    assert torch.equal(model.generate(ids, **options), expected)


@pytest.mark.parametrize("options", [{}, {"prompt_lookup_num_tokens": 3}, {"prefill_chunk_size": 3}])
def test_generate_fills_it_and_writes_the_same(options: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where tokens are taken back, and beside layers with a window."""
    model = make_model(tiny_config(pad_token_id=0, num_hidden_layers=2, sliding_window=5, layer_types=[SLIDING, FULL]))
    ids = random_ids(1, 6).repeat(1, 2)
    options = {**options, "max_new_tokens": 80, "do_sample": False, "return_dict_in_generate": True}
    written = model.generate(ids, **options)
    assert [type(layer) is GrowingLayer for layer in written.past_key_values.layers] == [False, True]
    monkeypatch.setattr("weft.modeling_weft.make_room", lambda cache: None)
    expected = model.generate(ids, **options)
    assert torch.equal(written.sequences, expected.sequences)
    for layer, other in zip(written.past_key_values.layers, expected.past_key_values.layers):
        assert torch.equal(layer.keys, other.keys) and torch.equal(layer.values, other.values)
    more = torch.cat((written.sequences, random_ids(1, 3)), dim=1)
    again, other = (
        model.generate(more, past_key_values=each.past_key_values, **options) for each in (written, expected)
    )
    assert torch.equal(again.sequences, other.sequences)


def test_beams_whose_cache_is_copied_anyhow_keep_the_copying_one() -> None:
    model = make_model(tiny_config(pad_token_id=0))
    options = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True}
    cache = model.generate(random_ids(2, 5), **options).past_key_values
    assert not any(isinstance(layer, GrowingLayer) for layer in cache.layers)
