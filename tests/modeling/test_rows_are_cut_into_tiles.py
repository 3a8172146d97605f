"""Windows and documents cost what they compute: long rows are cut into tiles, which give the numbers of whole rows."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from helpers.backends import FEATURES, compare, compare_cached, directions, make
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

from weft import WeftForMaskedLM, WeftModel, masks, tiles
from weft.backends import refusal
from weft.tiles import DocumentTiles, Tiles, WindowTiles

CUT = [name for name in FEATURES if not refusal(make(name, "eager", directions(name)[0]).config, "sdpa")]


@pytest.fixture
def cut() -> Iterator[list[Tiles]]:
    """Rows of any length are cut, into blocks of 16; the tiles that were made."""
    made: list[Tiles] = []

    def watched(*arguments: Any) -> Tiles | None:
        found = cut_up(*arguments)
        made.extend([found] if found else [])
        return found

    cut_up = masks._cut
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"LEAST_TOKENS": 1, "LEAST_PACKED": 1, "WORTH": 99.0, "WIDEST_BLOCK": 16}.items():
            patched.setattr(tiles, name, value)
        patched.setattr(masks, "_cut", watched)
        yield made


@pytest.mark.parametrize("feature", CUT)
def test_tiles_compute_what_attention_written_out_does(feature: str, cut: list[Tiles]) -> None:
    """Forward and backward in float64, padding on either side, packed rows, caches filled in steps."""
    for causal in directions(feature):
        compare(feature, "sdpa", causal, ("left", "right", "packed"))
        if causal:
            compare_cached(feature, "sdpa")
    kinds = {type(each) for each in cut}
    fields = FEATURES[feature]
    assert (WindowTiles in kinds) == ("sliding_window" in fields)
    assert (DocumentTiles in kinds) == ("prefix" not in fields)


@pytest.mark.parametrize("kind", ["learned", "alibi", "t5", "disentangled"])
@pytest.mark.parametrize("window", [1, 3, 16, 20, 40])
@pytest.mark.parametrize("causal", [True, False])
def test_windows_of_any_width_bias_their_scores(kind: str, window: int, causal: bool, cut: list[Tiles]) -> None:
    fields = {"position_embedding_type": kind, "sliding_window": window, "num_key_value_heads": 4}
    model_class = {"model_class": WeftForMaskedLM} if not causal else {}
    config = tiny_config(is_causal=causal, **fields)
    batch = {"input_ids": random_ids(2, 61), "attention_mask": torch.ones(2, 61).long()}
    batch["attention_mask"][0, :9] = batch["attention_mask"][1, -9:] = 0
    logits = {}
    for backend in ("eager", "sdpa"):
        model = make_model(config, backend, **model_class).double()
        with torch.no_grad():
            logits[backend] = model(**batch).logits[batch["attention_mask"].bool()]
    assert cut and all(isinstance(each, WindowTiles) for each in cut)
    torch.testing.assert_close(logits["sdpa"], logits["eager"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_documents_of_many_lengths_come_back_to_their_places(causal: bool, cut: list[Tiles]) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for _ in range(4):
        lengths = torch.randint(1, 40, (20,), generator=generator).tolist()
        rows.append(torch.cat([torch.arange(length) for length in lengths])[:100])
    batch = {"input_ids": random_ids(4, 100), "position_ids": torch.stack(rows)}
    batch["attention_mask"] = torch.ones(4, 100).long()
    batch["attention_mask"][2, 70:] = 0
    config, logits = tiny_config(is_causal=causal), {}
    for backend in ("eager", "sdpa"):
        model = make_model(config, backend, **({} if causal else {"model_class": WeftForMaskedLM})).double()
        with torch.no_grad():
            logits[backend] = model(**batch).logits[batch["attention_mask"].bool()]
    assert [len(each.tiles) > 3 for each in cut] == [True]
    torch.testing.assert_close(logits["sdpa"], logits["eager"], rtol=0, atol=1e-10)


LAYOUTS: dict[str, dict[str, Any]] = {
    "window": {"sliding_window": 20},
    "window of several blocks": {"sliding_window": 40},
    "packed": {},
    "packed, window": {"sliding_window": 20},
    "padded": {},
}


def layout_of(name: str, tokens: int) -> dict[str, torch.Tensor]:
    """Three rows that are cut, beside input_ids or inputs_embeds."""
    if name.startswith("packed"):
        return {"position_ids": torch.cat((torch.arange(20), torch.arange(tokens - 20))).expand(3, -1)}
    mask = torch.ones(3, tokens).long()
    mask[0, -7:] = mask[2, :7] = 0
    return {"attention_mask": mask} if name == "padded" else {}


@pytest.mark.parametrize("is_traced", [False, True], ids=["", "traced"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_no_number_stays_in_its_row(
    layout: str, causal: bool, bad: float, is_traced: bool, cut: list[Tiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN among the first or last tokens of the row in the middle, or in the gradient of one of its states: the other
    rows and their gradients are what they were."""
    model = make_model(tiny_config(is_causal=causal, **LAYOUTS[layout]), model_class=WeftModel).double()
    draw = torch.Generator().manual_seed(0)
    states, slopes = (torch.randn(3, 61, model.config.hidden_size, generator=draw).double() for _ in range(2))
    others, batch = [0, 2], layout_of(layout, 61)

    def compute(inputs: torch.Tensor, of_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = inputs.clone().requires_grad_()
        found = model(inputs_embeds=inputs, use_cache=False, **batch).last_hidden_state
        found.backward(of_outputs)
        return found.detach(), inputs.grad

    expected = compute(states, slopes)
    assert cut
    if is_traced:  # where nobody can look at a number first
        monkeypatch.setattr(tiles, "is_tracing", lambda tensor: True)
    for place in (0, 20, -1):
        for spoilt in (0, 1):
            given = [states.clone(), slopes.clone()]
            given[spoilt][1, place] = bad
            found = compute(*given)
            assert not found[spoilt][1].isfinite().all()
            for one, other in zip(found, expected):
                torch.testing.assert_close(one[others], other[others], rtol=0, atol=1e-10)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_may_be_asked_for_by_functions(layout: str, cut: list[Tiles]) -> None:
    """Those of torch.func, and gradients of gradients."""
    model = make_model(tiny_config(**LAYOUTS[layout]), model_class=WeftModel).double()
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    states = torch.randn(3, 61, model.config.hidden_size, dtype=torch.double, requires_grad=True)

    def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        given = {"inputs_embeds": states, "use_cache": False, **layout_of(layout, 61)}
        outputs = torch.func.functional_call(model, weights, (), given)
        is_token = given.get("attention_mask", torch.ones(3, 61))[..., None]
        return (outputs.last_hidden_state * is_token).square().sum()

    found = {}
    for backend in ("eager", "sdpa"):
        model.set_attn_implementation(backend)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            (first,) = torch.autograd.grad(loss(weights), states, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), states)
        found[backend] = {**torch.func.grad(loss)(weights), "second": second}
    assert cut
    for name, value in found["eager"].items():
        torch.testing.assert_close(found["sdpa"][name], value, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["rope", "alibi", "t5", "disentangled"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_on_another_device_are_given_their_tiles_there(layout: str, kind: str, cut: list[Tiles]) -> None:
    """As accelerate puts the layers of a large model on several devices."""
    fields = {"position_embedding_type": kind, "num_key_value_heads": 4, **LAYOUTS[layout]}
    model = make_model(tiny_config(**fields), model_class=WeftModel)
    for module in (model.layers[1], model.norm):
        add_hook_to_module(module.to("meta"), AlignDevicesHook("meta"))
    states = model(random_ids(3, 61), use_cache=False, **layout_of(layout, 61)).last_hidden_state
    assert cut and states.is_meta and states.shape[:2] == (3, 61)
    for each in cut:
        moved = each.to("meta")
        assert all(tile.mask is None or tile.mask.is_meta for tile in moved.tiles)
        assert {tile.distances.device.type for tile in moved.tiles} == {"meta"}


def test_a_mask_of_other_numbers_than_1_is_one_of_tokens(cut: list[Tiles]) -> None:
    model, ids = make_model(tiny_config(sliding_window=5)).double(), random_ids(2, 61)
    mask = torch.ones_like(ids)
    mask[:, :7] = 0
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits
        for other in (mask * torch.arange(61), mask.bool(), mask.double()):
            torch.testing.assert_close(model(ids, attention_mask=other).logits, expected, rtol=0, atol=0)
    assert cut


def test_a_document_that_goes_on_behind_padding_is_masked_instead(cut: list[Tiles]) -> None:
    batch = {"input_ids": random_ids(1, 12), "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]])}
    batch["position_ids"] = torch.tensor([[0, 1, 2, 3, 0, 0, 4, 5, 0, 1, 2, 3]])
    model = make_model()
    with torch.no_grad():
        found = model(**batch).logits
        model.set_attn_implementation("eager")
        expected = model(**batch).logits
    assert cut == []
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real])


@pytest.mark.parametrize("dynamic", [False, True])
def test_windows_and_documents_compile_as_one_graph(dynamic: bool, cut: list[Tiles]) -> None:
    """Documents of unknown lengths stay masks there, but for the window's."""
    model = make_model(tiny_config(sliding_window=5, layer_types=[SLIDING, FULL], is_causal=True), "eager").double()
    ids = random_ids(2, 48)
    positions = torch.cat((torch.arange(20), torch.arange(28)))[None].expand(2, -1)
    for batch in ({"input_ids": ids}, {"input_ids": ids, "position_ids": positions}):
        model.set_attn_implementation("eager")
        with torch.no_grad():
            expected = model(**batch, use_cache=False).logits
            model.set_attn_implementation("sdpa")
            torch._dynamo.reset()
            graph = torch.compile(model, backend="eager", fullgraph=True, dynamic=dynamic)
            found = graph(**batch, use_cache=False).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is made."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if torch.is_tensor(each):
                self.numbers = max(self.numbers, each.numel())
        return result


def largest_tensor(model: torch.nn.Module, tokens: int, **batch: torch.Tensor) -> int:
    """Numbers of the largest tensor that a forward and a backward pass of the base model makes."""
    with Largest() as seen:
        model.base_model(random_ids(1, tokens), **batch).last_hidden_state.sum().backward()
    return seen.numbers


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["rope", "alibi"])
def test_memory_grows_with_the_row_and_not_with_its_square(causal: bool, kind: str) -> None:
    fields = {"sliding_window": 32, "is_causal": causal, "max_position_embeddings": 4096}
    config = tiny_config(position_embedding_type=kind, **fields)
    model = make_model(config, model_class=WeftForMaskedLM if not causal else type(make_model()))
    short, long = largest_tensor(model, 1024), largest_tensor(model, 4096)
    assert long <= 4.1 * short and long < 4096 * 1024


def test_packed_documents_need_no_mask_over_the_row() -> None:
    model = make_model(tiny_config(max_position_embeddings=4096))
    positions = torch.arange(64).repeat(32)[None]
    assert largest_tensor(model, 2048, position_ids=positions) < 2048 * 256


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_need_no_mask_over_the_row(causal: bool, side: str) -> None:
    """Also under full attention: each row is computed as long as it is."""
    config = tiny_config(max_position_embeddings=4096, is_causal=causal)
    model = make_model(config, model_class=WeftForMaskedLM if not causal else type(make_model()))
    mask = torch.ones(1, 2048).long()
    mask[:, slice(500) if side == "left" else slice(-500, None)] = 0
    assert largest_tensor(model, 2048, attention_mask=mask) < 2048 * 256


def test_short_rows_and_wide_windows_are_not_cut() -> None:
    config = tiny_config(sliding_window=32, is_causal=True)
    device = torch.device("cpu")
    assert tiles.window_tiles(32, True, 1, tiles.LEAST_TOKENS - 1, tiles.LEAST_TOKENS - 1, None, None, device) is None
    assert tiles.window_tiles(900, True, 1, 1024, 1024, None, None, device) is None
    assert tiles.window_tiles(32, True, 1, 1024, 1024, None, None, device) is not None
    assert tiles.document_tiles(torch.tensor([[0] * 1200]), True, None) is None
    assert tiles.document_tiles(torch.tensor([[-1] * 1200]), True, None) is None
    assert tiles.document_tiles(torch.tensor([[0] * 1199 + [-1]]), True, None) is not None
    packed = torch.arange(32).repeat_interleave(tiles.LEAST_PACKED // 32)[None]
    assert tiles.document_tiles(packed[:, 1:], True, None) is None
    assert tiles.document_tiles(packed, True, None) is not None
    assert make_model(config)(random_ids(1, 16)).logits.isfinite().all()
