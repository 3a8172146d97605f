"""Weft and stock classes trained by transformers' own Trainer, each run in a fresh process, for the benchmark.

Weft is given its batches as its recipes make them: the head at the places of targets alone, and no logits returned.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from weft.interop import find_family, weft_class
from weft.interop.convert import import_model
from weft.losses import IGNORE_INDEX
from weft.recipes.benchmarks.stock_models import Shape, allowed_difference, last_line_of, make_stock, process_megabytes
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.hardware import choose_bf16
from weft.recipes.training.model_setup import count_parameters
from weft.recipes.training.throughput import measure_matmul_flops, synchronize, training_flops_per_token

WARM_UP = 3  # steps before the clock starts; with --torch_compile the first of them compile


@dataclass
class TrainerSide:
    """One side: calling it trains in a fresh process and returns the seconds of a step; `found` keeps what each call
    measured (see `train_here`)."""

    shape: Shape
    is_weft: bool
    attention: str
    documents: int
    steps: int
    torch_compile: bool
    measure_memory: bool
    threads: int | None
    found: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self) -> float:
        what = f"{'weft' if self.is_weft else self.shape.family} with {self.attention}"
        first_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # Trainer would take all of them
        settings = asdict(replace(self, found=[]))
        self.found.append(json.loads(last_line_of(what, __name__, settings, CUDA_VISIBLE_DEVICES=first_gpu)))
        return self.found[-1]["seconds"]


def trainer_sides(shape: Shape, attentions: list[str], *settings: Any) -> dict[str, TrainerSide]:
    """Both models with each attention backend; the names of the first backend's sides are without it.

    Args:
        settings: the fields of `TrainerSide` from `documents` on.
    """
    return {
        name if attention == attentions[0] else f"{name}, {attention}": TrainerSide(
            shape, name == "weft", attention, *settings
        )
        for attention in attentions
        for name in ("weft", shape.family)
    }


def check_losses(sides: dict[str, TrainerSide]) -> None:
    """Raises RecipeError where two sides do not start with the same loss, so that their times would say nothing."""
    losses = {name: side.found[0]["loss"] for name, side in sides.items()}
    device = next(iter(sides.values())).found[0]["device"]
    if not max(losses.values()) - min(losses.values()) <= allowed_difference(device):
        told = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
        raise RecipeError(f"the sides start with different losses, so their times would say nothing: {told}.")


def summarize(sides: dict[str, TrainerSide]) -> dict[str, list[dict[str, Any]]]:
    """Print the medians of each side, and return all that was found, with MFU: the share of the fastest matrix product
    that any of the processes measured."""
    fastest = max(run["matmul_flops"] for side in sides.values() for run in side.found)
    for name, side in sides.items():
        for run in side.found:
            run["mfu"] = run["flops"] / fastest
        middle = {key: statistics.median(run[key] for run in side.found) for key in side.found[0] if key != "device"}
        memory = f", {middle['peak_megabytes']:,.0f} MB at most" if side.measure_memory else ""
        used = f", MFU {middle['mfu']:.1%}" if middle["mfu"] <= 1 else ""  # else all were measured in slow moments
        print(f"{name:24} {middle['tokens_per_second']:10,.0f} tokens/s{used}{memory}")
    return {name: side.found for name, side in sides.items()}


class Clock(TrainerCallback):
    """Seconds of the steps after the first WARM_UP, and of a GPU the memory from there on."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.began, self.seconds = device, 0.0, 0.0

    def on_step_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Start once warm."""
        if state.global_step == WARM_UP:
            synchronize(self.device)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            self.began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Stop behind the last step."""
        if state.global_step == state.max_steps:
            synchronize(self.device)
            self.seconds = time.perf_counter() - self.began


def train_here(side: TrainerSide) -> dict[str, Any]:
    """Train in this process, in bfloat16 on a GPU that has it.

    Returns:
        seconds (of a step), tokens_per_second, flops (a second, of the work that the loss asks for), matmul_flops (a
        second, of a matrix product here), loss (of the first step), mean_loss (of all), device and, if asked for,
        peak_megabytes (on a processor what this process grew by).
    """
    on_gpu = torch.cuda.is_available()
    in_bf16 = choose_bf16(None, on_gpu)
    before = 0.0 if on_gpu or not side.measure_memory else process_megabytes("VmRSS")
    if side.threads is not None:
        torch.set_num_threads(side.threads)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            max_steps=WARM_UP + side.steps,
            per_device_train_batch_size=side.shape.batch_size,
            learning_rate=1e-4,
            optim="adamw_torch_fused",
            bf16=in_bf16,
            use_cpu=not on_gpu,
            torch_compile=side.torch_compile,
            logging_first_step=True,
            logging_steps=WARM_UP + side.steps + 1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        clock, batch = Clock(args.device), _batch(side)
        trainer = Trainer(
            _model(side),
            args,
            train_dataset=list(range(side.shape.batch_size * args.max_steps)),
            data_collator=lambda _: batch,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        mean_loss = trainer.train().training_loss
    seconds = clock.seconds / side.steps
    memory = {}
    if side.measure_memory:
        most = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else process_megabytes("VmHWM")
        memory["peak_megabytes"] = most - before
    speed = side.shape.batch_size * side.shape.length / seconds
    dtype = torch.bfloat16 if in_bf16 else torch.float32
    return {
        "seconds": seconds,
        "tokens_per_second": speed,
        "flops": speed * _flops_per_token(side),
        "matmul_flops": measure_matmul_flops(args.device, dtype, torch.get_num_threads()),
        "loss": trainer.state.log_history[0]["loss"],
        "mean_loss": mean_loss,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        **memory,
    }


def _batch(side: TrainerSide) -> dict[str, Any]:
    """What each step trains on; with several documents in a row, places that start anew with each."""
    batch = side.shape.weft_batch("cpu") if side.is_weft else side.shape.batch("cpu")
    if side.shape.head == "causal":  # a row's first token is no target, which Trainer does not know of each class
        batch["labels"] = batch["labels"].index_fill(1, torch.tensor(0), IGNORE_INDEX)
    if side.documents > 1:
        places = torch.arange(side.shape.length) % (side.shape.length // side.documents)
        batch["position_ids"] = places.repeat(side.shape.batch_size, 1)
    return {**batch, "use_cache": False}


def _model(side: TrainerSide) -> PreTrainedModel:
    """The same weights on both sides; the stock model that Weft's are from is gone before training."""
    stock = make_stock(side.shape)
    if not side.is_weft:
        stock.set_attn_implementation(side.attention)
        return stock
    model, _ = import_model(stock, find_family(side.shape.family), side.shape.head)
    model.set_attn_implementation(side.attention)
    return model


def _flops_per_token(side: TrainerSide) -> float:
    """Of the work that the loss asks for, which is the same on both sides: a head at the places of targets alone."""
    config = find_family(side.shape.family).import_config(side.shape.stock_config(), side.shape.head)
    counts = count_parameters(config, weft_class(side.shape.head))
    labels = side.shape.batch("cpu")["labels"]
    share = (labels != IGNORE_INDEX).float().mean().item()
    return training_flops_per_token(config, counts, side.shape.length // side.documents, share)


if __name__ == "__main__":
    _fields = json.loads(sys.argv[1])
    print(json.dumps(train_here(TrainerSide(**{**_fields, "shape": Shape(**_fields["shape"])}))))
