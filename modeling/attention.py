"""Who may look at whom, and how strongly: documents, masks, backends and the one attention module."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import masking_utils
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.configuration_utils import PreTrainedConfig
from transformers.integrations.flex_attention import compile_friendly_flex_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_tracing

from .positions import Distances, ScoreBias, WeftRelativeBuckets, rotate

# (layer type, causal?) -> who may look at whom
MASK_FUNCTIONS: dict[tuple[str, bool], Callable[..., Any]] = {
    ("full_attention", True): masking_utils.create_causal_mask,
    ("full_attention", False): masking_utils.create_bidirectional_mask,
    ("sliding_attention", True): masking_utils.create_sliding_window_causal_mask,
    ("sliding_attention", False): masking_utils.create_bidirectional_sliding_window_mask,
}


def is_ready_made(attention_mask: Any) -> bool:
    """Whether a mask says by itself who sees whom (4-D, a dict, or one of flex attention) and is obeyed as it is."""
    return attention_mask is not None and not (torch.is_tensor(attention_mask) and attention_mask.ndim == 2)


def token_mask(attention_mask: Any, tokens: int) -> torch.Tensor | None:
    """Which of the last `tokens` places of each row are no padding: bool [batch, tokens]; None without a 2-D mask."""
    if attention_mask is None or is_ready_made(attention_mask):
        return None
    return attention_mask[:, -tokens:].bool()


def _last_tokens(is_token: torch.Tensor) -> torch.Tensor:
    """For each place of bool [batch, tokens] the index of the last token before it, padding passed over, or -1."""
    index = torch.arange(is_token.shape[-1], device=is_token.device)
    last_token = torch.where(is_token, index, -1).cummax(dim=-1).values
    return nn.functional.pad(last_token[:, :-1], (1, 0), value=-1)


def find_documents(
    position_ids: torch.Tensor | None, attention_mask: Any, past_key_values: Cache | None
) -> torch.Tensor | None:
    """Number the documents of each row: a new one begins wherever positions do not grow by 1. Padding never begins a
    document, and a document may go on behind padding. Padding gets the id -1: padded tokens see each other only, so no
    row of the mask is empty and no other mask is needed.
    Args:
        position_ids: [batch, tokens] as the caller gave them, or None.
        attention_mask: [batch, tokens], 1 for tokens and 0 for padding, or None. A ready-made mask (4-D, or a dict)
            is obeyed as it is: no documents.
        past_key_values: nothing is looked for once it holds tokens.
    Returns: ids [batch, tokens], or None where every row holds one document (not looked at while tracing)."""
    nothing_to_tell = position_ids is None or position_ids.shape[-1] == 1 or is_ready_made(attention_mask)
    if nothing_to_tell or _holds_tokens(past_key_values):
        return None
    begins = nn.functional.pad(position_ids.diff(dim=-1) != 1, (1, 0))
    is_token = token_mask(attention_mask, position_ids.shape[-1])
    if is_token is not None:
        position_ids, begins = position_ids.expand_as(is_token), begins.expand_as(is_token)
        last_token = _last_tokens(is_token)
        goes_on = position_ids == position_ids.gather(-1, last_token.clamp(min=0)) + 1
        begins = (begins | (position_ids == 0)) & is_token & ~goes_on & (last_token >= 0)
    if not is_tracing(position_ids) and not begins.any():
        return None
    documents = begins.cumsum(-1)
    return documents if is_token is None else torch.where(is_token, documents, -1)


def document_places(hidden_states: torch.Tensor, attention_mask: Any, documents: torch.Tensor | None) -> torch.Tensor:
    """Where the tokens of each document are, padding left out: of packed rows all documents in order, else every row
    is one. A row of padding only holds none among packed rows, and is else a document of all its places, so that labels
    and rows stay together. Of hidden_states [batch, tokens, anything] the shape is read; attention_mask is as in
    `find_documents`, and documents what that returned.
    Returns: indices [documents, longest document, or tokens where rows are not packed] into the batch's tokens, row
        after row; -1 behind a document's last token."""
    (batch_size, tokens), is_packed = hidden_states.shape[:2], documents is not None
    if documents is None:
        is_token = token_mask(attention_mask, tokens)
        documents = torch.zeros((), dtype=torch.long, device=hidden_states.device)
        if is_token is not None:
            documents = documents.where(is_token | ~is_token.any(dim=-1, keepdim=True), -1)
    documents = documents.expand(batch_size, tokens)
    in_row = documents.amax(dim=-1) + 1
    total = int(in_row.sum()) if is_packed else batch_size
    numbers = (documents + (in_row.cumsum(0) - in_row)[:, None]).where(documents >= 0, total)
    sorted_numbers, order = numbers.flatten().sort(stable=True)
    bounds = torch.searchsorted(sorted_numbers, torch.arange(total + 1, device=order.device))
    lengths = bounds.diff()[:, None]
    steps = torch.arange(int(lengths.max()) if is_packed else tokens, device=order.device)
    return order[(bounds[:-1, None] + steps).clamp(max=order.shape[0] - 1)].where(steps < lengths, -1)


def previous_tokens(states: torch.Tensor, attention_mask: Any, position_ids: torch.Tensor | None) -> torch.Tensor:
    """The token before each token in its own document, padding passed over; a document's first token stands for itself:
    indices [batch, tokens] into the rows of states [batch, tokens, anything]; the rest as in `find_documents`."""
    index = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
    is_token = token_mask(attention_mask, states.shape[1])
    previous = index - 1 if is_token is None else _last_tokens(is_token)
    documents = find_documents(position_ids, attention_mask, None)
    if documents is not None:
        documents = documents.expand_as(index)
        previous = previous.where(documents.gather(-1, previous.clamp(min=0)) == documents, -1)
    return torch.where(previous < 0, index, previous)


def _holds_tokens(past_key_values: Cache | None) -> bool:
    """Whether a cache holds tokens; one whose length is a tensor is taken to while tracing, which cannot read it."""
    length = 0 if past_key_values is None else past_key_values.get_seq_length()
    return True if torch.is_tensor(length) and is_tracing(length) else bool(length > 0)


def create_masks(
    config: PreTrainedConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: Any,
    past_key_values: Cache | None,
    documents: torch.Tensor | None,
    causal_rows: torch.Tensor | None = None,
    prefix_mask: torch.Tensor | None = None,
) -> dict[str, Any]:
    """Masks in the form that the chosen backend wants, one for each layer type of the model.
    Args:
        config: its `is_causal` gives the direction.
        inputs_embeds: [batch, tokens, anything].
        attention_mask: [batch, cached + new tokens] of 0 and 1; or [batch, 1 or heads, tokens, cached + new
            tokens], or a dict of masks by layer type, which are obeyed as they are; or None.
        past_key_values: the cache, if any.
        documents: ids [batch, tokens] of `find_documents`, which stand in for a 2-D attention_mask too.
        causal_rows: bool [batch]; the rows of a bidirectional batch that are causal, as if `is_causal` were set.
        prefix_mask: bool [batch, tokens]; tokens that see each other in both directions in a causal model (prefix
            language model, https://huggingface.co/papers/1910.10683). Passed over once the cache holds tokens.
    Raises: ValueError for causal_rows or prefix_mask on flash attention or beside a mask that is ready-made."""
    prefix_mask = None if _holds_tokens(past_key_values) else prefix_mask
    for name, value in (("causal_rows", causal_rows), ("prefix_mask", prefix_mask)):
        if value is not None and (is_ready_made(attention_mask) or "flash" in config._attn_implementation):
            raise ValueError(
                f"{name} cannot change a ready-made attention_mask, nor flash attention's one direction in a batch: "
                "give a 2-D attention_mask or none, and attn_implementation='sdpa' or 'flex_attention'."
            )
    if isinstance(attention_mask, dict):
        return attention_mask
    layer_types, tokens = dict.fromkeys(config.layer_types), inputs_embeds.shape[1]
    longest, edits = tokens, []
    if past_key_values is not None and (documents is not None or prefix_mask is not None):
        longest = max(past_key_values.get_mask_sizes(tokens, index)[0] for index in range(config.num_hidden_layers))
    if documents is not None:
        attention_mask = None
        documents = nn.functional.pad(documents.expand(inputs_embeds.shape[0], -1), (0, longest - tokens), value=-1)
        plain = past_key_values is None and causal_rows is None and prefix_mask is None
        if config._attn_implementation == "sdpa" and plain:
            return {layer_type: _document_mask(documents, config, layer_type) for layer_type in layer_types}

        def see_own_document(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return documents[batch, query] == documents[batch, key]

        edits.append(see_own_document)
    is_causal = None if causal_rows is None else causal_rows.bool()
    if prefix_mask is not None:
        prefix_mask = nn.functional.pad(prefix_mask.bool(), (0, longest - tokens))

    def edits_of(layer_type: str) -> Callable[..., Any] | None:
        window = config.sliding_window if layer_type == "sliding_attention" else None

        def see_what_came_before(batch: Any, head: Any, query: Any, key: Any) -> Any:
            is_seen = key <= query
            if prefix_mask is not None:
                is_seen = is_seen | (prefix_mask[batch, query] & prefix_mask[batch, key])
            if window is not None:
                is_seen = is_seen & (key > query - window) & (key < query + window)
            return is_seen if is_causal is None else ~is_causal[batch] | is_seen

        functions = edits if is_causal is None and prefix_mask is None else [*edits, see_what_came_before]
        return masking_utils.and_masks(*functions) if functions else None

    inputs, has_direction = (config, inputs_embeds, attention_mask), config.is_causal and prefix_mask is None
    return {
        layer_type: MASK_FUNCTIONS[layer_type, has_direction](
            *inputs, past_key_values=past_key_values, and_mask_function=edits_of(layer_type)
        )
        for layer_type in layer_types
    }


def create_cross_mask(
    config: PreTrainedConfig,
    inputs_embeds: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    encoder_attention_mask: Any,
    documents: torch.Tensor | None,
    encoder_documents: torch.Tensor | None,
) -> Any:
    """What a decoder's tokens, inputs_embeds [batch, tokens, anything], see of encoder_hidden_states [batch, encoder
    tokens, anything]: all that is no padding (by encoder_attention_mask, as in `create_masks`), in packed rows those of
    the document with the same number (ids of `find_documents` of both sides).
    Raises: ValueError where only one side is packed, or both are on flash attention."""
    see_same_document = None
    if documents is not None or encoder_documents is not None:
        if documents is None or encoder_documents is None or "flash" in config._attn_implementation:
            raise ValueError(
                "Packed rows of an encoder-decoder need position_ids and decoder_position_ids that both restart with "
                "each document, and attn_implementation 'sdpa', 'eager' or 'flex_attention'."
            )
        batch_size, encoder_attention_mask = inputs_embeds.shape[0], None
        documents, encoder_documents = documents.expand(batch_size, -1), encoder_documents.expand(batch_size, -1)

        def see_same_document(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return documents[batch, query] == encoder_documents[batch, key]

    return masking_utils.create_bidirectional_mask(
        config, inputs_embeds, encoder_attention_mask, encoder_hidden_states, and_mask_function=see_same_document
    )


def find_distances(config: PreTrainedConfig, states: torch.Tensor, cache: Cache | None, layer_type: str) -> Distances:
    """How far apart the new tokens [batch, tokens, anything] and all that layers of this type see are."""
    tokens, device = states.shape[1], states.device
    if cache is None:
        return Distances(tokens, tokens, 0, device)
    layer = config.layer_types.index(layer_type)
    keys, offset = cache.get_mask_sizes(tokens, layer)
    return Distances(tokens, keys, offset - cache.get_seq_length(layer), device)


def _document_mask(documents: torch.Tensor, config: PreTrainedConfig, layer_type: str) -> torch.Tensor:
    """What transformers' functions make of documents for sdpa, bool [batch, 1, tokens, tokens], in a tenth of the time:
    they call the condition once for each pair of places (vmap), which a short step feels."""
    is_seen = documents[:, None, :, None] == documents[:, None, None, :]
    index = torch.arange(documents.shape[1], device=documents.device)
    distance = index[:, None] - index
    if config.is_causal:
        is_seen = is_seen & (distance >= 0)
    if layer_type == "sliding_attention":  # without a direction the window does not count the token itself
        is_seen = is_seen & (distance.abs() < config.sliding_window + (not config.is_causal))
    return is_seen


def document_lengths(config: PreTrainedConfig, documents: torch.Tensor, batch_size: int) -> dict[str, Any]:
    """What flash attention, which takes no mask, reads instead: where each document of the flattened batch ends, as
    keyword arguments of transformers' flash attention: cumulative lengths [documents + 1] (int32) for queries and keys,
    and the longest length; nothing for the other backends."""
    if "flash" not in config._attn_implementation:
        return {}
    begins = nn.functional.pad(documents.diff(dim=-1) != 0, (1, 0), value=True).expand(batch_size, -1)
    total = torch.tensor([begins.numel()], device=documents.device)
    ends = torch.cat((begins.flatten().nonzero().flatten(), total)).to(torch.int32)
    longest = int(ends.diff().max())
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": longest, "max_length_k": longest}


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
    """transformers' sdpa attention with the score bias written into the mask."""
    is_causal = kwargs.get("is_causal", module.is_causal)
    attention_mask = fold_bias(attention_mask, kwargs.pop("score_bias", None), is_causal)
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)


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
BIASES = ("alibi", "t5", "disentangled")


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
    """Why a backend cannot compute a config; None where it can."""
    if implementation == "flex_attention" and config.attention_dropout > 0:
        return (
            f"flex_attention cannot drop attention weights, and attention_dropout is {config.attention_dropout}: set "
            "it to 0, or use attn_implementation='sdpa' or 'eager'."
        )
    if implementation == "sdpa" and config.attn_logit_softcapping is not None:
        return (
            f"sdpa cannot cap scores, and attn_logit_softcapping is {config.attn_logit_softcapping}: use "
            "attn_implementation='eager', or on a GPU 'flex_attention' or 'flash_attention_2'."
        )
    if "flash" in implementation and config.position_embedding_type in BIASES:
        return (
            f"{implementation} cannot add to scores, as position_embedding_type={config.position_embedding_type!r} "
            "asks: use attn_implementation='sdpa', 'eager' or 'flex_attention'."
        )
    return None


class WeftAttention(nn.Module):
    """Multi-head attention with grouped queries and, where the config asks, rotary positions, QK-norm, a cap and a bias
    of scores; to the tokens themselves, or to an encoder's."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int, qk_norm: Callable, is_cross: bool = False) -> None:
        """`qk_norm` makes the norm of so many query or key heads (`unchanged` where there is none); `is_cross`: whether
        keys and values come from an encoder."""
        super().__init__()
        self.config, self.layer_idx, self.is_cross = config, layer_idx, is_cross
        self.is_causal = config.is_causal and not is_cross
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        is_sliding = config.layer_types[layer_idx] == "sliding_attention" and not is_cross
        self.sliding_window = config.sliding_window if is_sliding else None

        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=config.attention_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=config.attention_bias)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=config.attention_bias)
        self.o_proj.writes_to_residual = True
        self.softcap, self.dropout = config.attn_logit_softcapping, config.attention_dropout
        self.interleaved, self.is_gated = config.position_interleaved, config.attention_gate
        if self.is_gated:
            self.head_gate = nn.Linear(config.hidden_size, config.num_attention_heads, bias=False)
        self.mixes_values = config.value_residual and layer_idx > 0 and not is_cross
        if self.mixes_values:
            self.value_mix = nn.Parameter(torch.full((2,), 0.5))
        self.q_norm, self.k_norm = qk_norm(config.num_attention_heads), qk_norm(config.num_key_value_heads)
        self.normed_shape = (-1, self.head_dim) if config.qk_norm_over == "head" else (-1,)
        if not is_cross and config.position_embedding_type == "t5" and config.relative_attention_per_layer:
            self.position_bias = WeftRelativeBuckets(config)
        if not is_cross and config.position_embedding_type == "disentangled":
            self.scaling = (config.head_dim * (1 + len(config.pos_att_type))) ** -0.5
            self.table_dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: Any = None,
        table: torch.Tensor | None = None,
        first_values: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        relative: Any = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Args:
            hidden_states: [batch, tokens, hidden_size].
            encoder_hidden_states: [batch, encoder tokens, hidden_size], of attention to an encoder.
            attention_mask: in the form the backend wants (see `create_masks`).
            position_embeddings: what `rotate` turns queries and keys by; None: nothing is turned.
            table, relative: what the score bias is made of (see `_score_bias`); None: there is none.
            first_values: [batch, tokens, key heads x head_dim], the first layer's of these tokens; None: this is it.
            kwargs: for the backend; `is_causal` overrides the config's.
        Returns: [batch, tokens, hidden_size], the attention weights where the backend has them, and first_values."""
        query = self._heads(self.q_norm, self.q_proj(hidden_states))
        if position_embeddings is not None:
            query = rotate(query, *position_embeddings, self.interleaved)
        if self.is_cross:
            key, value = self._encoder_keys(encoder_hidden_states, past_key_values)
        else:
            value = self.v_proj(hidden_states)
            if self.mixes_values:
                value = torch.addcmul(value * self.value_mix[0], first_values, self.value_mix[1])
            first_values = value if first_values is None else first_values
            key, value = self._keys(hidden_states, value)
            if position_embeddings is not None:
                key = rotate(key, *position_embeddings, self.interleaved)
            if isinstance(past_key_values, EncoderDecoderCache):
                past_key_values = past_key_values.self_attention_cache
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, self.layer_idx)

        window, is_causal = self.sliding_window, kwargs.setdefault("is_causal", self.is_causal)
        if window is not None and not is_causal:
            window += 1  # read by flash attention only, which looks window - 1 to each side where the masks look window
        implementation = self.config._attn_implementation
        attend = BACKENDS.get(implementation) or ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        if relative is not None:
            kwargs["score_bias"] = self._score_bias(table, relative, query, key, is_causal)
        kwargs |= {"scaling": self.scaling, "sliding_window": window, "softcap": self.softcap}
        kwargs["dropout"] = self.dropout if self.training else 0.0
        mixed, weights = attend(self, query, key, value, attention_mask, **kwargs)
        if self.is_gated:
            mixed = mixed.reshape(*hidden_states.shape[:-1], -1, self.head_dim)
            mixed = mixed * self.head_gate(hidden_states).sigmoid()[..., None]
        return self.o_proj(mixed.reshape(*hidden_states.shape[:-1], -1)), weights, first_values

    def _heads(self, norm: Callable[[torch.Tensor], torch.Tensor], projected: torch.Tensor) -> torch.Tensor:
        """[batch, tokens, heads x head_dim] to [batch, heads, tokens, head_dim], normalised per head or over all."""
        normed = norm(projected.view(*projected.shape[:2], *self.normed_shape))
        return normed.view(*projected.shape[:2], -1, self.head_dim).transpose(1, 2)

    def _keys(self, states: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys of states [batch, tokens, hidden_size], and `value` [batch, tokens, heads x head_dim] in heads."""
        value = value.view(*states.shape[:2], -1, self.head_dim).transpose(1, 2)
        return self._heads(self.k_norm, self.k_proj(states)), value

    def _encoder_keys(self, states: torch.Tensor, cache: Cache | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the encoder's tokens, computed once and then read from the cache."""
        if not isinstance(cache, EncoderDecoderCache):
            return self._keys(states, self.v_proj(states))
        if cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(*self._keys(states, self.v_proj(states)), self.layer_idx)

    def _score_bias(
        self, table: torch.Tensor | None, relative: Any, query: torch.Tensor, key: torch.Tensor, is_causal: bool
    ) -> ScoreBias:
        """The bias of this layer's scores of queries and keys [batch, heads, tokens, head_dim].

        `relative` are distances, of which `table` has the numbers that all layers share, or this layer numbers of its
        own; or, disentangled, distances and their buckets, of which `table` has the vectors [buckets, hidden_size],
        compared with queries (what content says of a position, c2p) and keys (p2c) through this layer's own maps."""
        if isinstance(relative, Distances):
            table = self.position_bias(relative, query.dtype, is_causal) if table is None else table
            return ScoreBias(relative, table)
        distances, buckets = relative
        table = self.table_dropout(table)[None]
        query_terms = key_terms = None
        if "c2p" in self.config.pos_att_type:
            query_terms = query @ self._heads(self.k_norm, self.k_proj(table)).transpose(-1, -2) * self.scaling
        if "p2c" in self.config.pos_att_type:
            key_terms = key @ self._heads(self.q_norm, self.q_proj(table)).transpose(-1, -2) * self.scaling
        return ScoreBias(distances, None, query_terms, key_terms, buckets)
