"""Continue text with a trained model, as it is written.

    python recipes/generate.py --prompt "The iterator protocol" [--model runs/pretrain_clm] [--temperature 0.8 ...]

With --prompt_file, each line is a prompt, and they are continued in batches.
"""

import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer, set_seed

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import RecipeError, first_line, run_command
from weft.recipes.generation.decoding import FEW_ROWS, store_by_column
from weft.recipes.generation.generate_text import compile_options, generate_texts, start_ids, write_ids
from weft.recipes.generation.int8 import quantize_int8


@dataclass
class GenerateArguments:
    """What to continue, with which model, and how to choose each token."""

    model: str = field(default="runs/pretrain_clm", metadata={"help": "folder or Hub id of a causal language model"})
    prompt: str = field(default="", metadata={"help": "text to continue; empty: a new document"})
    prompt_file: str | None = field(default=None, metadata={"help": "a text file with one prompt on each line"})
    output_file: str | None = field(
        default=None, metadata={"help": "with prompt_file: write JSON lines (prompt, text) here instead of printing"}
    )
    batch_size: int = field(default=16, metadata={"help": "prompts continued at once"})
    max_new_tokens: int = field(default=200, metadata={"help": "length of the continuation, in tokens"})
    do_sample: bool = field(default=True, metadata={"help": "draw tokens by their probability; false: the most likely"})
    temperature: float = field(default=0.8, metadata={"help": "below 1: likely tokens become more likely"})
    top_k: int = field(default=0, metadata={"help": "draw among the k most likely tokens; 0: among all"})
    top_p: float = field(default=0.95, metadata={"help": "draw among the most likely tokens that sum to this"})
    repetition_penalty: float = field(default=1.0, metadata={"help": "above 1: tokens that were there become rarer"})
    num_beams: int = field(default=1, metadata={"help": "beams of a beam search (with do_sample false)"})
    seed: int = field(default=0, metadata={"help": "of the draws"})
    device: str | None = field(default=None, metadata={"help": "cuda, cpu ...; the default is a GPU if there is one"})
    compile: bool = field(default=False, metadata={"help": "compile the model first, which takes a minute"})
    int8: bool = field(default=False, metadata={"help": "weights of linear maps in 8 bits: less memory"})
    trust_remote_code: bool = field(default=False, metadata={"help": "run the code of a model that is not Weft's"})


def main() -> None:
    arguments = parse_arguments(__doc__, [GenerateArguments])[GenerateArguments]
    _check(arguments)
    prompts = _read_prompts(arguments)
    try:
        tokenizer = AutoTokenizer.from_pretrained(arguments.model, trust_remote_code=arguments.trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(arguments.model, trust_remote_code=arguments.trust_remote_code)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise RecipeError(f"model {arguments.model!r} cannot be loaded: {reason}") from error
    try:
        model = model.to(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise RecipeError(f"device {arguments.device!r} cannot be used: {reason}") from error
    at_once = arguments.num_beams * (1 if prompts is None else min(arguments.batch_size, len(prompts)))
    if arguments.int8:
        quantize_int8(model)
    elif at_once <= FEW_ROWS:
        store_by_column(model)
    set_seed(arguments.seed)
    options = _generation_options(arguments)
    if arguments.compile:
        rows = [start_ids(tokenizer, prompt) for prompt in prompts or [arguments.prompt]]
        options |= compile_options(model, max(map(len, rows)) + arguments.max_new_tokens)
    if prompts is None:
        _stream(model, tokenizer, arguments.prompt, options)
        return
    with contextlib.ExitStack() as stack:
        out = sys.stdout
        if arguments.output_file is not None:
            path = Path(arguments.output_file)
            path.parent.mkdir(parents=True, exist_ok=True)
            out = stack.enter_context(path.open("x", encoding="utf-8"))
        for first in range(0, len(prompts), arguments.batch_size):
            batch = prompts[first : first + arguments.batch_size]
            rows = batch
            if arguments.compile:  # for the shape of the first batch: the rows behind the last prompt are dropped
                rows = batch + batch[:1] * (min(arguments.batch_size, len(prompts)) - len(batch))
            for prompt, text in zip(batch, generate_texts(model, tokenizer, rows, **options)):
                print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False), file=out, flush=True)


def _check(arguments: GenerateArguments) -> None:
    for name in ("batch_size", "max_new_tokens", "num_beams"):
        if getattr(arguments, name) < 1:
            raise RecipeError(f"{name} is {getattr(arguments, name)}: give at least 1.")
    if arguments.compile and arguments.num_beams > 1:
        raise RecipeError(f"num_beams is {arguments.num_beams}, but compile is for one beam: leave one of them out.")
    if arguments.output_file is not None and Path(arguments.output_file).exists():
        raise RecipeError(f"{arguments.output_file} exists: name another output_file, or remove it.")
    if not 0 < arguments.top_p <= 1 or arguments.top_k < 0 or arguments.repetition_penalty <= 0:
        raise RecipeError("top_p must be above 0 and at most 1, top_k at least 0 and repetition_penalty above 0.")
    if arguments.do_sample and arguments.temperature <= 0:
        raise RecipeError(
            f"temperature is {arguments.temperature}: give a number above 0, or --do_sample false for the most likely "
            "tokens."
        )


def _read_prompts(arguments: GenerateArguments) -> list[str] | None:
    if arguments.prompt_file is None:
        if arguments.output_file is not None:
            raise RecipeError("output_file is given without a prompt_file: redirect the output instead.")
        return None
    if arguments.prompt:
        raise RecipeError("both prompt and prompt_file are given: choose one.")
    path = Path(arguments.prompt_file)
    if not path.is_file():
        raise RecipeError(f"{path} is missing: prompt_file is a text file with one prompt on each line.")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 (byte {error.start + 1}): convert it to UTF-8.") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise RecipeError(f"{path} holds no prompt: write one on each line.")
    return prompts


def _generation_options(arguments: GenerateArguments) -> dict:
    names = ["max_new_tokens", "do_sample", "repetition_penalty", "num_beams"]
    if arguments.do_sample:
        names += ["temperature", "top_k", "top_p"]
    return {name: getattr(arguments, name) for name in names}


@torch.no_grad()
def _stream(model: torch.nn.Module, tokenizer: object, prompt: str, options: dict) -> None:
    """Print the text token by token (a beam search is printed at its end)."""
    if options["num_beams"] > 1:
        print(generate_texts(model, tokenizer, [prompt], **options)[0])
        return
    ids = torch.tensor([start_ids(tokenizer, prompt)], device=model.device)
    streamer = TextStreamer(tokenizer, skip_special_tokens=True)
    mask, pad = torch.ones_like(ids), tokenizer.pad_token_id
    write_ids(model, input_ids=ids, attention_mask=mask, pad_token_id=pad, stream_to=streamer, **options)


if __name__ == "__main__":
    run_command(main)
