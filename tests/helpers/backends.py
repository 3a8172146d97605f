"""Features of attention on every backend: what each computes, compared with attention written out."""

import warnings
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import PreTrainedModel

from weft import WeftConfig, WeftForCausalLM, WeftForConditionalGeneration, WeftForMaskedLM
from weft.backends import refusal

BACKENDS = ("eager", "sdpa", "flex_attention", "flash_attention_2")
EQUAL, REFUSED, ON_GPU = "equal", "refused", "GPU only"
FORWARD = "equal; training on a GPU only"
LENGTH = 32  # flex attention on a CPU is right at multiples of 16 only
FULL, SLIDING = "full_attention", "sliding_attention"
TWO_SETS = {
    FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
    SLIDING: {"rope_type": "default", "rope_theta": 100.0},
}

# What a row of the table says -> config fields, and arguments of the call
FEATURES: dict[str, dict[str, Any]] = {
    "full attention": {},
    "grouped queries": {"num_key_value_heads": 2},
    "sliding window": {"sliding_window": 5, "layer_types": [SLIDING, FULL]},
    "rotary": {},
    "rotary, a part of each head": {"rope_parameters": {"rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    "rotary, interleaved": {"position_interleaved": True},
    "rotary, a set for each layer type": {
        "sliding_window": 5,
        "layer_types": [SLIDING, FULL],
        "rope_parameters": TWO_SETS,
    },
    "layers without positions": {"layers_without_positions": [0]},
    "learned positions": {"position_embedding_type": "learned", "position_offset": 2},
    "sinusoidal positions": {"position_embedding_type": "sinusoidal"},
    "ALiBi": {"position_embedding_type": "alibi", "num_attention_heads": 6, "head_dim": 8, "num_key_value_heads": 6},
    "T5 buckets, shared": {"position_embedding_type": "t5", "relative_attention_num_buckets": 8},
    "T5 buckets, per layer": {"position_embedding_type": "t5", "relative_attention_per_layer": True},
    "disentangled": {"position_embedding_type": "disentangled", "position_buckets": 8, "num_key_value_heads": 4},
    "no positions": {"position_embedding_type": "none"},
    "QK-norm over each head": {"qk_norm": True},
    "QK-norm over all heads": {"qk_norm": True, "qk_norm_over": "width"},
    "gates of heads": {"attention_gate": True},
    "values of the first layer in all": {"value_residual": True},
    "cap of scores": {"attn_logit_softcapping": 2.0},
    "dropout of attention weights": {"attention_dropout": 0.1},
    "prefix language model": {"prefix": True},
    "causal and bidirectional rows": {"causal_rows": True},
    "attention to an encoder": {"is_encoder_decoder": True},
}


def make(feature: str, backend: str, causal: bool) -> PreTrainedModel:
    """A small model with the feature; weights far from their initial ones, so that everything in it matters."""
    fields = {name: value for name, value in FEATURES[feature].items() if name not in ("prefix", "causal_rows")}
    shape = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
    shape |= {"max_position_embeddings": 64, "decoder_start_token_id": 1}
    torch.manual_seed(3)
    model_class = WeftForCausalLM if causal else WeftForMaskedLM
    if fields.get("is_encoder_decoder"):
        model_class = WeftForConditionalGeneration
    else:
        fields["is_causal"] = causal
    config = WeftConfig(**{**shape, **fields})
    config._attn_implementation = backend
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.double().eval()


def directions(feature: str) -> tuple[bool, ...]:
    """Whether the feature is tried in causal models, in bidirectional ones, or both."""
    only = {"prefix language model": (True,), "causal and bidirectional rows": (False,)}
    return only.get(feature, (True,) if FEATURES[feature].get("is_encoder_decoder") else (True, False))


def batches(feature: str) -> dict[str, dict[str, torch.Tensor]]:
    """Rows padded on the left and on the right, the last one padding only; and rows of several documents."""
    ids = torch.randint(2, 61, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    left, right = torch.ones(3, LENGTH).long(), torch.ones(3, LENGTH).long()
    left[1, :9] = right[1, -9:] = 0
    left[2] = right[2] = 0
    positions = torch.cat((torch.arange(11), torch.arange(LENGTH - 11)))[None].expand(3, -1)
    found = {
        "left": {"input_ids": ids, "attention_mask": left},
        "right": {"input_ids": ids, "attention_mask": right},
        "packed": {"input_ids": ids, "position_ids": positions},
    }
    for batch in found.values():
        if FEATURES[feature].get("prefix"):
            batch["prefix_mask"] = torch.arange(LENGTH)[None].expand(3, -1) < 14
        if FEATURES[feature].get("causal_rows"):
            batch["causal_rows"] = torch.tensor([True, False, True])
        if FEATURES[feature].get("is_encoder_decoder"):
            batch["decoder_input_ids"] = ids.flip(0)
    if FEATURES[feature].get("is_encoder_decoder"):
        found["packed"]["decoder_position_ids"] = positions
    return found


def real_tokens(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Bool [rows, tokens] of what is compared: everything that is no padding (of a decoder all, but for rows whose
    encoder has nothing but padding)."""
    is_token = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    return is_token.any(dim=1, keepdim=True).expand_as(is_token) if "decoder_input_ids" in batch else is_token


def outcome(feature: str, backend: str) -> str:
    """What the table says of a feature on a backend, after trying it; AssertionError where the numbers are others."""
    config = make(feature, "eager", directions(feature)[0]).config
    by_call = "prefix language model", "causal and bidirectional rows"
    if refusal(config, backend):
        return REFUSED
    if backend == "flash_attention_2":
        return REFUSED if feature in by_call else ON_GPU
    for causal in directions(feature):
        if backend == "flex_attention":
            with patch("weft.backends.compile_friendly_flex_attention", written_out):
                compare(feature, backend, causal, ("left", "right", "packed"), with_gradients=False)
        else:
            compare(feature, backend, causal, ("left", "right", "packed"))
            if causal:
                compare_cached(feature, backend)
    return FORWARD if backend == "flex_attention" else EQUAL


def written_out(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, training: bool = False, **kwargs: Any
) -> torch.Tensor:
    """Flex attention that is not compiled: the same edits of scores, one compilation of many seconds less."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return flex_attention(query, key, value, **kwargs)


def compare(feature: str, backend: str, causal: bool, kinds: tuple[str, ...], with_gradients: bool = True) -> None:
    """Assert that logits and gradients are those of attention written out."""
    limit = 1e-10
    for kind in kinds:
        batch = batches(feature)[kind]
        real = real_tokens(batch)
        found = []
        for name in ("eager", backend):
            model = make(feature, name, causal)
            with torch.set_grad_enabled(with_gradients):
                logits = model(**batch).logits
                if with_gradients:
                    (logits[real] * torch.linspace(-1, 1, 61, dtype=torch.float64)).mean().backward()
            assert logits.isfinite().all(), f"{feature} on {name}, {kind}: not finite"
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            assert all(gradient.isfinite().all() for gradient in gradients.values()), f"{feature} on {name}, {kind}"
            found.append((logits[real].detach(), gradients))
        (expected, expected_gradients), (logits, gradients) = found
        assert (logits - expected).abs().max() <= limit * max(1.0, float(expected.abs().max())), f"{feature}, {kind}"
        for name, gradient in expected_gradients.items():
            error = (gradients[name] - gradient).abs().max()
            assert error <= limit * max(1.0, float(gradient.abs().max())), f"{feature}, {kind}: gradient of {name}"


def compare_cached(feature: str, backend: str) -> None:
    """Assert that a cache filled in three steps, rows padded on the left, gives the logits of one step without."""
    model = make(feature, backend, True)
    batch = batches(feature)["left"]
    batch = {name: tensor[:2] for name, tensor in batch.items()}
    text = "decoder_input_ids" if "decoder_input_ids" in batch else "input_ids"
    with torch.no_grad():
        whole = model(**batch, use_cache=False).logits
        cache, parts = None, []
        for first, last in ((0, 17), (17, 30), (30, 31), (31, LENGTH)):
            step = dict(batch)
            step[text] = batch[text][:, first:last]
            if text == "input_ids":
                step["attention_mask"] = batch["attention_mask"][:, :last]
            if "prefix_mask" in step:
                step["prefix_mask"] = batch["prefix_mask"][:, first:last]
            outputs = model(**step, past_key_values=cache, use_cache=True)
            cache, parts = outputs.past_key_values, [*parts, outputs.logits]
    real = real_tokens(batch)
    error = (torch.cat(parts, dim=1) - whole)[real].abs().max()
    assert error <= 1e-10 * max(1.0, float(whole[real].abs().max())), f"{feature} on {backend}, cached: {error:.1e}"
