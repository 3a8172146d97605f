"""Where a token stands: rotary positions (RoFormer, https://huggingface.co/papers/2104.09864)."""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update
from transformers.utils import is_tracing


def count_positions(inputs_embeds: torch.Tensor, attention_mask: Any, past_key_values: Cache | None) -> torch.Tensor:
    """Positions of new tokens where the caller gives none: counted over the attention mask, so that padding on
    either side has no effect; or, without a mask that covers all tokens, over everything.

    Args:
        inputs_embeds: [batch, tokens, hidden_size].
        attention_mask: [batch, cached + new tokens], or anything else, which is not counted over.

    Returns:
        [batch or 1, tokens].
    """
    seen, tokens = 0 if past_key_values is None else past_key_values.get_seq_length(), inputs_embeds.shape[1]
    index = torch.arange(tokens, device=inputs_embeds.device) + seen
    is_padding_mask = torch.is_tensor(attention_mask) and attention_mask.ndim == 2
    is_known = not (torch.is_tensor(seen) and is_tracing(seen))  # a static cache keeps its length in a tensor
    if is_padding_mask and is_known and attention_mask.shape[-1] == tokens + seen:
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -tokens:]
    return index.unsqueeze(0)


class WeftRotaryEmbedding(nn.Module):
    """Cosines and sines of the rotation at each position, under any scaling that transformers knows.

    transformers recognises such a module by its name and attributes and restores the two buffers after
    `from_pretrained`; `dynamic_rope_update` rewrites them for scalings that depend on the input's length.
    """

    inv_freq: torch.Tensor
    original_inv_freq: torch.Tensor

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.max_seq_len_cached = config.max_position_embeddings
        self.original_max_seq_len = config.max_position_embeddings
        self.rope_type = config.rope_parameters["rope_type"]
        compute = ROPE_INIT_FUNCTIONS.get(self.rope_type, self.compute_default_rope_parameters)
        inv_freq, self.attention_scaling = compute(config)
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def compute_default_rope_parameters(config: PreTrainedConfig, **_: Any) -> tuple[torch.Tensor, float]:
        """Angular velocity of each rotated pair, in radians per token [rotated_dim / 2], and a scale of 1."""
        parameters = config.rope_parameters
        rotated_dim = int(config.head_dim * parameters.get("partial_rotary_factor", 1.0))
        exponents = torch.arange(0, rotated_dim, 2, dtype=torch.float32) / rotated_dim
        return 1.0 / parameters["rope_theta"] ** exponents, 1.0

    @torch.no_grad()
    @dynamic_rope_update
    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            x: any tensor of the dtype and device wanted.
            position_ids: [batch, tokens] (batch may be 1).

        Returns:
            cos and sin, each [batch, tokens, rotated_dim]; the angles are computed in float32.
        """
        angles = position_ids[..., None].float() * self.inv_freq.to(device=x.device, dtype=torch.float32)
        cos, sin = angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling
        return torch.cat((cos, cos), -1).to(x.dtype), torch.cat((sin, sin), -1).to(x.dtype)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (i, i + rotated_dim / 2) of each head; what lies beyond rotated_dim passes unchanged.

    Args:
        x: queries or keys [batch, heads, tokens, head_dim].
        cos, sin: [batch, 1, tokens, rotated_dim].
    """
    rotated_dim = cos.shape[-1]
    turned, rest = x[..., :rotated_dim], x[..., rotated_dim:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return turned if rest.shape[-1] == 0 else torch.cat((turned, rest), dim=-1)
