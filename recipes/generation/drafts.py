"""Writing with a draft: a smaller model guesses the next tokens, and the model reads all guesses at once
(speculative decoding, https://huggingface.co/papers/2211.17192 and https://huggingface.co/papers/2302.01318)."""

import math
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.streamers import BaseStreamer

from weft.growing_cache import make_room
from weft.recipes.common.errors import RecipeError

MOST_GUESSES = 7  # with the token before them as many rows as a processor multiplies fast
SURE = 0.4  # where the draft finds no token as likely, it does not guess


@torch.no_grad()
def decode_with_draft(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    draft: PreTrainedModel,
    stream_to: BaseStreamer | None = None,
    **model_kwargs: Any,
) -> torch.Tensor:
    """A loop of `generate` for one prompt without padding, as `custom_generate`: greedy, the tokens are those without
    the draft; drawn, their distribution is.

    Args:
        input_ids: a prompt [1, tokens].
        draft: a causal model with the same tokens.
        stream_to: as in `decode`.

    Returns:
        Prompt and what was written behind it [1, tokens].

    Raises:
        ValueError: there are several prompts, or padding.
    """
    mask = model_kwargs.get("attention_mask")
    if input_ids.shape[0] != 1 or (mask is not None and not bool(mask.all())):
        raise ValueError("A draft helps to write behind one prompt without padding: give prompts one at a time.")
    draws, most, size = generation_config.do_sample, 4, model.get_output_embeddings().weight.shape[0]
    checks, guesses = _Reader(model, logits_processor, size), _Reader(draft, logits_processor, size)
    if stream_to is not None:
        stream_to.put(input_ids.cpu())
    while True:
        start = input_ids.shape[1]
        number = min(most, generation_config.max_length - start - 1)
        guessed, offered = input_ids, []
        for _ in range(number):
            (scores,) = guesses.read(guessed, 1)
            chances = scores.softmax(-1)
            if chances.max() < SURE:  # before a token is drawn: which are guessed must not depend on what they are
                break
            token = chances.multinomial(1) if draws else scores.argmax(keepdim=True)
            offered.append(chances)
            guessed = torch.cat((guessed, token[None]), dim=1)
        scores, new = checks.read(guessed, len(offered) + 1), guessed[0, start:]
        tokens = _accept(new, offered, scores.softmax(-1)) if draws else _agree(new, scores.argmax(-1))
        for token in tokens:
            input_ids = torch.cat((input_ids, token.view(1, 1)), dim=1)
            if stream_to is not None:
                stream_to.put(token.view(1).cpu())
            if bool(stopping_criteria(input_ids, None).all()):
                if stream_to is not None:
                    stream_to.end()
                return input_ids
        for each in (checks, guesses):
            each.keep(input_ids.shape[1] - 1)
        most = min(most + 2, MOST_GUESSES) if len(tokens) > len(offered) else max(most - 1, 1)


class _Reader:
    """A model with what it has read."""

    def __init__(self, model: PreTrainedModel, processor: LogitsProcessorList, size: int) -> None:
        """`size`: of the vocabulary, which rows without a token may make longer or shorter."""
        self.model, self.processor, self.size = model, processor, size
        self.cache: Cache = DynamicCache(config=model.config)
        make_room(self.cache)
        self.cache.activate_past_recording()
        self.seen = 0

    def read(self, ids: torch.Tensor, last: int) -> torch.Tensor:
        """Scores [last, vocabulary] of what comes behind each of the last tokens [1, tokens]."""
        new = ids[:, self.seen :].to(self.model.device)
        given = {"past_key_values": self.cache, "use_cache": True, "logits_to_keep": last}
        logits = self.model(input_ids=new, **given).logits[0, -last:].to(ids.device, torch.float32)
        logits = nn.functional.pad(logits[:, : self.size], (0, max(0, self.size - logits.shape[1])), value=-math.inf)
        self.seen = total = ids.shape[1]
        if len(self.processor):
            prefixes = [ids[:, : total - last + 1 + place] for place in range(last)]
            logits = torch.cat([self.processor(seen, row[None]) for seen, row in zip(prefixes, logits)])
        return logits

    def keep(self, tokens: int) -> None:
        """Forget all behind so many tokens."""
        self.cache.crop(min(0, tokens - self.seen))
        self.seen = min(tokens, self.seen)


def _agree(guessed: torch.Tensor, likeliest: torch.Tensor) -> torch.Tensor:
    """The most likely tokens as long as they were guessed, and the one behind them."""
    agreed = int((likeliest[:-1] == guessed).long().cumprod(0).sum())
    return likeliest[: agreed + 1]


def _accept(guessed: torch.Tensor, offered: list[torch.Tensor], chances: torch.Tensor) -> torch.Tensor:
    """Guesses drawn from what the draft offered, each taken with probability model / draft, at most 1, until one is
    not; in its place, or behind all of them, a token from what the draft offers too rarely."""
    left = chances[-1]
    for place, (token, offer, chance) in enumerate(zip(guessed, offered, chances)):
        if torch.rand(()) * offer[token] >= chance[token]:
            guessed, left = guessed[:place], (chance - offer).clamp(min=0)
            break
    return torch.cat((guessed, left.multinomial(1)))


def check_draft(tokenizer: PreTrainedTokenizerBase, draft_tokenizer: PreTrainedTokenizerBase, folder: str) -> None:
    """Refuse a draft that knows other tokens; raises RecipeError."""
    if tokenizer.get_vocab() != draft_tokenizer.get_vocab():
        raise RecipeError(
            f"draft {folder!r} has another tokenizer than the model ({len(draft_tokenizer)} and {len(tokenizer)} "
            "tokens, or the same number with other ids): give one that was trained with the model's tokenizer."
        )
