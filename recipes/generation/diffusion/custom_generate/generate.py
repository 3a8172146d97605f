"""Write text by filling in masks: the sampler of masked diffusion language models.

`generate` of transformers loads this file from a folder or repository that has it as `custom_generate/generate.py`. It
needs nothing but torch and transformers. `unmask` serves every model whose logits at a place predict the token that is
masked there, and Weft models that predict it from the place before (`masked_next_token`); both also as a causal Weft
class with the weights of one, which is run in both directions.

In a text with masks, each step fills some of them, and what is filled stays. Drawn in random order, one mask at a time
and with temperature 1, a text comes from the very distribution that the training bounded (MDLM,
https://huggingface.co/papers/2406.07524). Most certain first, and several at a time, it comes sooner (LLaDA,
https://huggingface.co/papers/2502.09992, which also fills blocks one after another).
"""

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

ORDERS = ("confidence", "random")
DEFAULT_LENGTH = 20  # as `generate` has it
# Fields of GenerationConfig that are obeyed, those that say nothing here, and what others must be if they are given.
OBEYED = ("max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p")
WITHOUT_MEANING = ("use_cache", "pad_token_id", "bos_token_id", "eos_token_id")
NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "return_dict_in_generate": False}


@torch.no_grad()
def unmask(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    mask_token_id: int,
    attention_mask: torch.Tensor | None = None,
    *,
    steps: int | None = None,
    block_length: int | None = None,
    order: str = "confidence",
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    never: Sequence[int] = (),
    generator: torch.Generator | None = None,
    watch: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Fill in every mask of texts; all else stays.

    Args:
        model: in evaluation mode.
        input_ids: [texts, tokens] with masks; they may have different numbers of them.
        attention_mask: [texts, tokens], 0 at padding.
        steps: calls of the model for each text, among which its masks are divided evenly; None: as many as masks.
            Each block has at least one.
        block_length: fill so many masks, from the left, before the next so many are begun; None: all are one block.
        order: which masks of a block are filled first: "confidence", those whose new tokens are most probable by
            themselves, or "random".
        temperature: of the draws; 0: the most probable token.
        top_k, top_p: draw among so many of the most probable tokens (0: all), and among those that sum to this.
        never: ids that are not written; the mask is never.
        generator: of the draws, on the model's device; None: the global one.
        watch: called with the texts [texts, tokens] after each step.

    Returns:
        [texts, tokens] without masks.

    Raises:
        ValueError: a number is out of range, or the order unknown.
    """
    _check(steps, block_length, order, temperature)
    is_gap = input_ids == mask_token_id
    block_of = (is_gap.cumsum(1) - 1) // (block_length or input_ids.shape[1])
    plans = [plan_steps(gaps, steps, block_length) for gaps in is_gap.sum(1).tolist()]
    draw = functools.partial(_draw, _warpers(temperature, top_k, top_p), sorted({*never, mask_token_id}), generator)
    ids = input_ids.clone()
    for step in range(max(map(len, plans), default=0)):
        of_rows = [plan[step] if step < len(plan) else (0, 0) for plan in plans]
        blocks, counts = torch.tensor(of_rows, device=ids.device).T
        is_open = (ids == mask_token_id) & (block_of == blocks[:, None]) & (counts[:, None] > 0)
        if order == "random":
            priority = torch.rand(ids.shape, generator=generator, device=ids.device)
            is_filled = _highest(priority, is_open, counts)
            ids = ids.masked_scatter(is_filled, draw(_logits_at(model, ids, attention_mask, is_filled))[0])
        else:
            tokens, confidence = draw(_logits_at(model, ids, attention_mask, is_open))
            priority = confidence.new_zeros(ids.shape).masked_scatter(is_open, confidence)
            is_filled = _highest(priority, is_open, counts)
            ids = torch.where(is_filled, ids.masked_scatter(is_open, tokens), ids)
        if watch is not None:
            watch(ids)
    return ids


def plan_steps(gaps: int, steps: int | None = None, block_length: int | None = None) -> list[tuple[int, int]]:
    """The block and the number of tokens of each step in which a text with so many gaps is filled."""
    plan, steps, size = [], min(steps or gaps, gaps), block_length or max(1, gaps)
    for block, first in enumerate(range(0, gaps, size)):
        last = min(gaps, first + size)
        own = min(last - first, max(1, steps * last // gaps - steps * first // gaps))
        ends = [(last - first) * step // own for step in range(own + 1)]
        plan += [(block, end - begin) for begin, end in itertools.pairwise(ends)]
    return plan


def never_written(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[int]:
    """The ids below vocab_size that are no text: special tokens, and those that the tokenizer does not know."""
    unnamed = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    text = {*tokenizer.get_vocab().values()} - {*tokenizer.all_special_ids} - unnamed
    return sorted({*range(vocab_size)} - text)


def generate(
    inputs: torch.Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    *,
    model: PreTrainedModel,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    steps: int | None = None,
    block_length: int | None = None,
    order: str = "confidence",
    generator: torch.Generator | None = None,
    watch: Callable[[torch.Tensor], None] | None = None,
    **given: Any,
) -> torch.Tensor:
    """Fill in the masks of prompts, or where there are none put max_new_tokens of them behind the prompts.

    An end token that stands behind the prompts closes the whole texts: the masks come before it.

    Args:
        inputs, input_ids: [texts, tokens], padded on the left.
        generation_config, given: fields of it: max_new_tokens (or max_length), do_sample, temperature, top_k, top_p.
        tokenizer: the model's, for the ids of its special tokens; None: it is loaded from where the model came from.
        steps, block_length, order, generator, watch: as `unmask` has them.

    Returns:
        The texts [texts, tokens], prompts included.

    Raises:
        ValueError: something is asked for that this cannot do.
    """
    settings = copy.deepcopy(model.generation_config if generation_config is None else generation_config)
    settings.update(**{name: given[name] for name in OBEYED if given.get(name) is not None})
    ids = inputs if input_ids is None else input_ids
    _refuse_others(settings, given, ids, attention_mask)
    tokenizer = AutoTokenizer.from_pretrained(model.config.name_or_path) if tokenizer is None else tokenizer
    mask = tokenizer.mask_token_id
    if mask is None:
        raise ValueError("The tokenizer has no mask token: give that of a masked language model.")
    attention_mask = torch.ones_like(ids) if attention_mask is None else attention_mask
    if not bool((ids == mask).any()):
        ends = torch.tensor([i for i in (tokenizer.eos_token_id, tokenizer.sep_token_id) if i is not None])
        is_closed = ids.shape[1] > 1 and bool(torch.isin(ids[:, -1].cpu(), ends).all())
        place = ids.shape[1] - is_closed
        wanted = settings.max_new_tokens or (settings.max_length or ids.shape[1] + DEFAULT_LENGTH) - ids.shape[1]
        shape = (len(ids), max(0, wanted))
        ids, attention_mask = (
            torch.cat((each[:, :place], each.new_full(shape, value), each[:, place:]), dim=1)
            for each, value in ((ids, mask), (attention_mask, 1))
        )
    temperature = (1.0 if settings.temperature is None else settings.temperature) if settings.do_sample else 0.0
    return unmask(
        model,
        ids,
        mask,
        attention_mask,
        steps=steps,
        block_length=block_length,
        order=order,
        temperature=temperature,
        top_k=settings.top_k or 0,
        top_p=1.0 if settings.top_p is None else settings.top_p,
        never=never_written(tokenizer, model.config.vocab_size),
        generator=generator,
        watch=watch,
    )


def _check(steps: int | None, block_length: int | None, order: str, temperature: float) -> None:
    for name, value in (("steps", steps), ("block_length", block_length)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: give at least 1, or leave it out.")
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}: choose one of {', '.join(ORDERS)}.")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}: give 0, for the most probable tokens, or more.")


def _warpers(temperature: float, top_k: int, top_p: float) -> LogitsProcessorList | None:
    """What is done to logits before tokens are drawn; None: they are not drawn."""
    if not temperature:
        return None
    warpers = [TemperatureLogitsWarper(float(temperature))] if temperature != 1 else []
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    return LogitsProcessorList(warpers)


def _draw(
    warpers: LogitsProcessorList | None, never: list[int], generator: torch.Generator | None, logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [n] by logits [n, vocabulary], and the probability of each before anything was done to the logits."""
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)
    scores[:, never] = -torch.inf
    if warpers is None:
        tokens = scores.argmax(-1)
    elif not len(scores):
        tokens = torch.empty(0, dtype=torch.long, device=scores.device)
    else:
        tokens = torch.multinomial(warpers(None, scores).softmax(-1), 1, generator=generator)[:, 0]
    return tokens, scores.softmax(-1).gather(-1, tokens[:, None])[:, 0]


def _highest(priority: torch.Tensor, candidates: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Of the candidates of each row those `counts` [rows] with the highest priority, bool [rows, tokens]; of equals the
    first."""
    order = priority.masked_fill(~candidates, -torch.inf).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    ranks = torch.empty_like(order).scatter_(1, order, places)
    return candidates & (ranks < counts[:, None])


def _logits_at(
    model: PreTrainedModel, ids: torch.Tensor, attention_mask: torch.Tensor | None, chosen: torch.Tensor
) -> torch.Tensor:
    """Logits [n, vocabulary] of the tokens at the chosen places of texts, in order."""
    parameters, config = inspect.signature(model.forward).parameters, model.config
    inputs, places = {"input_ids": ids, "attention_mask": attention_mask}, chosen.flatten().nonzero()[:, 0]
    if getattr(config, "masked_next_token", False):
        places = _places_before(torch.ones_like(ids) if attention_mask is None else attention_mask, chosen)
        if not {"predict_from", "logits_to_keep"} & parameters.keys():
            raise ValueError(f"{type(model).__name__} does not show what its logits predict: give the model in it.")
    if "predict_from" in parameters:
        return model(**inputs, predict_from=places).logits
    if config.model_type == "weft":  # a causal class
        inputs |= {"is_causal": False, "use_cache": False}
    return model(**inputs).logits.flatten(0, 1)[places]


def _places_before(attention_mask: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The token before each chosen one, padding passed over: indices [n] into texts [texts, tokens] end to end."""
    index = torch.arange(chosen.numel(), device=chosen.device).view_as(chosen)
    last = index.where(attention_mask.bool(), -1).cummax(1).values
    before = torch.nn.functional.pad(last[:, :-1], (1, 0), value=-1)[chosen]
    if bool((before < 0).any()):
        raise ValueError("This model predicts a mask from the place before it: let no text begin with a mask.")
    return before


def _refuse_others(
    settings: GenerationConfig, given: dict[str, Any], ids: torch.Tensor | None, mask: torch.Tensor | None
) -> None:
    asked = {name: getattr(settings, name) for name in NEUTRAL} | given
    asked = {name: value for name, value in asked.items() if value is not None and value is not False}
    known = {*OBEYED, *WITHOUT_MEANING, *(name for name, value in NEUTRAL.items() if asked.get(name) == value)}
    others = asked.keys() - known
    reasons = {
        "it needs input_ids": ids is None or ids.shape[1] == 0,
        "it needs prompts that are padded on the left": mask is not None and bool((mask[:, -1] == 0).any()),
        f"it knows no {', '.join(sorted(others))}": bool(others),
    }
    for reason, is_asked in reasons.items():
        if is_asked:
            raise ValueError(f"This model fills in masks, and what was asked cannot be done, because {reason}.")
