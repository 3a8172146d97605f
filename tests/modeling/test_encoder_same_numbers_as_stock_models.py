"""The masked and pretraining heads compute what stock encoders compute with the same weights, formula by formula."""

from typing import Any

import pytest
import torch
from helpers.models import FULL, SLIDING, make_model, random_ids, shake, tiny_config
from helpers.stock import LiftFloat32, assert_close, assert_same_numbers, run, shared_fields
from torch import nn
from transformers import (
    BertConfig,
    BertForPreTraining,
    EuroBertConfig,
    EuroBertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from weft import WeftConfig, WeftForMaskedLM, WeftForPreTraining, WeftModel

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def masked_labels(ids: torch.Tensor, share: float = 0.5) -> torch.Tensor:
    """The tokens themselves, so many of them as targets."""
    return ids.masked_fill(torch.rand(ids.shape) >= share, -100)


def as_eurobert(config: WeftConfig) -> EuroBertConfig:
    """The stock encoder of a Weft without QK-norm, whose head has a bias where its feed-forwards have."""
    return EuroBertConfig(**shared_fields(config, attention_bias=config.attention_bias, mlp_bias=config.mlp_bias))


@DTYPES
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "attention_bias": True,
            "mlp_bias": True,
            "lm_head_bias": True,
            "hidden_act": "gelu",
            "num_key_value_heads": 1,
        },
    ],
    ids=["plain", "biases-mqa-gelu"],
)
def test_the_masked_head_equals_eurobert(changes: dict[str, Any], tied: bool, backend: str, dtype: torch.dtype) -> None:
    """Logits, loss and the gradient of every weight, with padding and without."""
    config = tiny_config(qk_norm=False, tie_word_embeddings=tied, **changes)
    stock = shake(EuroBertForMaskedLM._from_config(as_eurobert(config), attn_implementation=backend)).eval().to(dtype)
    weft = WeftForMaskedLM._from_config(config, attn_implementation=backend).eval().to(dtype)
    weft.load_state_dict(stock.state_dict(), strict=True)
    ids = random_ids(2, 17)
    labels, mask = masked_labels(ids), torch.ones_like(ids)
    mask[1, 13:] = 0
    assert_same_numbers(stock, weft, dtype, input_ids=ids, labels=labels)
    labels = labels.masked_fill(mask == 0, -100)
    expected, actual = (run(model, dtype, input_ids=ids, attention_mask=mask, labels=labels) for model in (stock, weft))
    assert_close(actual.logits[mask.bool()], expected.logits[mask.bool()], "logits")
    assert_close(actual.loss, expected.loss, "loss")


def as_qwen3(config: WeftConfig) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    """The stock decoder of a Weft with QK-norm."""
    fields = shared_fields(config, layer_types=list(config.layer_types), sliding_window=config.sliding_window)
    return Qwen3Config(**fields, use_sliding_window=config.sliding_window is not None), Qwen3ForCausalLM


def as_llama(config: WeftConfig) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    """The stock decoder of a Weft without QK-norm."""
    return LlamaConfig(**shared_fields(config)), LlamaForCausalLM


@DTYPES
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("convert", "changes"),
    [(as_llama, {"qk_norm": False}), (as_qwen3, {}), (as_qwen3, {"sliding_window": 4, "layer_types": [SLIDING, FULL]})],
    ids=["llama", "qwen3", "qwen3-sliding"],
)
def test_the_masked_head_equals_a_stock_decoder_run_in_both_directions(
    convert: Any, changes: dict[str, Any], backend: str, dtype: torch.dtype
) -> None:
    """Without shifting its labels; and shifted, where the masked token is predicted from the one before it."""
    config = tiny_config(**changes)
    stock_config, stock_class = convert(config)
    stock_config.is_causal = False
    stock = shake(stock_class._from_config(stock_config, attn_implementation=backend)).eval().to(dtype)
    ids = random_ids(2, 17)
    labels = masked_labels(ids)
    labels[:, 0] = -100
    with LiftFloat32() if dtype is torch.float64 else torch.no_grad():
        expected = stock(ids, use_cache=False).logits
    for shifted in (False, True):
        config = tiny_config(masked_next_token=shifted, **changes)
        weft = WeftForMaskedLM._from_config(config, attn_implementation=backend).eval().to(dtype)
        weft.load_state_dict(stock.state_dict(), strict=True)
        actual = run(weft, dtype, input_ids=ids, labels=labels)
        here = slice(1, None)
        before = slice(None, -1) if shifted else here
        assert_close(actual.logits[:, here], expected[:, before], "logits")
        loss = nn.functional.cross_entropy(expected[:, before].flatten(0, 1), labels[:, here].flatten())
        assert_close(actual.loss, loss, "loss")


@pytest.fixture
def pretraining_pair() -> tuple[WeftForPreTraining, BertForPreTraining]:
    """A Weft, and the heads of a stock BERT with the same weights, on the hidden states of the Weft's stack.

    BERT's norm is exchanged for another stock norm, the one that Weft has.
    """
    config = tiny_config(
        type_vocab_size=2, lm_head_transform=True, lm_head_bias=True, hidden_act="gelu", tie_word_embeddings=False
    )
    weft = make_model(config, model_class=WeftForPreTraining).double()
    stock_config = BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        hidden_act=config.hidden_act,
        tie_word_embeddings=False,
    )
    stock = BertForPreTraining(stock_config).double().eval()
    stock.cls.predictions.transform.LayerNorm = LlamaRMSNorm(config.hidden_size, config.norm_eps).double()
    for theirs, ours in (
        (stock.cls.predictions.transform.dense, weft.head_transform.dense),
        (stock.cls.predictions.transform.LayerNorm, weft.head_transform.norm),
        (stock.cls.predictions.decoder, weft.lm_head),
        (stock.cls.seq_relationship, weft.seq_relationship),
        (stock.bert.pooler.dense, weft.pooler.dense),
    ):
        theirs.load_state_dict(ours.state_dict(), strict=True)

    def forward(input_ids: torch.Tensor, **inputs: Any) -> BaseModelOutputWithPooling:
        inputs = {key: value for key, value in inputs.items() if torch.is_tensor(value)}
        states = weft.model(input_ids, **inputs, is_causal=False).last_hidden_state
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=stock.bert.pooler(states))

    stock.bert.forward = forward
    return weft, stock


def test_the_pretraining_heads_equal_those_of_bert(pretraining_pair: tuple[Any, Any]) -> None:
    weft, stock = pretraining_pair
    ids = random_ids(3, 11)
    types = (torch.arange(11) > 5).long().expand(3, -1)
    inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": torch.ones_like(ids)}
    labels = {"labels": masked_labels(ids), "next_sentence_label": torch.tensor([0, 1, 1])}
    expected, actual = run(stock, torch.float64, **inputs, **labels), run(weft, torch.float64, **inputs, **labels)
    assert_close(actual.prediction_logits, expected.prediction_logits, "masked logits")
    assert_close(actual.seq_relationship_logits, expected.seq_relationship_logits, "next-sentence logits")
    assert_close(actual.loss, expected.loss, "loss")
    for theirs, ours in (
        (stock.cls.predictions.transform.dense, weft.head_transform.dense),
        (stock.cls.seq_relationship, weft.seq_relationship),
        (stock.bert.pooler.dense, weft.pooler.dense),
    ):
        assert_close(ours.weight.grad, theirs.weight.grad, "gradient")


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("model_class", [WeftForMaskedLM, WeftForPreTraining])
def test_the_head_written_out(model_class: type, bias: bool) -> None:
    """Dense map, activation, root-mean-square norm, output matrix, as plain formulas."""
    config = tiny_config(lm_head_transform=True, lm_head_bias=bias, hidden_act="relu")
    model = make_model(config, model_class=model_class).double()
    weights = model.state_dict()
    states = model.model(random_ids(2, 9), is_causal=False).last_hidden_state
    hidden = states @ weights["head_transform.dense.weight"].T
    hidden = (hidden + weights["head_transform.dense.bias"] if bias else hidden).clamp(min=0)
    hidden = hidden / (hidden.pow(2).mean(-1, keepdim=True) + config.norm_eps).sqrt()
    logits = hidden * weights["head_transform.norm.weight"] @ weights["model.embed_tokens.weight"].T
    logits = logits + weights["lm_head.bias"] if bias else logits
    torch.testing.assert_close(model(random_ids(2, 9))[0], logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model_class", [WeftModel, WeftForMaskedLM])
def test_token_types_are_added_to_the_embeddings(model_class: type) -> None:
    """As in a model without them that is given the sums."""
    with_types = make_model(tiny_config(type_vocab_size=3, is_causal=False), model_class=model_class).double()
    without = make_model(tiny_config(is_causal=False), model_class=model_class).double()
    weights = with_types.state_dict()
    types = next(weights.pop(name) for name in list(weights) if "token_type_embeddings" in name)
    without.load_state_dict(weights, strict=True)
    ids, given = random_ids(2, 9), torch.randint(0, 3, (2, 9))
    words = without.get_input_embeddings()(ids)
    for beside in ({}, {"position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])}):
        for type_ids, arguments in ((given, {"token_type_ids": given}), (torch.zeros_like(given), {})):
            expected = without(inputs_embeds=words + types[type_ids], **beside)[0]
            actual = with_types(ids, **arguments, **beside)[0]
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
            assert torch.equal(with_types(inputs_embeds=words, **arguments, **beside)[0], actual)
    assert (with_types(ids, token_type_ids=given)[0] - with_types(ids)[0]).abs().max() > 0.1
    # a tokenizer may give types to a model that has none
    assert torch.equal(without(ids, token_type_ids=given)[0], without(ids)[0])
