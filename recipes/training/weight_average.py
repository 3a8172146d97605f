"""An exponential moving average of the weights, which is evaluated and published in their place."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainingArguments

FILE = "average.safetensors"


class WeightAverage(TrainerCallback):
    """After each step t = 1, 2, ... average <- d average + (1 - d) weights, with d = min(decay, t / (t + 9)), so that
    the random weights of the beginning are soon forgotten (`num_updates` of TensorFlow's ExponentialMovingAverage)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begins with the model's weights. They are read in place: a later `load` has the average of a checkpoint."""
        self.decay = decay
        self.weights = dict(model.named_parameters())
        self.average: dict[str, torch.Tensor] | None = None

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """A new run begins with the weights as they are now, on their device."""
        if self.average is None:
            self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Take the new weights in."""
        decay = min(self.decay, state.global_step / (state.global_step + 9))
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While this lasts the model has the averaged weights; then its own again, bit for bit."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, weight in self.weights.items():
            own = weight.clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(own)

    def save(self, folder: Path) -> None:
        """Write the average beside a checkpoint's weights."""
        save_file({name: value.contiguous() for name, value in self.average.items()}, folder / FILE)

    def load(self, folder: Path) -> None:
        """Go on with the average of a checkpoint."""
        found = load_file(folder / FILE)
        self.average = {name: found[name].to(weight.device) for name, weight in self.weights.items()}
