"""Weft beside transformers' own classes of the same shape and the same weights, for the benchmark."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, CompileConfig, PreTrainedConfig, PreTrainedModel

from weft.interop import find_family, weft_class
from weft.interop.convert import import_model
from weft.losses import linear_cross_entropy, masked_lm_loss
from weft.recipes.common.decoding import decode, store_by_column
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.generation import has_compiler
from weft.recipes.common.int8 import quantize_int8
from weft.recipes.common.models import ADDED
from weft.recipes.common.packing import IGNORE_INDEX

MASKED_SHARE, WARM_UP, TOLERANCE = 0.15, 2, 1e-4
NO_DROPOUT = {
    "gpt2": ("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
}
# family -> the head that is trained
HEADS = {"llama": "causal", "gpt2": "causal", "bert": "masked", "modernbert": "masked"}
GATED = ("llama", "modernbert")


@dataclass
class Shape:
    """What is measured: a model of one family, and its batches."""

    family: str
    layers: int
    width: int
    vocabulary: int
    length: int
    batch_size: int

    @property
    def head(self) -> str:
        """The name of the head in `weft.interop`."""
        return HEADS[self.family]

    def stock_config(self) -> PreTrainedConfig:
        """The family's config: heads of 64, no dropout, no special tokens among the ids that are drawn."""
        inner = -(-self.width * 8 // (3 * 64)) * 64 if self.family in GATED else 4 * self.width
        fields: dict[str, Any] = {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": max(1, self.width // 64),
            "max_position_embeddings": self.length,
            "pad_token_id": 0,
            **dict.fromkeys(NO_DROPOUT.get(self.family, ()), 0.0),
        }
        fields |= {} if self.family == "gpt2" else {"intermediate_size": inner}
        fields |= dict.fromkeys(("bos_token_id", "eos_token_id"), 1)
        if self.family == "modernbert":
            fields |= dict.fromkeys(("cls_token_id", "sep_token_id"), 1)
        return AutoConfig.for_model(self.family, **fields)

    def batch(self, device: str) -> dict[str, torch.Tensor]:
        """Full rows of random ids and, for the masked head, a share of random places."""
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(2, self.vocabulary, (self.batch_size, self.length), generator=draw)
        labels = ids
        if self.head == "masked":
            labels = ids.where(torch.rand(ids.shape, generator=draw) < MASKED_SHARE, IGNORE_INDEX)
        return {"input_ids": ids.to(device), "labels": labels.to(device)}

    def weft_batch(self, device: str) -> dict[str, torch.Tensor]:
        """The same as the recipes give it: the places to predict alone, and no logits returned."""
        batch = self.batch(device)
        if self.head == "masked":
            places = (batch["labels"].flatten() != IGNORE_INDEX).nonzero()[:, 0]
            batch |= {"labels": batch["labels"].flatten()[places], "predict_from": places}
        return {**batch, "return_logits": False}


def make_stock(shape: Shape) -> PreTrainedModel:
    """A stock model of random weights."""
    torch.manual_seed(0)
    return find_family(shape.family).stock_class(shape.head)._from_config(shape.stock_config())


def allowed_difference(device: str) -> float:
    """Of the losses of equal models; bfloat16 rounds on a GPU."""
    return TOLERANCE if device == "cpu" else 10 * TOLERANCE


class Training:
    """A model that is trained on one batch again and again, with the AdamW that the recipes use."""

    def __init__(self, model: PreTrainedModel, batch: dict[str, Any], device: str) -> None:
        self.model, self.batch, self.device = model.to(device).train(), batch, device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(self) -> float:
        """One training step; returns its loss."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss = self.model(**self.batch, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()  # waits for a GPU


def step_sides(shape: Shape, device: str, steps: int) -> dict[str, Callable[[], float]]:
    """Training steps of both, each a function that takes `steps` of them and returns the seconds.

    Raises:
        RecipeError: the two do not start with the same loss, so that their times would say nothing.
    """
    stock = make_stock(shape)
    model, _ = import_model(stock, find_family(shape.family), shape.head)
    trainings = {
        "weft": Training(model, shape.weft_batch(device), device),
        shape.family: Training(stock, shape.batch(device), device),
    }
    ours, theirs = (training.step() for training in trainings.values())
    if abs(ours - theirs) > allowed_difference(device):
        raise RecipeError(f"weft starts with a loss of {ours:.6f}, {shape.family} with {theirs:.6f}: they differ.")

    def measure(training: Training) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            training.step()
        return time.perf_counter() - began

    for training in trainings.values():
        for _ in range(WARM_UP):
            training.step()
    return {name: lambda training=training: measure(training) for name, training in trainings.items()}


def head_sides(shape: Shape, device: str, steps: int) -> dict[str, Callable[[], float]]:
    """Output matrix and loss alone, forward and backward: in chunks, and as stock classes compute them."""
    from transformers.loss.loss_utils import ForCausalLMLoss, ForMaskedLMLoss

    torch.manual_seed(0)
    head = nn.Linear(shape.width, shape.vocabulary, bias=False, device=device)
    hidden = torch.randn(shape.batch_size, shape.length, shape.width, device=device)
    labels = shape.batch(device)["labels"]
    targets = labels if shape.head == "masked" else nn.functional.pad(labels, (0, 1), value=IGNORE_INDEX)[..., 1:]
    chosen = targets.flatten() != IGNORE_INDEX
    stock_loss = ForMaskedLMLoss if shape.head == "masked" else ForCausalLMLoss

    def ours(states: torch.Tensor) -> torch.Tensor:
        if shape.head == "masked":
            return linear_cross_entropy(states.flatten(0, 1)[chosen], head, targets.flatten()[chosen])[0]
        return linear_cross_entropy(states, head, targets)[0]

    def measure(loss_of: Callable[[torch.Tensor], torch.Tensor]) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            states = hidden.clone().requires_grad_()
            loss = loss_of(states)
            loss.backward()
            loss.item()
            head.weight.grad = None
        return time.perf_counter() - began

    sides = {
        "weft": ours,
        "weft, logits": lambda states: masked_lm_loss(head(states), targets, shape.vocabulary),
        "stock": lambda states: stock_loss(head(states), labels, shape.vocabulary),
    }
    for loss_of in sides.values():
        measure(loss_of)
    return {name: lambda loss_of=loss_of: measure(loss_of) for name, loss_of in sides.items()}


def generate_sides(shape: Shape, device: str, steps: int) -> dict[str, Callable[[], float]]:
    """Greedy decoding of one stream, `steps` times half the length behind a prompt of 8 tokens: by `generate` of both,
    and of Weft also by `decode` with weights stored by column, in 8 bits (which may write other tokens) and, where
    PyTorch finds a compiler, compiled. What storing by column does to the stock class is measured too, and so is a Weft
    model with all that the recipes add to a new one, which no stock class computes.

    Raises:
        RecipeError: the two do not write the same tokens.
    """
    stock = make_stock(shape).to(device).eval()
    model, _ = import_model(stock, find_family(shape.family), shape.head)
    prompt = shape.batch(device)["input_ids"][:1, :8]
    for each in (stock, model):  # no token ends the text: `min_new_tokens` would search the vocabulary at each step
        each.generation_config.eos_token_id = None
    options = {"max_new_tokens": shape.length // 2, "do_sample": False, "pad_token_id": 0}
    small, stored = quantize_int8(copy.deepcopy(model)), store_by_column(copy.deepcopy(model))
    fast = {**options, "custom_generate": decode}
    calls = {"weft": (model, options), shape.family: (stock, options), "weft, decode": (stored, fast)}
    calls[f"{shape.family}, by column"] = (store_by_column(copy.deepcopy(stock)), options)
    more = copy.deepcopy(model.config)
    more.update(dict.fromkeys(ADDED, True))
    other = type(model)._from_config(more).to(device).eval()
    other.generation_config.eos_token_id = None
    calls["weft, decode added"] = (store_by_column(other), fast)
    calls["weft, decode int8"] = (small, fast)
    if device != "cpu" or has_compiler():
        compiled = {**fast, "cache_implementation": "static", "compile_config": CompileConfig(mode="default")}
        calls["weft, decode compiled"] = (stored, compiled)
        calls["weft, decode int8 compiled"] = (small, compiled)
        calls["weft, decode added compiled"] = (other, compiled)
    written = {name: each.generate(prompt, **how) for name, (each, how) in calls.items()}
    same = [ids for name, ids in written.items() if "int8" not in name and "added" not in name]
    if not all(torch.equal(ids, written["weft"]) for ids in same):
        raise RecipeError(f"weft and {shape.family} do not write the same tokens: their times would say nothing.")

    def measure(name: str) -> float:
        each, how = calls[name]
        began = time.perf_counter()
        for _ in range(steps):
            each.generate(prompt, **how)
        return time.perf_counter() - began

    return {name: lambda name=name: measure(name) for name in calls}


def peak_megabytes(shape: Shape, side: str, device: str, threads: int) -> float:
    """Memory that training takes at most, in a fresh process: what it grew by from before there was a model (of a GPU:
    what was allocated there)."""
    return float(last_line_of(f"memory of {side}", __name__, [asdict(shape), side, device, threads]))


def last_line_of(what: str, module: str, argument: Any, **environment: str) -> str:
    """What a module that is run in a fresh process, with an argument in JSON, prints last.

    Raises:
        RecipeError: it failed; says of `what` and why, and passes on all that it wrote.
    """
    command = [sys.executable, "-m", module, json.dumps(argument)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.stderr.write(done.stderr)
        lines = done.stderr.strip().splitlines()
        named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
        why = (named or lines or [f"it ended with status {done.returncode}"])[-1]
        raise RecipeError(f"{what} was not measured: {why}")
    return done.stdout.strip().splitlines()[-1]


def _train_here(shape: Shape, side: str, device: str) -> float:
    """Train for a few steps and return the megabytes that this process grew by."""
    before = process_megabytes("VmRSS")
    if side == "weft":
        config = find_family(shape.family).import_config(shape.stock_config(), shape.head)
        training = Training(weft_class(shape.head)._from_config(config), shape.weft_batch(device), device)
    else:
        training = Training(make_stock(shape), shape.batch(device), device)
    for _ in range(WARM_UP + 1):
        training.step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return process_megabytes("VmHWM") - before


def process_megabytes(field: str) -> float:
    """Of this process, by Linux; the peak that getrusage tells of begins with that of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


if __name__ == "__main__":
    _shape, _side, _device, _threads = json.loads(sys.argv[1])
    torch.set_num_threads(_threads)
    print(_train_here(Shape(**_shape), _side, _device))
