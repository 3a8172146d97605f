"""Values of the first layer in all others (https://huggingface.co/papers/2410.17897) beside their formula."""

from typing import Any

import pytest
import torch
from helpers.models import make_model, tiny_config

from weft import WeftConfig, WeftForConditionalGeneration, WeftForMaskedLM, WeftModel
from weft.interop import InteropError, find_family
from weft.interop.convert import export_model
from weft.recipes.training.trainer import WeftTrainer

EXACT = {"rtol": 1e-12, "atol": 1e-12}
LAYERS = 3


def mixing_model(**changes: Any) -> torch.nn.Module:
    """Weights, and what values are mixed by, far from their initial ones."""
    model = make_model(tiny_config(value_residual=True, num_hidden_layers=LAYERS, **changes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


def plain_twin(model: torch.nn.Module) -> torch.nn.Module:
    """The model without the option, whose maps to values are told to give what the formula says."""
    fields = {**model.config.to_diff_dict(), "value_residual": False, "auto_map": None}
    twin = type(model)(WeftConfig(**fields)).double().eval()
    weights = model.state_dict()
    mixes = {name: weights.pop(name) for name in list(weights) if name.endswith("value_mix")}
    twin.load_state_dict(weights)
    stacks = ("encoder", "decoder") if model.config.is_encoder_decoder else ("",)
    for stack in stacks:
        mix_by_hand(twin.model.get_submodule(stack), [mix for name, mix in mixes.items() if stack in name])
    return twin


def mix_by_hand(stack: torch.nn.Module, mixes: list[torch.Tensor]) -> None:
    """Have each layer behind the first give its own values and those of the first, times the two numbers of its mix."""
    assert len(mixes) == LAYERS - 1
    first: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, values: torch.Tensor) -> None:
        first[:] = [values]

    stack.layers[0].self_attn.v_proj.register_forward_hook(keep)
    for layer, (own, of_first) in zip(stack.layers[1:], mixes):
        layer.self_attn.v_proj.register_forward_hook(
            lambda module, inputs, values, own=own, of_first=of_first: own * values + of_first * first[0]
        )


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("without", [(), (1,)])
def test_later_layers_add_the_first_ones_values_to_their_own(norm_position, without):
    model = mixing_model(norm_position=norm_position, layers_without_positions=without)
    ids = torch.randint(2, 60, (2, 9))
    torch.testing.assert_close(model(ids).logits, plain_twin(model)(ids).logits, **EXACT)


def test_packed_documents_stay_apart():
    model = mixing_model()
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    ids = torch.randint(2, 60, (1, 9))
    packed = model(ids, position_ids=positions).logits
    torch.testing.assert_close(packed[:, 4:], model(ids[:, 4:]).logits, **EXACT)
    torch.testing.assert_close(packed, plain_twin(model)(ids, position_ids=positions).logits, **EXACT)


def test_a_token_written_with_the_cache_is_the_same():
    model = mixing_model()
    ids = torch.randint(2, 60, (2, 9))
    whole, past = model(ids).logits, None
    for begin, end in ((0, 5), (5, 6), (6, 9)):
        outputs = model(ids[:, begin:end], past_key_values=past, use_cache=True)
        past = outputs.past_key_values
        torch.testing.assert_close(outputs.logits, whole[:, begin:end], **EXACT)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_what_it_generates_is_what_is_likeliest_without_a_cache(cache):
    model = mixing_model()
    ids = torch.randint(2, 60, (2, 5))
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    written = model.generate(ids, cache_implementation=cache, **options)
    for _ in range(8):
        ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(written, ids)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradients_are_the_same_with_activation_checkpointing(use_reentrant):
    model = mixing_model().train()
    ids = torch.randint(2, 60, (2, 9))

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = gradients()
    assert all(expected[f"model.layers.{index}.self_attn.value_mix"].abs().min() > 0 for index in range(1, LAYERS))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    torch.testing.assert_close(gradients(), expected, **EXACT)


def test_it_compiles_as_one_graph_that_computes_the_same():
    model = mixing_model()
    ids = torch.randint(2, 60, (2, 9))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(ids).logits, model(ids).logits, **EXACT)


def test_a_decoder_beside_an_encoder_mixes_its_own_values():
    fields = {"is_encoder_decoder": True, "value_residual": True, "pad_token_id": 0, "decoder_start_token_id": 1}
    model = WeftForConditionalGeneration(tiny_config(num_hidden_layers=LAYERS, **fields)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    names = {name for name, _ in model.named_parameters() if name.endswith("value_mix")}
    stacks = [f"model.{stack}.layers.{index}" for stack in ("encoder", "decoder") for index in range(1, LAYERS)]
    assert names == {f"{layer}.self_attn.value_mix" for layer in stacks}
    ids, answer = torch.randint(2, 60, (2, 9)), torch.randint(2, 60, (2, 6))
    whole = model(ids, decoder_input_ids=answer).logits
    torch.testing.assert_close(whole, plain_twin(model)(ids, decoder_input_ids=answer).logits, **EXACT)
    first = model(ids, decoder_input_ids=answer[:, :4], use_cache=True)
    rest = model(ids, decoder_input_ids=answer[:, 4:], past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(torch.cat((first.logits, rest.logits), dim=1), whole, **EXACT)


def test_hidden_states_and_attentions_are_those_of_each_layer():
    model = mixing_model()
    model.set_attn_implementation("eager")
    twin = plain_twin(model)
    twin.set_attn_implementation("eager")
    ids = torch.randint(2, 60, (2, 9))
    found, expected = (each(ids, output_hidden_states=True, output_attentions=True) for each in (model, twin))
    assert len(found.hidden_states) == LAYERS + 1 and len(found.attentions) == LAYERS
    torch.testing.assert_close(found.hidden_states, expected.hidden_states, **EXACT)
    torch.testing.assert_close(found.attentions, expected.attentions, **EXACT)


def test_what_is_mixed_begins_as_the_mean_and_is_saved(tmp_path):
    config = tiny_config(value_residual=True)
    assert WeftForMaskedLM(config).model.layers[1].self_attn.value_mix.tolist() == [0.5, 0.5]
    WeftForMaskedLM(tiny_config()).save_pretrained(tmp_path / "plain")
    widened = WeftModel.from_pretrained(tmp_path / "plain", value_residual=True)
    assert widened.layers[1].self_attn.value_mix.tolist() == [0.5, 0.5]
    model = mixing_model()
    model.save_pretrained(tmp_path / "mixing")
    loaded = type(model).from_pretrained(tmp_path / "mixing").double().eval()
    ids = torch.randint(2, 60, (2, 9))
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, **EXACT)


def test_pretraining_does_not_decay_what_values_are_mixed_by():
    model = mixing_model()
    decayed = WeftTrainer.get_decay_parameter_names(None, model)
    assert decayed and not [name for name in decayed if "value_mix" in name]


def test_no_stock_class_and_no_pipeline_is_said_to_compute_it():
    model = make_model(tiny_config(value_residual=True, qk_norm=True))
    with pytest.raises(InteropError, match=r"value_residual=True \(it would be False\)"):
        export_model(model, find_family("qwen3"), "causal")
    assert model.config.base_model_pp_plan is None and tiny_config().base_model_pp_plan
