"""A stand-in for the flash-attn package in plain PyTorch, so that transformers' flash path runs on a CPU."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, modeling_flash_attention_utils


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
) -> torch.Tensor:
    """Attention of one sequence [tokens, heads, head_dim] under flash-attn's rules for masks."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.einsum("qhd,khd->hqk", query, key) * softmax_scale
    offset = torch.arange(key.shape[0]) - torch.arange(query.shape[0])[:, None] - (key.shape[0] - query.shape[0])
    left, right = window_size
    right = 0 if causal else right
    hidden = torch.zeros_like(offset, dtype=torch.bool)
    if left >= 0:
        hidden |= offset < -left
    if right >= 0:
        hidden |= offset > right
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, value)


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float = 1.0,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """Every row of [batch, tokens, heads, head_dim] is one sequence."""
    assert dropout_p == 0
    return torch.stack([attend(*row, softmax_scale, causal, window_size) for row in zip(q, k, v)])


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float = 1.0,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """Sequences laid end to end in [tokens, heads, head_dim], cut at the cumulative lengths."""
    assert dropout_p == 0
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert isinstance(max_seqlen_q, int) and isinstance(max_seqlen_k, int)
    assert max_seqlen_q == int(cu_seqlens_q.diff().max()) and max_seqlen_k == int(cu_seqlens_k.diff().max())
    parts = []
    for q_start, q_end, k_start, k_end in zip(cu_seqlens_q, cu_seqlens_q[1:], cu_seqlens_k, cu_seqlens_k[1:]):
        part = (q[q_start:q_end], k[k_start:k_end], v[k_start:k_end])
        parts.append(attend(*part, softmax_scale, causal, window_size))
    return torch.cat(parts)


def use_stand_in(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """Make `model` compute with flash_attention_2, and that backend with the functions above."""

    def imports(*_: Any, **__: Any) -> tuple[Any, ...]:
        utils = modeling_flash_attention_utils
        return flash_attn_func, flash_attn_varlen_func, None, utils._pad_input, utils._unpad_input

    monkeypatch.setattr(modeling_flash_attention_utils, "_lazy_imports", imports)
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
    model.config._attn_implementation_internal = "flash_attention_2"
    return model
