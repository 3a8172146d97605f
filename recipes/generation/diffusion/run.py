"""What `generate.py --mode diffusion` does once its fields are read: load a model, and fill in the masks of prompts."""

import functools
import sys

from transformers import AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.checkpoints import check_files, load_whole
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.hardware import move_to
from weft.recipes.generation.arguments import GenerateArguments
from weft.recipes.generation.diffusion.arguments import UnmaskingArguments
from weft.recipes.generation.diffusion.canvas import Canvas
from weft.recipes.generation.diffusion.texts import check_canvases, write_texts
from weft.recipes.generation.int8 import quantize_int8
from weft.recipes.generation.prompts import check_reading
from weft.recipes.generation.run import write_file


def fill(arguments: GenerateArguments, unmasking: UnmaskingArguments, prompts: list[str] | None) -> None:
    """Write out the prompts in batches, or where there are none `prompt`, shown on a terminal while it is written.

    Raises:
        RecipeError: the model cannot be loaded, or not be used as asked for.
    """
    check_files(arguments.model)
    tokenizer = load_tokenizer(arguments.model, arguments.trust_remote_code)
    if not tokenizer.is_fast or tokenizer.mask_token_id is None:
        lacks = "no mask token" if tokenizer.is_fast else "no fast version (tokenizer.json)"
        raise RecipeError(
            f"the tokenizer of {arguments.model} has {lacks}: mode diffusion needs a masked language model."
        )
    model, _ = load_whole(AutoModelForMaskedLM, arguments.model, trust_remote_code=arguments.trust_remote_code)
    every = [arguments.prompt] if prompts is None else prompts
    check_reading(model, tokenizer, [prompt.replace(tokenizer.mask_token, " ") for prompt in every])
    check_canvases(model, tokenizer, every, arguments.max_new_tokens)
    model = move_to(model, arguments.device).eval()
    if arguments.int8:
        quantize_int8(model)
    options = {name: getattr(unmasking, name) for name in ("steps", "block_length", "order")}
    options["max_new_tokens"] = arguments.max_new_tokens
    if arguments.do_sample:
        options |= {name: getattr(arguments, name) for name in ("temperature", "top_k", "top_p")}
    set_seed(arguments.seed)
    if prompts is None:
        _show(model, tokenizer, arguments.prompt, options)
    else:
        write = functools.partial(write_texts, model, tokenizer, **options)
        write_file(arguments, prompts, arguments.batch_size, write)


def _show(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, options: dict) -> None:
    """Print a text: on a terminal in the making, else at its end."""
    if not sys.stdout.isatty():
        print(write_texts(model, tokenizer, [prompt], **options)[0])
        return
    canvas = Canvas(tokenizer, sys.stdout)
    canvas.finish(write_texts(model, tokenizer, [prompt], watch=canvas, **options)[0])
