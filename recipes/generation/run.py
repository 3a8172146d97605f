"""What generate.py does once its fields are read: load a model and continue the prompts with it."""

import contextlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextStreamer,
    set_seed,
)

from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.checkpoints import check_files, load_whole
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import new_text_file
from weft.recipes.common.hardware import move_to
from weft.recipes.generation.arguments import GenerateArguments
from weft.recipes.generation.chat import talk
from weft.recipes.generation.decoding import FEW_ROWS, store_by_column
from weft.recipes.generation.drafts import check_draft
from weft.recipes.generation.generate_text import compile_options, generate_texts, start_ids, write_rows
from weft.recipes.generation.int8 import quantize_int8
from weft.recipes.generation.prompts import check_length, check_prompts


def generate(arguments: GenerateArguments, prompts: list[str] | None) -> None:
    """Continue the prompts in batches, or where there are none `prompt`, as it is written; or talk.

    Raises:
        RecipeError: the model cannot be loaded, or not be used as asked for.
    """
    check_files(arguments.model)
    tokenizer = load_tokenizer(arguments.model, arguments.trust_remote_code)
    model, _ = load_whole(AutoModelForCausalLM, arguments.model, trust_remote_code=arguments.trust_remote_code)
    refuse_masked(model, arguments.model)
    if not arguments.chat:
        check_prompts(model, tokenizer, [arguments.prompt] if prompts is None else prompts, arguments.max_new_tokens)
    model = move_to(model, arguments.device).eval()
    batch_size = 1 if prompts is None or arguments.draft is not None else min(arguments.batch_size, len(prompts))
    at_once = arguments.num_beams * batch_size
    if arguments.int8:
        quantize_int8(model)
    elif at_once <= FEW_ROWS and model.config.model_type != "weft":
        store_by_column(model)  # Weft's own products of a few rows are faster
    options = generation_options(arguments)
    if arguments.prefix:
        _check_sees_prefix(model, arguments.model)
        options["prefix"] = True
    if arguments.draft is not None:
        options["draft"] = _load_draft(arguments, tokenizer, prompts)
        for each in (model, options["draft"]):
            _refuse_states(each, "draft")
    set_seed(arguments.seed)
    if arguments.chat:
        talk(model, tokenizer, arguments, options)
        return
    if arguments.compile:
        rows = [start_ids(tokenizer, prompt) for prompt in prompts or [arguments.prompt]]
        options |= compile_options(model, max(map(len, rows)) + arguments.max_new_tokens)
    if prompts is None:
        _stream(model, tokenizer, arguments.prompt, options)
        return

    def write(batch: list[str]) -> list[str]:
        rows = batch
        if arguments.compile:  # for the shape of the first batch: the rows behind the last prompt are dropped
            rows = batch + batch[:1] * (batch_size - len(batch))
        return generate_texts(model, tokenizer, rows, **options)[: len(batch)]

    write_file(arguments, prompts, batch_size, write)


def write_file(
    arguments: GenerateArguments, prompts: list[str], batch_size: int, write: Callable[[list[str]], list[str]]
) -> None:
    """Print the texts that `write` makes of prompts, batch after batch, or write them to output_file, as JSON lines."""
    with contextlib.ExitStack() as stack:
        out = sys.stdout
        if arguments.output_file is not None:
            out = stack.enter_context(new_text_file(Path(arguments.output_file)))
        for first in range(0, len(prompts), batch_size):
            batch = prompts[first : first + batch_size]
            for prompt, text in zip(batch, write(batch)):
                print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False), file=out, flush=True)


def refuse_masked(model: PreTrainedModel, name: str) -> None:
    """Refuse one of Weft's that was trained in both directions only, which would write nonsense; raises RecipeError."""
    config = model.config
    if config.model_type == "weft" and config.architectures == ["WeftForMaskedLM"] and not config.masked_next_token:
        raise RecipeError(f"model {name!r} fills in masks: give --mode diffusion, or a causal model.")


def _check_sees_prefix(model: PreTrainedModel, name: str) -> None:
    """Refuse a model that takes no `prefix_mask`; raises RecipeError."""
    if "prefix_mask" not in inspect.signature(model.forward).parameters:
        raise RecipeError(
            f"model {name!r} sees a prompt in one direction only: give one of Weft's, or leave prefix out."
        )
    _refuse_states(model, "prefix")


def _refuse_states(model: PreTrainedModel, field: str) -> None:
    """Refuse layers whose states hold what is read, in the order in which it is read; raises RecipeError."""
    if getattr(model.config, "has_states", False):
        raise RecipeError(
            f"linear_attention and recurrent layers read token after token and take nothing back: leave {field} out."
        )


def _load_draft(
    arguments: GenerateArguments, tokenizer: PreTrainedTokenizerBase, prompts: list[str] | None
) -> PreTrainedModel:
    check_files(arguments.draft)
    check_draft(tokenizer, load_tokenizer(arguments.draft, arguments.trust_remote_code), arguments.draft)
    draft, _ = load_whole(AutoModelForCausalLM, arguments.draft, trust_remote_code=arguments.trust_remote_code)
    lengths = [len(start_ids(tokenizer, prompt)) for prompt in prompts or [arguments.prompt]]
    check_length(draft, lengths, arguments.max_new_tokens)
    return move_to(draft, arguments.device).eval()


def generation_options(arguments: GenerateArguments) -> dict:
    """Options of `model.generate` that say how tokens are chosen, and how many."""
    names = ["max_new_tokens", "do_sample", "repetition_penalty", "num_beams"]
    if arguments.do_sample:
        names += ["temperature", "top_k", "top_p"]
    return {name: getattr(arguments, name) for name in names}


@torch.no_grad()
def _stream(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, options: dict) -> None:
    """Print the text token by token (a beam search is printed at its end)."""
    if options["num_beams"] > 1:
        print(generate_texts(model, tokenizer, [prompt], **options)[0])
        return
    streamer = TextStreamer(tokenizer, skip_special_tokens=True)
    write_rows(model, tokenizer, [start_ids(tokenizer, prompt)], stream_to=streamer, **options)
