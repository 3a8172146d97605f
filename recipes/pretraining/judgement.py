"""Whether a finished pretraining run's losses mean anything: its held-out text, and how its curve ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from weft.recipes.common.wording import counted
from weft.recipes.pretraining.arguments import LENGTHS
from weft.recipes.training.learning_curve import curve_notes

FEWEST_TOKENS = 10_000  # of held-out text whose losses do not say how sure they are
NOTABLE_ERROR = 0.02  # of the loss: models that differ by less are common
SURE = 1.96  # standard errors on each side of a 95% interval


def notes_of(
    history: Sequence[Mapping[str, Any]],
    held_out: Mapping[str, int],
    loss: float,
    error: float | None,
    settings: Mapping[str, Any],
) -> list[str]:
    """What a reader should know before the scores are relied on, each with the fields that help.

    Args:
        history: of the Trainer.
        held_out: documents and tokens of the held-out text.
        loss, error: its loss, and the standard error of that; None: not known.
        settings: all fields of the run.
    """
    return [*_of_held_out(held_out, loss, error), *_of_curve(history, settings)]


def _of_held_out(held_out: Mapping[str, int], loss: float, error: float | None) -> list[str]:
    reach = None if error is None else SURE * error
    if (held_out["tokens"] >= FEWEST_TOKENS) if reach is None else (reach <= NOTABLE_ERROR * loss):
        return []
    known = "" if reach is None else f", so that its loss is known to about ±{reach:.2g} only"
    size = f"{counted(held_out['documents'], 'document')}, {counted(held_out['tokens'], 'token')}"
    return [f"the held-out text is small ({size}){known}: hold out more (validation_fraction, or validation_files)"]


def _of_curve(history: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[str]:
    training = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    validation = [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    length = next((name for name in LENGTHS if settings.get(name)), "num_train_epochs")
    kept = f"the last weights are kept: train less ({length}), on more text, or a smaller model (preset)"
    return curve_notes(training, validation, "held-out loss", kept, length)
