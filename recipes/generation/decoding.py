"""Writing tokens one by one: with less around the model, as `model.generate(..., custom_generate=decode)`, and with
weights stored as one row reads them fastest."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.streamers import BaseStreamer
from transformers.masking_utils import create_masks_for_generate

# what the steps behind a prompt make use of, or need not; these flags ask for what is not returned
READ = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep", "prefix_mask"}
READ |= {"output_attentions", "output_hidden_states"}
FEW_ROWS = 2  # so many at once are multiplied faster with weights that are stored by column


def store_by_column(model: nn.Module) -> nn.Module:
    """Store the weights of maps with more outputs than inputs column by column, in place, for decoding on a processor.

    MKL multiplies one or two rows with such a matrix 1.4 to 1.9 times as fast (RESULTS.md, section 24); more rows gain
    little or lose. It is for stock classes: Weft's models multiply few rows faster, compiled or not. Values, shapes and
    names stay; but `save_pretrained` cannot write tied weights stored like this.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features > module.in_features:
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
    once, not anew with each token. Rows that have ended are computed no more once they are half of those that are; a
    cache that was given keeps what it held until then. The model is compiled where the cache has a fixed length
    (`cache_implementation="static"`) and a `compile_config` is given, on every device; on a GPU the latter may be
    missing.

    Args:
        input_ids: prompts [batch, tokens], padded on the left.
        stream_to: a streamer; `generate` gives none that is called `streamer` to functions of others.

    Returns:
        Prompts and what was written behind them [batch, tokens], rows that ended early filled with padding.

    Raises:
        ValueError: something is asked for that only the loops of `generate` itself can do.
    """
    _refuse_others(model, input_ids, generation_config, model_kwargs)
    draws, pad = generation_config.do_sample, None
    if any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria):
        pad = generation_config._pad_token_tensor
    unfinished = torch.ones(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
    if stream_to is not None:
        stream_to.put(input_ids.cpu())
    prompt = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
    logits = model(**prompt, return_dict=True).logits[:, -1].to(copy=True, dtype=torch.float32)
    steps = _Steps(model, generation_config, len(input_ids), **model_kwargs)
    while True:
        # rows that are computed no more keep their logits, so that the others draw what they would beside them
        scores = logits_processor(input_ids, logits.clone() if len(steps.rows) < len(logits) else logits)
        tokens = torch.multinomial(scores.softmax(-1), 1)[:, 0] if draws else scores.argmax(-1)
        if pad is not None:
            tokens = tokens.where(unfinished, pad)
        input_ids = torch.cat((input_ids, tokens[:, None]), dim=1)
        if stream_to is not None:
            stream_to.put(tokens.cpu())
        unfinished = unfinished & ~stopping_criteria(input_ids, None)
        if not unfinished.any():
            break
        if pad is not None:
            steps.drop(unfinished)
        new = steps.compute(input_ids)[:, -1].to(torch.float32)
        logits = new if len(new) == len(logits) else logits.index_copy(0, steps.rows, new)
    if stream_to is not None:
        stream_to.end()
    return input_ids


class _Steps:
    """What a model computes behind its prompts, token by token: logits of the rows that still write."""

    def __init__(
        self,
        model: PreTrainedModel,
        config: GenerationConfig,
        rows: int,
        past_key_values: Cache,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> None:
        self.model, self.cache, self.positions = model, past_key_values, position_ids
        self.rows = torch.arange(rows, device=model.device)
        self.is_fixed = self.cache.is_compileable and type(self.cache) is not DynamicCache
        may_compile = config.compile_config is not None or model.device.type != "cpu"
        self.forward = model
        if self.is_fixed and may_compile and not config.disable_compile:
            self.forward = model.get_compiled_call(config.compile_config)
        self.mask = None
        if attention_mask is not None and not bool(attention_mask.all()):
            new = attention_mask.new_ones(rows, config.max_length - attention_mask.shape[1])
            self.mask = torch.cat((attention_mask, new), dim=1)

    def drop(self, unfinished: torch.Tensor) -> None:
        """Compute rows that have ended, bool [batch], no more, if they are half of those that are computed."""
        kept = unfinished[self.rows]
        if type(self.cache) is not DynamicCache or 2 * int(kept.sum()) > len(kept):
            return
        self.cache = copy.copy(self.cache)  # who gave it finds in it what it held until now
        self.cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        self.cache.batch_select_indices(kept.nonzero()[:, 0])
        self.rows = self.rows[kept]
        self.mask = None if self.mask is None else self.mask[kept]
        if self.positions is not None and self.positions.shape[0] == len(kept):
            self.positions = self.positions[kept]

    def compute(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Logits [rows, 1, vocabulary] of the last of the tokens [batch, tokens]."""
        tokens, total = input_ids[self.rows, -1:], input_ids.shape[1]
        given: dict[str, Any] = {"past_key_values": self.cache, "use_cache": True, "return_dict": True}
        if self.positions is not None:
            self.positions = self.positions[..., -1:] + 1
            given["position_ids"] = self.positions
        seen = None if self.mask is None else self.mask[:, :total]
        if self.is_fixed:
            seen = self._fixed_masks(tokens, seen)
        return self.forward(input_ids=tokens, attention_mask=seen, **given).logits

    def _fixed_masks(self, tokens: torch.Tensor, seen: torch.Tensor | None) -> Any:
        """Masks of a cache of fixed length, in whole and with strides of their own: others would be compiled anew."""
        make_masks = getattr(self.model, "create_masks_for_generate", create_masks_for_generate)
        seen = make_masks(
            config=self.model.config,
            inputs_embeds=torch.empty(*tokens.shape, 0, dtype=self.model.dtype, device=tokens.device),
            attention_mask=seen,
            past_key_values=self.cache,
            position_ids=self.positions,
        )
        if isinstance(seen, dict):
            seen = {name: each.contiguous() if torch.is_tensor(each) else each for name, each in seen.items()}
        return seen


def _refuse_others(
    model: PreTrainedModel, input_ids: torch.Tensor, config: GenerationConfig, given: dict[str, Any]
) -> None:
    cache, more = given.get("past_key_values"), set(given) - READ
    if not getattr(model.config, "type_vocab_size", 0):
        more -= {"token_type_ids"}
    reasons = {
        "it decodes with one beam": config.num_beams > 1,
        "it has no use for two stacks": model.config.is_encoder_decoder,
        "it needs a cache": cache is None,
        "it begins with an empty cache": cache is not None and bool(cache.get_seq_length() > 0),
        "it needs input_ids": input_ids.shape[1] == 0,
        "it returns token ids only": config.return_dict_in_generate,
        "it reads a prompt as a whole": config.prefill_chunk_size is not None,
        "it has no assistant": config.prompt_lookup_num_tokens is not None or config.is_assistant,
        f"it passes on no {', '.join(sorted(more))}": any(given[name] is not None for name in more),
    }
    for reason, is_asked in reasons.items():
        if is_asked:
            raise ValueError(f"decode cannot do what was asked, because {reason}: leave custom_generate out.")
