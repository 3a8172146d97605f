"""SIGTERM in training: finish the step, save a checkpoint, exit cleanly."""

import signal
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StopSignal(TrainerCallback):
    """Asks the Trainer to save and stop at the end of the step in which SIGTERM arrived, in all processes alike."""

    def __init__(self, received: bool = False) -> None:
        """`received`: whether one came already, for a Trainer that goes on where another ended."""
        self.received = received
        self.previous = signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """From here on SIGTERM ends the process as it always does."""
        signal.signal(signal.SIGTERM, self.previous)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Processes agree on the step: one that was told tells the others."""
        if args.world_size > 1:
            flag = torch.tensor(int(self.received), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            self.received = bool(flag.item())
        if self.received and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True
        return control
