"""An encoder-decoder reads its encoder, packed or padded, cached or not, and refuses to be anything else."""

from typing import Any

import pytest
import torch
from helpers.models import FULL, SLIDING, make_model, random_ids, shake, tiny_config
from transformers import AutoModel

from weft import (
    WeftConfig,
    WeftForCausalLM,
    WeftForConditionalGeneration,
    WeftForMaskedLM,
    WeftForSequenceClassification,
    WeftForTokenClassification,
    WeftModel,
)

POSITIONS: dict[str, dict[str, Any]] = {
    "rope": {},
    "learned": {"position_embedding_type": "learned"},
    "sinusoidal": {"position_embedding_type": "sinusoidal"},
    "alibi": {"position_embedding_type": "alibi"},
    "t5": {"position_embedding_type": "t5"},
    "disentangled": {"position_embedding_type": "disentangled", "num_key_value_heads": 4},
}
EXACT = {"rtol": 0.0, "atol": 1e-10}


def two_stacks(model_class: type = WeftForConditionalGeneration, **fields: Any) -> WeftForConditionalGeneration:
    config = tiny_config(is_encoder_decoder=True, decoder_start_token_id=1, pad_token_id=0, **fields)
    return make_model(config, model_class=model_class).double()


@pytest.mark.parametrize("fields", [{}, {"parallel_residual": True}, {"norm_position": "post"}], ids=str)
def test_the_decoder_reads_the_encoder(fields: dict[str, Any]) -> None:
    model = two_stacks(**fields)
    target = random_ids(1, 6)
    with torch.no_grad():
        one, other = (model(random_ids(1, 9, seed=seed), decoder_input_ids=target).logits for seed in (1, 2))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", POSITIONS)
def test_packed_pairs_are_as_each_pair_alone(name: str) -> None:
    model = two_stacks(**POSITIONS[name])
    sources = [random_ids(1, length, seed=length) for length in (5, 8)]
    targets = [random_ids(1, length, seed=length) for length in (7, 4)]
    with torch.no_grad():
        packed = model(
            torch.cat(sources, dim=1),
            position_ids=torch.cat((torch.arange(5), torch.arange(8)))[None],
            decoder_input_ids=torch.cat(targets, dim=1),
            decoder_position_ids=torch.cat((torch.arange(7), torch.arange(4)))[None],
        ).logits
        alone = [model(s, decoder_input_ids=t).logits for s, t in zip(sources, targets, strict=True)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), **EXACT)


def test_only_one_packed_side_is_refused() -> None:
    model = two_stacks()
    with pytest.raises(ValueError, match="need position_ids and decoder_position_ids that both restart"):
        model(random_ids(1, 6), position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]]), decoder_input_ids=random_ids(1, 4))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", POSITIONS)
def test_generation_with_a_cache_is_generation_without(name: str, beams: int) -> None:
    model = two_stacks(**POSITIONS[name])
    ids = random_ids(2, 9)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    options = {"max_new_tokens": 8, "num_beams": beams, "do_sample": False, "eos_token_id": None}
    found = [model.generate(ids, attention_mask=mask, use_cache=cached, **options) for cached in (True, False)]
    assert torch.equal(*found)


def test_a_window_is_for_each_stack_and_not_for_attention_to_the_encoder() -> None:
    model = two_stacks(sliding_window=3, layer_types=[SLIDING, FULL])
    found = [
        model.generate(random_ids(1, 9), max_new_tokens=8, do_sample=False, use_cache=cached)
        for cached in (True, False)
    ]
    assert torch.equal(*found)


def test_labels_are_shifted_to_the_right() -> None:
    model, labels = two_stacks(), torch.tensor([[5, 6, 7, -100]])
    assert model.prepare_decoder_input_ids_from_labels(labels).tolist() == [[1, 5, 6, 7]]
    assert model.prepare_decoder_input_ids_from_labels(torch.tensor([[5, -100, 7]])).tolist() == [[1, 5, 0]]
    source = random_ids(1, 6)
    outputs = model(source, labels=labels)
    assert outputs.past_key_values is None  # training keeps no cache
    expected = model(source, decoder_input_ids=torch.tensor([[1, 5, 6, 7]])).logits
    assert torch.equal(outputs.logits, expected)
    loss = torch.nn.functional.cross_entropy(expected[0, :3], labels[0, :3])
    torch.testing.assert_close(outputs.loss, loss, rtol=0, atol=1e-12)


def test_loss_and_gradients_do_not_depend_on_the_cut() -> None:
    model, ids = two_stacks(), random_ids(4, 6)
    labels = random_ids(4, 5, seed=3).masked_fill(torch.rand(4, 5) < 0.4, -100)
    items = int((labels != -100).sum())
    gradients = []
    for size in (4, 1):
        model.zero_grad()
        for first in range(0, 4, size):
            part = slice(first, first + size)
            model(ids[part], labels=labels[part], num_items_in_batch=items).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model_class", [WeftForSequenceClassification, WeftForTokenClassification])
def test_task_heads_read_the_decoder(model_class: type) -> None:
    """As in BART: the decoder reads the input behind its start token; padding on either side changes nothing."""
    model = two_stacks(model_class)
    ids = random_ids(1, 6)
    expected = model(ids).logits
    left = model(torch.cat((torch.zeros(1, 3).long(), ids), 1), attention_mask=torch.tensor([[0] * 3 + [1] * 6])).logits
    found = left if model_class is WeftForSequenceClassification else left[:, 3:]
    torch.testing.assert_close(found, expected, **EXACT)


def test_the_auto_class_makes_both_stacks(tmp_path: Any) -> None:
    model = two_stacks()
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert type(base).__name__ == "WeftEncoderDecoderModel" and isinstance(base, WeftModel)
    ids, target = random_ids(1, 6), random_ids(1, 4)
    expected = model.model(ids, decoder_input_ids=target).last_hidden_state
    assert torch.equal(base(ids, decoder_input_ids=target).last_hidden_state, expected)


def test_other_roles_are_refused() -> None:
    both = WeftConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, is_encoder_decoder=True)
    for model_class in (WeftForCausalLM, WeftForMaskedLM):
        with pytest.raises(ValueError, match=f"{model_class.__name__} is one stack, but the config has is_encoder_dec"):
            model_class(both)
    with pytest.raises(ValueError, match="is an encoder-decoder, but the config has is_encoder_decoder=False"):
        WeftForConditionalGeneration(tiny_config())
    with pytest.raises(ValueError, match="decoder_start_token_id is not set"):
        WeftForConditionalGeneration(both)(torch.tensor([[1, 2]]), labels=torch.tensor([[3]]))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"position_embedding_type": "t5", "relative_attention_per_layer": True},
        {"position_embedding_type": "t5"},
        {"position_embedding_type": "alibi"},
        {"position_embedding_type": "disentangled", "num_key_value_heads": 4},
    ],
    ids=["t5 per layer", "t5", "alibi", "disentangled"],
)
def test_gradient_checkpointing_changes_no_gradient(fields: dict[str, Any], reentrant: bool) -> None:
    """Also where the head's direction is not that of the config, which the recomputation must not forget."""
    ids, gradients = random_ids(2, 12), []
    for checkpointed in (False, True):
        model = shake(WeftForMaskedLM(tiny_config(is_causal=True, **fields))).double().train()
        if checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model(ids, labels=ids).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-12)
