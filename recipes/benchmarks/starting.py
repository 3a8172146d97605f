"""Processor time of fresh processes that import a package, or that a command answers in, for the benchmark."""

from collections.abc import Callable
from functools import partial

from weft.recipes.benchmarks.preparation import RECIPES, processor_seconds

PACKAGES = ("weft", "torch", "transformers")
COMMANDS = (
    *("pretrain_clm", "pretrain_mlm", "prepare_data", "evaluate_lm", "benchmark", "convert", "generate"),
    *("train_tokenizer", "finetune_qa"),
)


def start_sides() -> dict[str, Callable[[], float]]:
    """Importing, and the page of --help, each a function that returns the processor seconds of one fresh process."""
    imports = {f"import {name}": ["-c", f"import {name}"] for name in PACKAGES}
    pages = {f"{name} --help": [str(RECIPES / f"{name}.py"), "--help"] for name in COMMANDS}
    return {name: partial(processor_seconds, words) for name, words in (imports | pages).items()}
