"""The subjects of benchmark.py: each as functions, one for a side, that do a round's work and return its seconds."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from weft.recipes.benchmarks import (
    batching,
    builtin_files,
    conversations,
    decoding,
    fresh_training,
    scoring,
    starting,
    training_step,
    under_trainer,
)
from weft.recipes.benchmarks.arguments import CLASSIFICATION, BenchmarkArguments
from weft.recipes.benchmarks.preparation import prepare_data_sides
from weft.recipes.benchmarks.stock_models import Shape
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.hardware import keep_freed_memory, share_cores

Sides = dict[str, Callable[[], float]]
MEMORY_ROUNDS = 3


def sides_of(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """The sides of the subject that is asked for; `folder` is theirs to write into until they have been measured."""
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of fresh processes too
    elif arguments.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("there is no GPU that PyTorch could use: leave out --device cuda.")
    return SIDES[arguments.subject](arguments, folder)


def shape_of(arguments: BenchmarkArguments) -> Shape:
    """The shape that the fields give."""
    sizes = (arguments.num_layers, arguments.width, arguments.vocab_size, arguments.length)
    is_classifier = arguments.head == CLASSIFICATION
    more = (arguments.window, arguments.num_key_value_heads, is_classifier, arguments.document_tokens)
    return Shape(arguments.family, *sizes, arguments.batch_size or 8, *more)


def peaks_of(arguments: BenchmarkArguments) -> dict[str, list[float]]:
    """Peak megabytes of a step or a forward pass on each side, MEMORY_ROUNDS times."""
    shape, threads = shape_of(arguments), share_cores(arguments.cpu_threads)
    found: dict[str, list[float]] = {name: [] for name in training_step.memory_sides(shape)}
    for _ in range(MEMORY_ROUNDS):
        for name, peaks in found.items():
            peaks.append(training_step.peak_megabytes(arguments.subject, shape, name, _device(), threads))
    return found


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _finetune(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """The ways of making batches of short examples, or of pairs."""
    share_cores(arguments.cpu_threads)
    keep_freed_memory()
    arguments = builtin_files.completed(arguments, folder)
    first, *rest = map(Path, arguments.train_files)
    settings = (arguments.tokenizer_name, arguments.preset, arguments.batch_size or 32)
    if rest:
        return batching.pair_sides(first, *rest, *settings, arguments.steps or 8)
    return batching.batching_sides(first, arguments.text_column, *settings, arguments.steps or 50)


def _chat(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """Training steps on conversations, beside SFTTrainer."""
    share_cores(arguments.cpu_threads)
    keep_freed_memory()
    arguments = builtin_files.completed(arguments, folder)
    settings = (arguments.preset, arguments.batch_size or 32, arguments.steps or 8)
    return conversations.conversation_sides(arguments.train_files, arguments.tokenizer_name, *settings, folder)


def _prepare_data(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """Preparing text, beside run_clm.py."""
    return prepare_data_sides(builtin_files.completed(arguments, folder), folder)


def _stock(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """Weft and a stock class at the same work."""
    share_cores(arguments.cpu_threads)
    shape, device, steps = shape_of(arguments), _device(), arguments.steps or 1
    if arguments.subject in training_step.WORK:
        return training_step.model_sides(arguments.subject, shape, device, steps)
    if arguments.subject == "generate":
        return decoding.generate_sides(shape, device, steps, arguments.prompt_length, arguments.batch_size or 1)
    return {"score": scoring.score_sides, "head": training_step.head_sides}[arguments.subject](shape, device, steps)


def _trainer(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """Weft and a stock class under transformers' Trainer."""
    settings = (arguments.documents, arguments.steps or 8, arguments.torch_compile, arguments.measure_memory)
    return under_trainer.trainer_sides(shape_of(arguments), arguments.attention, *settings, arguments.cpu_threads)


def _allocator(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """Training with and without freed memory kept."""
    return fresh_training.allocator_sides(shape_of(arguments), arguments.steps or 5, arguments.cpu_threads)


def _busy(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """Training beside busy programs, by how long waiting threads spin."""
    settings = (arguments.steps or 1, arguments.cpu_threads, arguments.busy_programs)
    return fresh_training.busy_sides(shape_of(arguments), *settings)


def _start(arguments: BenchmarkArguments, folder: Path) -> Sides:
    """Importing the package, and what the commands take to answer."""
    return starting.start_sides()


SIDES: dict[str, Callable[[BenchmarkArguments, Path], Sides]] = {
    "prepare_data": _prepare_data,
    **dict.fromkeys(("finetune", "pairs"), _finetune),
    "chat": _chat,
    **dict.fromkeys(("step", "forward", "score", "head", "generate"), _stock),
    "trainer": _trainer,
    "allocator": _allocator,
    "busy": _busy,
    "start": _start,
}
