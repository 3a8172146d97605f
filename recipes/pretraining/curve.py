"""The learning curve of a pretraining run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from weft.recipes.training.figures import stacked_panels

# Parts of the loss that are drawn together: the unit, and the keys of training and validation logs.
PANELS = {
    "nats per token": {"causal": ("loss_causal", "eval_causal_loss"), "masked": ("loss_masked", "eval_masked_loss")},
    "nats per pair": {"next sentence": ("loss_next_sentence", "eval_next_sentence_loss")},
}


def plot_curve(history: list[dict[str, Any]], tokens_before: Callable[[int], int], path: Path) -> None:
    """Draw training and validation loss over tokens seen, each part by itself, and the learning rate.

    Args:
        history: the Trainer's log.
        tokens_before: how many tokens so many steps take.
        path: of the PNG.
    """
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    panels = _panels(training)
    with stacked_panels(path, (8, 4.5 + 1.5 * len(panels)), (3, *[1] * len(panels))) as axes:
        for axis, (unit, parts) in zip(axes, panels.items()):
            for colour, (name, (trained, validated)) in enumerate(parts.items()):
                seen = [(e["tokens_seen"], e[trained]) for e in training if trained in e]
                axis.plot(*zip(*seen), color=f"C{2 * colour}", label=f"{name} training".strip(), linewidth=1)
                steps = [e for e in validation if validated in e]
                tokens = [tokens_before(e["step"]) for e in steps]
                values = [e[validated] for e in steps]
                style = {"color": f"C{2 * colour + 1}", "label": f"{name} validation".strip(), "markersize": 4}
                axis.plot(tokens, values, "o-", **style)
            axis.set_ylabel(f"loss ({unit})")
            axis.legend()
        rates = axes[-1]
        rates.plot([e["tokens_seen"] for e in training], [e["learning_rate"] for e in training], color="gray")
        rates.set_ylabel("learning rate")
        rates.set_xlabel("tokens seen")


def _panels(training: list[dict[str, Any]]) -> dict[str, dict[str, tuple[str, str]]]:
    """What to draw: the parts of the loss that were logged, or, where it has none, the loss."""
    logged = {key for entry in training for key in entry}
    panels = {unit: {name: keys for name, keys in parts.items() if keys[0] in logged} for unit, parts in PANELS.items()}
    return {unit: parts for unit, parts in panels.items() if parts} or {"nats per token": {"": ("loss", "eval_loss")}}
