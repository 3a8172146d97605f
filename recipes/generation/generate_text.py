"""Text out of a checkpoint, for the recipe that generates and for the samples of a model card."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

import torch
from transformers import CompileConfig, PreTrainedModel, PreTrainedTokenizerBase, StaticCache
from transformers.generation.streamers import BaseStreamer

from weft.recipes.common.errors import RecipeError
from weft.recipes.generation.decoding import decode
from weft.recipes.generation.drafts import decode_with_draft


def start_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """A prompt as training saw documents: the start token, if the tokenizer has one, then the text.

    A special token that is spelt out in it stays text. Without a start token, an empty prompt begins with a line end,
    or with the first id where there is none.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = start + tokenizer(prompt, add_special_tokens=False, split_special_tokens=True).input_ids
    return ids or tokenizer("\n", add_special_tokens=False).input_ids or [0]


def compile_options(model: PreTrainedModel, longest: int, backend: str = "inductor") -> dict[str, Any]:
    """Options of `write_ids` that compile the writing of a token, once for all batches of as many rows whose prompts
    and continuations have at most `longest` tokens. `backend` is that of `torch.compile`.

    Raises:
        RecipeError: the model is not written with by `decode`, or there is no compiler for its processor.
    """
    if not _keeps_cache(model):
        raise RecipeError("compile is for Weft models that keep a cache (use_cache): leave it out.")
    if backend == "inductor" and model.device.type == "cpu" and not has_compiler():
        raise RecipeError("compile needs a C++ compiler on a processor: install g++ or clang++, or leave compile out.")
    config = CompileConfig(backend=backend, mode="default" if backend == "inductor" else None)
    return {"past_key_values": StaticCache(config=model.config, max_cache_len=longest), "compile_config": config}


def has_compiler() -> bool:
    """Whether PyTorch finds a C++ compiler, without which it compiles nothing for a processor."""
    return any(map(shutil.which, (os.environ.get("CXX") or "g++", "g++", "clang++", "c++")))


def _keeps_cache(model: PreTrainedModel) -> bool:
    return model.config.model_type == "weft" and model.config.use_cache


def write_ids(
    model: PreTrainedModel,
    stream_to: BaseStreamer | None = None,
    draft: PreTrainedModel | None = None,
    **options: Any,
) -> torch.Tensor:
    """What `model.generate` returns, by the shorter loop of `decode` where there is one beam and a cache; with a draft,
    which is for one prompt, by `decode_with_draft`."""
    if draft is not None:
        return model.generate(**options, custom_generate=decode_with_draft, draft=draft, stream_to=stream_to)
    if isinstance(options.get("past_key_values"), StaticCache):
        options["past_key_values"].reset()
    if options.get("num_beams", 1) > 1 or not _keeps_cache(model):
        return model.generate(**options, streamer=stream_to)
    return model.generate(**options, custom_generate=decode, stream_to=stream_to)


@torch.no_grad()
def generate_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], **options: Any
) -> list[str]:
    """Continue prompts in one left-padded batch.

    Args:
        options: of `model.generate` (max_new_tokens, do_sample, temperature ...), those of `compile_options`,
            `draft` (see `write_ids`) and `prefix` (see `write_rows`).

    Returns:
        Prompt and continuation, without special tokens.
    """
    written = write_rows(model, tokenizer, [start_ids(tokenizer, prompt) for prompt in prompts], **options)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in written]


@torch.no_grad()
def write_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Sequence[int]],
    prefix: bool = False,
    **options: Any,
) -> torch.Tensor:
    """What stands behind token ids, as `generate_texts` writes it.

    Args:
        prefix: the ids of a row see each other in both directions.

    Returns:
        The ids [rows, longest row and what was written], padded on the left.
    """
    longest = max(len(row) for row in rows)
    pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    ids = torch.tensor([[pad] * (longest - len(row)) + [*row] for row in rows], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    options |= {"prefix_mask": mask.bool()} if prefix else {}
    return write_ids(model, input_ids=ids, attention_mask=mask, pad_token_id=pad, **options)
