"""SIGTERM in training: finish the step, save a checkpoint, and end as a signal ends a process."""

import signal
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StopSignal(TrainerCallback):
    """Remembers SIGTERM while a Trainer trains, and has it save and stop at the end of the step, in all processes."""

    def __init__(self, received: bool = False) -> None:
        """`received`: whether one came already, for a Trainer that goes on where another ended."""
        self.received = received
        self.listens, self.obeyed = True, False
        self.previous = signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def is_asked(self, args: TrainingArguments) -> bool:
        """Whether any process was told to stop while it trained; all processes have to call this."""
        if not self.listens:
            return False
        asked = self.received
        if args.world_size > 1:
            flag = torch.tensor(int(asked), device=args.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
            asked = bool(flag.item())  # a signal that came meanwhile is for the next time, when all hear of it
        self.obeyed = asked
        return asked

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """From here on SIGTERM ends the process as it always does, also one that came too late to be seen."""
        self.listens = False
        signal.signal(signal.SIGTERM, self.previous)
        if self.received and not self.obeyed:
            signal.raise_signal(signal.SIGTERM)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a checkpoint of this step."""
        if self.is_asked(args):
            control.should_save = True
        return control
