"""The learning curve of a pretraining run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from weft.recipes.training.figures import stacked_panels


def plot_curve(
    history: list[dict[str, Any]],
    parts: dict[str, str],
    tokens_before: Callable[[int], int],
    path: Path,
    files: Sequence[str] = (),
) -> None:
    """Draw training and validation loss over tokens seen, each part by itself, and the learning rate.

    Args:
        parts: the unit of each part of the loss; parts of one unit share a panel.
        files: metrics of the loss on single validation files, drawn in the first panel.
    """
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    panels = _panels(training, parts)
    with stacked_panels(path, (8, 4.5 + 1.5 * len(panels)), (3, *[1] * len(panels))) as axes:
        for axis, (unit, curves) in zip(axes, panels.items()):
            for colour, (name, (trained, validated)) in enumerate(curves.items()):
                seen = [(e["tokens_seen"], e[trained]) for e in training if trained in e]
                axis.plot(*zip(*seen), color=f"C{2 * colour}", label=f"{name} training".strip(), linewidth=1)
                steps = [e for e in validation if validated in e]
                tokens = [tokens_before(e["step"]) for e in steps]
                values = [e[validated] for e in steps]
                style = {"color": f"C{2 * colour + 1}", "label": f"{name} validation".strip(), "markersize": 4}
                axis.plot(tokens, values, "o-", **style)
            for place, name in enumerate(files if axis is axes[0] else ()):
                steps = [e for e in validation if f"eval_{name}" in e]
                told = [tokens_before(e["step"]) for e in steps], [e[f"eval_{name}"] for e in steps]
                label = f"validation {name.removeprefix('loss_')}".replace("_", " ", 1)
                axis.plot(*told, ".--", color=f"C{(2 * len(curves) + place) % 10}", label=label, linewidth=1)
            axis.set_ylabel(f"loss ({unit})")
            axis.legend()
        rates = axes[-1]
        rates.plot([e["tokens_seen"] for e in training], [e["learning_rate"] for e in training], color="gray")
        rates.set_ylabel("learning rate")
        rates.set_xlabel("tokens seen")


def _panels(training: list[dict[str, Any]], parts: dict[str, str]) -> dict[str, dict[str, tuple[str, str]]]:
    """The curves of each panel, by unit and name: the keys of the training and of the validation log.

    They are the parts of the loss that were logged, or the loss itself.
    """
    logged = {key for entry in training for key in entry}
    panels: dict[str, dict[str, tuple[str, str]]] = {}
    for part, unit in parts.items():
        if f"loss_{part}" in logged:
            panels.setdefault(unit, {})[part.replace("_", " ")] = (f"loss_{part}", f"eval_{part}_loss")
    return panels or {"nats per token": {"": ("loss", "eval_loss")}}
