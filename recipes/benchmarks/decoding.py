"""Greedy decoding of Weft beside a stock class of the same shape and weights."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from transformers import CompileConfig, PreTrainedModel

from weft.interop import find_family
from weft.interop.convert import import_model
from weft.recipes.benchmarks.stock_models import Shape, make_stock
from weft.recipes.benchmarks.whole_rows import MASK, in_whole_rows
from weft.recipes.common.errors import RecipeError
from weft.recipes.generation.decoding import decode, store_by_column
from weft.recipes.generation.generate_text import has_compiler
from weft.recipes.generation.int8 import quantize_int8
from weft.recipes.training.model_setup import DEFAULT_EXTRAS
from weft.recipes.training.throughput import seconds_of

LONG_PROMPT = 64  # tokens from which on the prompt is measured by itself too
PROMPT = ", prompt"  # ends the names of these sides


def generate_sides(
    shape: Shape, device: str, steps: int, prompt_length: int = 8, rows: int = 1
) -> dict[str, Callable[[], float]]:
    """Greedy decoding, `steps` times half the length behind a prompt of so many tokens, or behind `rows` prompts whose
    lengths go up to that in equal steps: by `generate` of both and, of Weft, by `decode`. Of one stream of Weft also in
    8 bits (which may write other tokens) and, where PyTorch finds a compiler, compiled. What storing by column does to
    the stock class is measured too, and so is a Weft model with all that the recipes add to a new one, which no stock
    class computes.

    Raises:
        RecipeError: the two do not write the same tokens.
    """
    options = {"max_new_tokens": shape.length // 2, "do_sample": False, "pad_token_id": 0}
    shape = replace(shape, length=max(shape.length, prompt_length + shape.length // 2))
    stock = make_stock(shape).to(device).eval()
    model, _ = import_model(stock, find_family(shape.family), shape.head)
    prompt = replace(shape, batch_size=rows).batch(device)["input_ids"][:, :prompt_length]
    for each in (stock, model):  # no token ends the text: `min_new_tokens` would search the vocabulary at each step
        each.generation_config.eos_token_id = None
    if rows > 1:
        padding = torch.tensor([prompt_length - prompt_length * (row + 1) // rows for row in range(rows)])
        padding = padding.clamp(max=prompt_length - 1).to(device)[:, None]
        options["attention_mask"] = (torch.arange(prompt_length, device=device) >= padding).long()
    fast = {**options, "custom_generate": decode}
    calls = {"weft": (model, options), **({MASK: (model, options)} if shape.may_be_cut else {})}
    calls |= {shape.family: (stock, options), "weft, decode": (model, fast)}
    calls |= _single_stream(shape, device, stock, model, options, fast) if rows == 1 else {}
    written = {name: each.generate(prompt, **how) for name, (each, how) in calls.items()}
    same = [ids for name, ids in written.items() if "int8" not in name and "added" not in name]
    if not all(torch.equal(ids, written["weft"]) for ids in same):
        raise RecipeError(f"weft and {shape.family} do not write the same tokens: their times would say nothing.")

    if prompt_length >= LONG_PROMPT:
        for name in ("weft", *([MASK] if shape.may_be_cut else []), shape.family, "weft, decode"):
            each, how = calls[name]
            calls[f"{name}{PROMPT}"] = each, {**how, "max_new_tokens": 1}
    return {
        name: in_whole_rows(
            name.removesuffix(PROMPT),
            lambda each=each, how=how: seconds_of(steps, lambda: each.generate(prompt, **how)),
        )
        for name, (each, how) in calls.items()
    }


def _single_stream(
    shape: Shape, device: str, stock: PreTrainedModel, model: PreTrainedModel, options: dict, fast: dict
) -> dict[str, tuple[PreTrainedModel, dict]]:
    """What is measured of one stream only: a model and the options of its `generate` for each side."""
    small = quantize_int8(copy.deepcopy(model))
    calls = {f"{shape.family}, by column": (store_by_column(copy.deepcopy(stock)), options)}
    more = copy.deepcopy(model.config)
    more.update(dict.fromkeys(DEFAULT_EXTRAS, True))
    other = type(model)._from_config(more).to(device).eval()
    other.generation_config.eos_token_id = None
    calls["weft, decode added"] = (other, fast)
    calls["weft, decode int8"] = (small, fast)
    if device != "cpu" or has_compiler():
        compiled = {**fast, "cache_implementation": "static", "compile_config": CompileConfig(mode="default")}
        calls["weft, decode compiled"] = (model, compiled)
        calls["weft, decode int8 compiled"] = (small, compiled)
        calls["weft, decode added compiled"] = (other, compiled)
    return calls
