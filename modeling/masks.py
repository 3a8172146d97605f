"""Who may look at whom: documents of packed rows, padding, windows and directions, as masks for every backend."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import masking_utils
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import is_tracing

from .configuration_checks import STATE_TYPES
from .sequences import find_sequences
from .tiles import Tiles, document_tiles, window_tiles

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
    count, tokens = is_token.cumsum(-1), is_token.shape[-1]
    index = torch.arange(tokens, device=is_token.device).expand_as(count)
    slots = count.where(is_token, tokens + 1)  # the first token's is 1; padding shares the last one
    places = torch.full((*is_token.shape[:-1], tokens + 2), -1, device=is_token.device).scatter(-1, slots, index)
    return places.gather(-1, count - is_token.long())


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
    (batch_size, tokens), device, is_packed = hidden_states.shape[:2], hidden_states.device, documents is not None
    if documents is None:
        is_token = token_mask(attention_mask, tokens)
        documents = torch.zeros((), dtype=torch.long, device=device)
        if is_token is not None:
            documents = documents.where(is_token | ~is_token.any(dim=-1, keepdim=True), -1)
    documents = documents.expand(batch_size, tokens)
    in_row = documents.amax(dim=-1) + 1
    total = int(in_row.sum()) if is_packed else batch_size
    is_token = (documents >= 0).flatten()
    numbers = (documents + (in_row.cumsum(0) - in_row)[:, None]).flatten().where(is_token, total)
    lengths = torch.zeros(total + 1, dtype=torch.long, device=device).scatter_add(0, numbers, is_token.long())
    longest = int(lengths.max()) if is_packed else tokens
    # documents come one after the other: a token's place in its own is its place among all, less what came before
    steps = is_token.cumsum(0) - 1 - (lengths.cumsum(0) - lengths)[numbers]
    slots = (numbers * longest + steps).where(is_token, total * longest)  # padding shares a slot behind all
    places = torch.full((total * longest + 1,), -1, device=device)
    return places.scatter(0, slots, torch.arange(slots.shape[0], device=device))[:-1].view(total, longest)


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


def is_closed(
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    past_key_values: Cache | None,
    eos_token_id: int | list[int] | None,
) -> bool:
    """Tell whether every row of a prompt [batch, tokens] ends with an end token, and has something before it."""
    if input_ids is None or input_ids.shape[-1] < 2 or eos_token_id is None or _holds_tokens(past_key_values):
        return False
    ends = torch.tensor(eos_token_id, device=input_ids.device)
    before = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    return bool(torch.isin(input_ids[:, -1], ends).all() and before[:, :-1].any(-1).all())


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
    """Masks in the form that the chosen backend wants, one for each layer type of the model; for layers without keys
    what `find_sequences` tells.
    Args:
        config: its `is_causal` gives the direction.
        inputs_embeds: [batch, tokens, anything].
        attention_mask: [batch, cached + new tokens] of 0 and 1; or [batch, 1 or heads, tokens, cached + new
            tokens], or a dict of masks by layer type, which are obeyed as they are (those of layers without keys are
            [batch, cached + new tokens] too); or None.
        past_key_values: the cache, if any.
        documents: ids [batch, tokens] of `find_documents`, which stand in for a 2-D attention_mask too.
        causal_rows: bool [batch]; the rows of a bidirectional batch that are causal, as if `is_causal` were set.
        prefix_mask: bool [batch, tokens or fewer]; tokens that see each other in both directions in a causal model
            (prefix language model, https://huggingface.co/papers/1910.10683). Passed over once the cache holds tokens.
    Raises: ValueError for causal_rows or prefix_mask on flash attention or beside a mask that is ready-made, or where
        layers without keys cannot follow one of them, or a 4-D mask."""
    prefix_mask = None if _holds_tokens(past_key_values) else prefix_mask
    for name, value in (("causal_rows", causal_rows), ("prefix_mask", prefix_mask)):
        if value is not None and (is_ready_made(attention_mask) or "flash" in config._attn_implementation):
            raise ValueError(
                f"{name} cannot change a ready-made attention_mask, nor flash attention's one direction in a batch: "
                "give a 2-D attention_mask or none, and attn_implementation='sdpa' or 'flex_attention'."
            )
    states: dict[str, Any] = {each: None for each in STATE_TYPES if each in config.layer_types}
    if isinstance(attention_mask, dict):
        given = {each: attention_mask.get(each) for each in states}
        ready = {each: mask for each, mask in given.items() if not torch.is_tensor(mask)}
        told = {each: _tell(each, inputs_embeds, given[each], None) for each in states if each not in ready}
        return attention_mask | ready | told
    if states:
        _refuse_for_states(states, attention_mask, causal_rows, prefix_mask)
        states = {each: _tell(each, inputs_embeds, attention_mask, documents, causal_rows) for each in states}
    inputs = (config, inputs_embeds, attention_mask, past_key_values, documents, causal_rows)
    layer_types = [each for each in dict.fromkeys(config.layer_types) if each not in states]
    tokens = inputs_embeds.shape[1]
    cut = {} if prefix_mask is not None else {each: tiles for each in layer_types if (tiles := _cut(each, *inputs))}
    layer_types, cut = [each for each in layer_types if each not in cut], cut | states
    longest, edits = tokens, []
    if past_key_values is not None and (documents is not None or prefix_mask is not None):
        longest = max([tokens, *(past_key_values.get_mask_sizes(tokens, each)[0] for each in config.attention_layers)])
    if documents is not None:
        attention_mask = None
        documents = nn.functional.pad(documents.expand(inputs_embeds.shape[0], -1), (0, longest - tokens), value=-1)
        plain = past_key_values is None and causal_rows is None and prefix_mask is None
        if config._attn_implementation == "sdpa" and plain:
            return cut | {each: _document_mask(documents, config, each) for each in layer_types}

        def see_own_document(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return documents[batch, query] == documents[batch, key]

        edits.append(see_own_document)
    is_causal = None if causal_rows is None else causal_rows.bool()
    if prefix_mask is not None:
        prefix_mask = nn.functional.pad(prefix_mask.bool(), (0, longest - prefix_mask.shape[1]))

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
    return cut | {
        layer_type: MASK_FUNCTIONS[layer_type, has_direction](
            *inputs, past_key_values=past_key_values, and_mask_function=edits_of(layer_type)
        )
        for layer_type in layer_types
    }


def _tell(
    layer_type: str,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    documents: torch.Tensor | None,
    causal_rows: torch.Tensor | None = None,
) -> Any:
    return find_sequences(inputs_embeds, attention_mask, documents, causal_rows, is_packed=layer_type == "recurrent")


def _refuse_for_states(states: dict[str, Any], attention_mask: Any, causal_rows: Any, prefix_mask: Any) -> None:
    names = " and ".join(states)
    if is_ready_made(attention_mask):
        raise ValueError(
            f"A 4-D attention_mask cannot tell {names} layers who sees whom: give a 2-D one, or a dict by layer type."
        )
    if prefix_mask is not None:
        raise ValueError(f"prefix_mask is for attention: {names} layers read a causal model's tokens one way only.")
    if causal_rows is not None and "recurrent" in states:
        raise ValueError("causal_rows cannot turn recurrent layers, whose weights have a direction: leave it out.")


def _cut(
    layer_type: str,
    config: PreTrainedConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: Any,
    cache: Cache | None,
    documents: torch.Tensor | None,
    causal_rows: torch.Tensor | None,
) -> Tiles | None:
    """The tiles of a layer type's scores, where cutting rows up pays; None: they are masked as a whole. Exported graphs
    are not cut, since they are for rows of any length, nor is what a cache of fixed size holds."""
    exported, (batch_size, tokens) = torch.jit.is_tracing() or torch.compiler.is_exporting(), inputs_embeds.shape[:2]
    if config._attn_implementation != "sdpa" or exported or is_ready_made(attention_mask) or tokens == 1:
        return None
    causal_rows = None if causal_rows is None else causal_rows.bool()
    keys, seen = tokens, 0
    if cache is not None:
        layer = config.layer_types.index(layer_type)
        keys, offset = cache.get_mask_sizes(tokens, layer)
        seen = cache.get_seq_length(layer) - offset
    if cache is not None and (cache.is_compileable or keys != seen + tokens):
        return None
    ids = None if documents is None else documents.expand(batch_size, -1)
    if ids is None and attention_mask is not None and (is_tracing(attention_mask) or not attention_mask.all()):
        ids = (attention_mask[:, -keys:] != 0).long() - 1
    if layer_type == "full_attention":
        if ids is None or is_tracing(ids) or keys != tokens:
            return None
        return document_tiles(ids, config.is_causal, causal_rows)
    window = config.sliding_window
    return window_tiles(window, config.is_causal, batch_size, tokens, keys, ids, causal_rows, inputs_embeds.device)


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
