"""Writing tokens one by one: with less around the model, as `model.generate(..., custom_generate=decode)`, and with
weights stored as one row reads them fastest."""

from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.streamers import BaseStreamer
from transformers.masking_utils import create_masks_for_generate

FEW_ROWS = 2  # so many at once are multiplied faster with weights that are stored by column


def store_by_column(model: nn.Module) -> nn.Module:
    """Store the weights of maps with more outputs than inputs column by column, in place, for decoding on a processor.

    MKL multiplies one or two rows with such a matrix 1.4 to 1.9 times as fast (RESULTS.md, section 24); more rows gain
    little or lose. Values, shapes and names stay; but `save_pretrained` cannot write tied weights stored like this.
    """
    for module in model.modules():
        if type(module) is nn.Linear and module.out_features > module.in_features:
            weight = module.weight
            if weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkl.is_available():
                weight.data = weight.data.t().contiguous().t()
    return model


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    stream_to: BaseStreamer | None = None,
    **model_kwargs: Any,
) -> torch.Tensor:
    """The loop of `generate` for greedy decoding and for sampling: the same tokens, the same draws of a seed.

    `generate` prepares all that is given here. A mask of nothing but tokens is left out and one of padding is written
    once, not anew with each token. The model is compiled where the cache has a fixed length (`cache_implementation=
    "static"`) and a `compile_config` is given, on every device; on a GPU the latter may be missing.

    Args:
        input_ids: prompts [batch, tokens], padded on the left.
        stream_to: a streamer; `generate` gives none that is called `streamer` to functions of others.

    Returns:
        Prompts and what was written behind them [batch, tokens], rows that ended early filled with padding.

    Raises:
        ValueError: something is asked for that only the loops of `generate` itself can do.
    """
    cache = model_kwargs.get("past_key_values")
    _refuse_others(model, input_ids, generation_config, cache)
    is_fixed = cache.is_compileable and type(cache) is not DynamicCache
    may_compile = generation_config.compile_config is not None or model.device.type != "cpu"
    forward = model
    if is_fixed and may_compile and not generation_config.disable_compile:
        forward = model.get_compiled_call(generation_config.compile_config)

    mask, positions = model_kwargs.get("attention_mask"), model_kwargs.get("position_ids")
    if mask is not None:
        new = mask.new_ones(mask.shape[0], generation_config.max_length - mask.shape[1])
        mask = None if bool(mask.all()) else torch.cat((mask, new), dim=1)
    draws, pad = generation_config.do_sample, generation_config.pad_token_id
    unfinished = torch.ones(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
    if stream_to is not None:
        stream_to.put(input_ids.cpu())
    prompt = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
    logits = model(**prompt, return_dict=True).logits
    while True:
        scores = logits_processor(input_ids, logits[:, -1].to(copy=True, dtype=torch.float32))
        tokens = torch.multinomial(scores.softmax(-1), 1)[:, 0] if draws else scores.argmax(-1)
        if pad is not None:
            tokens = tokens.where(unfinished, pad)
        input_ids = torch.cat((input_ids, tokens[:, None]), dim=1)
        if stream_to is not None:
            stream_to.put(tokens.cpu())
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        if not unfinished.any():
            break
        seen = None if mask is None else mask[:, : input_ids.shape[1]]
        given: dict[str, Any] = {"past_key_values": cache, "use_cache": True, "return_dict": True}
        if positions is not None:
            positions = positions[..., -1:] + 1
            given["position_ids"] = positions
        if is_fixed:
            make_masks = getattr(model, "create_masks_for_generate", create_masks_for_generate)
            states = torch.empty(*tokens.shape, 1, 0, dtype=model.dtype, device=tokens.device)
            seen = make_masks(
                config=model.config,
                inputs_embeds=states,
                attention_mask=seen,
                past_key_values=cache,
                position_ids=positions,
            )
            # with strides of their own, whether or not there is padding: others would be compiled for anew
            if isinstance(seen, dict):
                seen = {name: None if each is None else each.contiguous() for name, each in seen.items()}
        logits = forward(input_ids=tokens[:, None], attention_mask=seen, **given).logits
    if stream_to is not None:
        stream_to.end()
    return input_ids


def _refuse_others(
    model: PreTrainedModel, input_ids: torch.Tensor, config: GenerationConfig, cache: Cache | None
) -> None:
    reasons = {
        "it decodes with one beam": config.num_beams > 1,
        "it has no use for two stacks": model.config.is_encoder_decoder,
        "it needs a cache": cache is None,
        "it begins with an empty cache": cache is not None and bool(cache.get_seq_length() > 0),
        "it needs input_ids": input_ids.shape[1] == 0,
        "it returns token ids only": config.return_dict_in_generate,
        "it reads a prompt as a whole": config.prefill_chunk_size is not None,
        "it has no assistant": config.prompt_lookup_num_tokens is not None or config.is_assistant,
    }
    for reason, is_asked in reasons.items():
        if is_asked:
            raise ValueError(f"decode cannot do what was asked, because {reason}: leave custom_generate out.")
