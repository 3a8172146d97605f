"""The weights with the best validation score, kept on disk, and early stopping."""

from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.recipes.common.files import flush_to_disk
from weft.recipes.finetuning.adapters import put_weights, trained_weights
from weft.recipes.finetuning.best_metric import BestMetric

WEIGHTS, RESULT = "best.safetensors", "result.json"
STEP = "step"  # what a file of weights says of itself


class BestWeights(TrainerCallback):
    """Keeps the weights of the best evaluation on disk, and stops a run that has not improved for long.

    What was best so far is read off the Trainer's log, so that a resumed run knows it too.
    """

    def __init__(self, best_metric: BestMetric, file: Path, patience: int | None) -> None:
        self.best_metric, self.file, self.patience = best_metric, file, patience
        self.stopped_early = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Write the weights down if they are the best."""
        best = best_of(evaluations_of(state.log_history), self.best_metric)
        if best is None:
            return
        if state.is_world_process_zero and best.step == state.global_step:
            save_weights(model, self.file, best.step)
        if self.was_stopped(state):
            control.should_training_stop = True

    def was_stopped(self, state: TrainerState) -> bool:
        """Whether a run whose log is `state`'s stops early where it stands."""
        evaluations = evaluations_of(state.log_history)
        best = best_of(evaluations, self.best_metric)
        if best is not None and self.patience is not None and state.global_step < state.max_steps:
            # a lower loss at the same score chooses among weights, but is no progress
            highest = best.scores[self.best_metric.name]
            reached = next(one.step for one in evaluations if one.scores[self.best_metric.name] == highest)
            self.stopped_early = sum(reached < one.step <= state.global_step for one in evaluations) >= self.patience
        return self.stopped_early


def save_weights(model: nn.Module, file: Path, step: int) -> None:
    """Write the trained weights, and the step that they are of, in one move."""
    temporary = file.with_name(f".{file.name}.partial")
    save_file(trained_weights(model), temporary, metadata={STEP: str(step)})
    flush_to_disk(temporary)
    temporary.replace(file)


def load_weights(model: nn.Module, file: Path) -> None:
    """Put the weights of a file into the model that they were saved from."""
    put_weights(model, load_file(file))


def step_of_weights(file: Path) -> int:
    """The step that the weights of a file are of."""
    with safe_open(file, "pt") as handle:
        return int(handle.metadata()[STEP])


class Evaluation(NamedTuple):
    """What the validation examples said of the weights of a step."""

    step: int
    scores: dict[str, float]


def evaluations_of(history: list[dict[str, Any]]) -> list[Evaluation]:
    """The evaluations that a log tells of, each step once."""
    found = {}
    for entry in history:
        scores = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
        if scores:
            found[entry["step"]] = Evaluation(entry["step"], scores)
    return list(found.values())


def best_of(evaluations: list[Evaluation], best_metric: BestMetric) -> Evaluation | None:
    """The best evaluation, see `Goal.chooses`; None where no score is a number."""
    best: Evaluation | None = None
    for evaluation in evaluations:
        if best_metric.chooses(evaluation.scores, None if best is None else best.scores):
            best = evaluation
    return best
