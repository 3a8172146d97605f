"""The attention backends: those that this file stands in for, and which of them computes a config."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.configuration_utils import PreTrainedConfig
from transformers.integrations.flex_attention import compile_friendly_flex_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .positions import ScoreBias
from .tiles import Tiles


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    softcap: float | None = None,
    score_bias: ScoreBias | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention written out ("Attention Is All You Need", https://huggingface.co/papers/1706.03762): the
    reference of every other backend, and the only one that returns the weights.
    Args:
        query: [batch, heads, tokens, head_dim]; key and value: [batch, key-value heads, cached + new tokens, head_dim].
        attention_mask: added to the scores, [batch, 1 or heads, tokens, cached + new tokens], or None.
        softcap: scores are squashed to lie between -softcap and softcap.
        score_bias: added to the scores (after that).
    Returns: the mixture [batch, tokens, heads, head_dim] and the weights [batch, heads, tokens, cached + new tokens].
    """
    key, value = (each.repeat_interleave(module.num_key_value_groups, dim=1) for each in (key, value))
    scores = query @ key.transpose(-1, -2) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    attention_mask = fold_bias(attention_mask, score_bias, kwargs.get("is_causal", module.is_causal))
    if attention_mask is not None:
        scores = scores + attention_mask
    softmax_dtype = torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else scores.dtype
    weights = scores.softmax(dim=-1, dtype=softmax_dtype).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def sdpa_attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """transformers' sdpa attention with the score bias written into the mask; of rows that are cut, tile by tile."""
    if isinstance(attention_mask, Tiles):
        return _attend_in_tiles(module, query, key, value, attention_mask, **kwargs), None
    is_causal = kwargs.get("is_causal", module.is_causal)
    attention_mask = fold_bias(attention_mask, kwargs.pop("score_bias", None), is_causal)
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)


@torch.compiler.disable
def read_pages(
    cache: Any, key: torch.Tensor, value: torch.Tensor, layer_idx: int, options: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values [1, key-value heads, keys, head_dim] of all requests of continuous batching, new tokens included;
    `options` are what it gives to the backend."""
    return cache.update(key_states=key, value_states=value, layer_idx=layer_idx, kwargs=options)


def _attend_in_tiles(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cut: Tiles,
    score_bias: ScoreBias | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    mixed, nothing = [], [None] * len(cut.tiles)
    query_terms, key_terms = (None, None) if score_bias is None else (score_bias.query_terms, score_bias.key_terms)
    query, key, value, *more = cut.isolate(query, key, value, *([] if key_terms is None else [key_terms]))
    of_queries = nothing if query_terms is None else cut.take_queries(query_terms)
    of_keys = cut.take_keys(*more) if more else nothing
    states = (cut.take_queries(query), cut.take_keys(key), cut.take_keys(value))
    for tile, *states_of_tile, of_query, of_key in zip(cut.tiles, *states, of_queries, of_keys):
        bias = None if score_bias is None else score_bias.at(tile.distances, of_query, of_key)
        given = kwargs | {"score_bias": bias, "is_causal": tile.is_causal}
        mixed.append(sdpa_attention(module, *states_of_tile, tile.mask, **given)[0])
    return cut.put_back(mixed)


def fold_bias(mask: torch.Tensor | None, score_bias: ScoreBias | None, is_causal: bool) -> torch.Tensor | None:
    """A mask, bool or added to scores, with the score bias in it: [1 or batch, heads, queries, keys]. Where there is no
    mask, because the direction of attention says all, that is written down too."""
    if score_bias is None:
        return mask
    bias, distances = score_bias.dense(), score_bias.distances
    if mask is None and is_causal:
        mask = distances.spread(distances.line) <= 0
    if mask is None:
        return bias
    mask = mask[..., : bias.shape[-1]]
    return bias.masked_fill(~mask, torch.finfo(bias.dtype).min) if mask.dtype == torch.bool else bias + mask


def flex_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float,
    softcap: float | None = None,
    score_bias: ScoreBias | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """PyTorch's flex attention (https://arxiv.org/abs/2412.05496), which edits scores one at a time: a bias is never
    written out. Refused where the CPU kernel has no backward or computes wrong numbers. Arguments as in
    `eager_attention`, but attention_mask: a BlockMask, or a tensor added to the scores or saying which to keep."""
    if query.device.type == "cpu":
        if torch.is_grad_enabled() and query.requires_grad:
            raise ValueError("flex_attention has no backward pass on a CPU: take attn_implementation='sdpa' to train.")
        if kwargs.get("sliding_window") is not None and query.shape[2] % 16:
            raise ValueError(
                f"flex_attention on a CPU computes a sliding window wrongly at {query.shape[2]} tokens: pad the input "
                "to a multiple of 16, or use attn_implementation='sdpa'."
            )
    mask = attention_mask if torch.is_tensor(attention_mask) else None
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    heads_of_mask = 1 if mask is None else mask.shape[1]

    def edit(score: Any, batch: Any, head: Any, query_index: Any, key_index: Any) -> Any:
        if softcap is not None:
            score = softcap * torch.tanh(score / softcap)
        if score_bias is not None:
            score = score_bias.edit(score, batch, head, query_index, key_index)
        if mask is not None:
            score = score + mask[batch, head if heads_of_mask > 1 else 0, query_index, key_index]
        return score

    is_edited = softcap is not None or score_bias is not None or mask is not None
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.shape[1] & (query.shape[1] - 1):  # the kernel groups a power of two of heads only
        key, value = (each.repeat_interleave(module.num_key_value_groups, dim=1) for each in (key, value))
        grouped = False
    blocks = None if torch.is_tensor(attention_mask) else attention_mask
    options = {"enable_gqa": grouped, "scale": scaling, "kernel_options": kwargs.get("kernel_options")}
    mixed = compile_friendly_flex_attention(
        query, key, value, module.training, score_mod=edit if is_edited else None, block_mask=blocks, **options
    )
    return mixed.transpose(1, 2).contiguous(), None


# Backends for which this file stands in; all others are transformers' own.
BACKENDS = {"eager": eager_attention, "sdpa": sdpa_attention, "flex_attention": flex_attention}
BACKENDS["paged|eager"] = eager_attention  # the name that continuous batching has for it
BIASES = ("alibi", "t5", "disentangled")
# Those that transformers hands to a flash-attention kernel, which caps scores or says that it cannot.
FLASH = re.compile(r"(paged\|)?(flash_attention_[234]|kernels-community/[\w-]*flash-attn\d*\b.*)")
# A server with layers of its own, and what these leave out without a word -> whether a config has it.
VLLM = "vllm"
LEFT_OUT_BY_VLLM: dict[str, Callable[[PreTrainedConfig], bool]] = {
    "is_encoder_decoder=True": lambda c: c.is_encoder_decoder,
    "is_causal=False of a model that writes": lambda c: _writes(c) and not c.is_causal,
    "sliding_window with is_causal=False": lambda c: not c.is_causal and "sliding_attention" in c.layer_types,
    "layer_types without keys and values": lambda c: c.has_states,
    "norm_offset": lambda c: c.norm_type == "rmsnorm" and c.norm_affine and c.norm_offset != 0,
    "lm_head_transform": lambda c: _writes(c) and c.lm_head_transform,
    "lm_head_scale": lambda c: _writes(c) and c.lm_head_scale != 1,
}


def _writes(config: PreTrainedConfig) -> bool:
    return "WeftForCausalLM" in (config.architectures or ())


def default_backend(config: PreTrainedConfig) -> str:
    """The fastest backend that computes the config on every device."""
    return "eager" if refusal(config, "sdpa") else "sdpa"


def check_backend(config: PreTrainedConfig, implementation: str | dict[str, str] | None) -> None:
    """Refuse a backend that cannot compute the config, with a ValueError that says why and names one that can."""
    if isinstance(implementation, dict):
        implementation = implementation.get("")
    reason = None if implementation is None else refusal(config, implementation)
    if reason:
        raise ValueError(reason)


def refusal(config: PreTrainedConfig, implementation: str) -> str | None:
    """Why a backend cannot compute a config; None where it can. What is added to scores, and their cap, are computed by
    backends that are known to: any other drops them without a word."""
    if implementation == "flex_attention" and config.attention_dropout > 0:
        return (
            f"flex_attention cannot drop attention weights, and attention_dropout is {config.attention_dropout}: set "
            "it to 0, or use attn_implementation='sdpa' or 'eager'."
        )
    left_out = [name for name, has in LEFT_OUT_BY_VLLM.items() if implementation == VLLM and has(config)]
    if left_out:
        return f"vllm cannot compute {' and '.join(left_out)}: serve it with transformers, or export it to ONNX."
    is_flash = FLASH.fullmatch(implementation) is not None
    cannot = "cannot" if implementation in BACKENDS or is_flash else "is not known to"
    caps = is_flash or (implementation in BACKENDS and implementation != "sdpa")
    if config.attn_logit_softcapping is not None and not caps:
        return (
            f"{implementation} {cannot} cap scores, and attn_logit_softcapping is {config.attn_logit_softcapping}: use "
            "attn_implementation='eager', or on a GPU 'flex_attention' or 'flash_attention_2'."
        )
    if config.position_embedding_type in BIASES and implementation not in BACKENDS:
        return (
            f"{implementation} {cannot} add to scores, as position_embedding_type={config.position_embedding_type!r} "
            "asks: use attn_implementation='sdpa', 'eager' or 'flex_attention'."
        )
    return None
