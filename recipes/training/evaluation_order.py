"""The end of a step: log, save, and only then evaluate, so that a stop or a kill meanwhile loses nothing.

A checkpoint that is written before its evaluation says so (`should_evaluate` of the TrainerControl in its
trainer_state.json). When the evaluation is done, the state is written again, with what it found. A run that resumes
from a checkpoint whose evaluation was not done begins with that: its log has no gap, and no evaluation twice.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from weft.recipes.common.files import write_text
from weft.recipes.training.checkpoints import WholeCheckpoints
from weft.recipes.training.stop_signal import StopSignal

CONTROL = TrainerControl.__name__


class TrainingEnds(Exception):  # no error: it ends `Trainer.train` between two steps
    """Raised inside of `train` where training ends otherwise than by its last step."""


class PendingEvaluation(TrainerCallback):
    """Has a resumed run begin with the evaluation that its checkpoint was written before."""

    def __init__(self, evaluate: Callable[[], None]) -> None:
        self.evaluate = evaluate

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate, if it was not done; a score may end the training there (raises TrainingEnds)."""
        if state.stateful_callbacks.get(CONTROL, {}).get("args", {}).get("should_evaluate"):
            self.evaluate()
            if control.should_training_stop:
                raise TrainingEnds


class SavesFirst(WholeCheckpoints):
    """Trainer that saves before it evaluates, and looks for SIGTERM while it does either.

    Attributes:
        stopped: whether SIGTERM ended the last `train`.
    """

    stopped = False
    stop_signal: StopSignal | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        found = [one for one in self.callback_handler.callbacks if isinstance(one, StopSignal)]
        self.stop_signal = found[0] if found else None
        self.add_callback(PendingEvaluation(self._evaluate_saved))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as the Trainer does, until SIGTERM or the callbacks end it."""
        self.stopped = False
        try:
            return super().train(*args, **kwargs)
        except TrainingEnds:
            self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
            self.is_in_train = False
            return None

    def obey_stop(self) -> None:
        """End the training if SIGTERM came (raises TrainingEnds); an evaluation asks this before each batch, in all
        processes alike."""
        if self.stop_signal is not None and self.stop_signal.is_asked(self.args):
            self.stopped = True
            raise TrainingEnds

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        control = self.control
        should_save, should_evaluate = control.should_save, control.should_evaluate
        control.should_save = control.should_evaluate = False
        super()._maybe_log_save_evaluate(*args, **kwargs)  # logs
        control.should_save, control.should_evaluate = should_save, should_evaluate
        if should_save:
            self._save_now()
        if should_evaluate:
            self._evaluate_saved()
        if should_save or should_evaluate:
            self._saved_if_stopped(self.obey_stop)

    def _evaluate_saved(self) -> None:
        """Evaluate, and add what was found to the checkpoint of this step, if there is one."""
        self.control.should_evaluate = True
        self._saved_if_stopped(self.obey_stop, self.evaluate)
        state = self.checkpoint_of_step / TRAINER_STATE_NAME
        if self.args.should_save and state.is_file():
            self.state.stateful_callbacks[CONTROL] = self.control.state()
            write_text(state, json.dumps(dataclasses.asdict(self.state), indent=2, sort_keys=True) + "\n")

    def _saved_if_stopped(self, *calls: Callable[[], Any]) -> None:
        """Do this, and save the step where it raises TrainingEnds."""
        try:
            for call in calls:
                call()
        except TrainingEnds:
            self._save_now()
            raise

    def _save_now(self) -> None:
        """Write a checkpoint of this step, unless there is one."""
        self._save_checkpoint(self.model, None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
