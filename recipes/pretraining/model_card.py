"""What a finished run tells its readers: metrics.json, curve.png and the model card."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

from weft.recipes.training.model_card import table

matplotlib.use("Agg")
from matplotlib import pyplot

from weft.recipes.training.metric_format import in_order, text_of, words_of


@dataclass(frozen=True)
class RunReport:
    """Everything the card says. `facts` and `settings` are printed as tables."""

    title: str
    summary: str
    facts: dict[str, Any]
    metrics: dict[str, float]
    settings: dict[str, Any]
    samples: list[str]
    usage: str
    pipeline_tag: str


# Parts of the loss that are drawn together: the unit, and the keys of training and validation logs.
PANELS = {
    "nats per token": {"causal": ("loss_causal", "eval_causal_loss"), "masked": ("loss_masked", "eval_masked_loss")},
    "nats per pair": {"next sentence": ("loss_next_sentence", "eval_next_sentence_loss")},
}


def plot_curve(history: list[dict[str, Any]], tokens_before: Callable[[int], int], path: Path) -> None:
    """Training and validation loss over tokens seen, each part by itself where it has several, and the learning rate.

    Args:
        history: the Trainer's log.
        tokens_before: how many tokens so many steps take.
        path: of the PNG.
    """
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    panels = _panels(training)
    figure, axes = pyplot.subplots(
        len(panels) + 1, 1, figsize=(8, 4.5 + 1.5 * len(panels)), sharex=True, height_ratios=(3, *[1] * len(panels))
    )
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
        axis.grid(alpha=0.3)
    rates = axes[-1]
    rates.plot([e["tokens_seen"] for e in training], [e["learning_rate"] for e in training], color="gray")
    rates.set_ylabel("learning rate")
    rates.set_xlabel("tokens seen")
    rates.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panels(training: list[dict[str, Any]]) -> dict[str, dict[str, tuple[str, str]]]:
    """What to draw: the parts of the loss that were logged, or, where it has none, the loss."""
    logged = {key for entry in training for key in entry}
    panels = {unit: {name: keys for name, keys in parts.items() if keys[0] in logged} for unit, parts in PANELS.items()}
    return {unit: parts for unit, parts in panels.items() if parts} or {"nats per token": {"": ("loss", "eval_loss")}}


def write_card(report: RunReport, path: Path) -> None:
    """The README.md of the published folder."""
    samples = "\n\n".join("```text\n" + sample.replace("```", "'''").strip() + "\n```" for sample in report.samples)
    path.write_text(
        f"""---
library_name: transformers
pipeline_tag: {report.pipeline_tag}
tags:
- weft
---

# {report.title}

{report.summary}

## How to load it

```python
{report.usage}
```

## Data and training

{table(report.facts)}

![loss over tokens](curve.png)

## Metrics on the held-out text

{_metrics_table(in_order(report.metrics, "eval_"))}

## The run

{_metrics_table(in_order({name: value for name, value in report.metrics.items() if not name.startswith("eval_")}))}

## Samples

{samples}

## Settings

{table(report.settings)}
""",
        encoding="utf-8",
    )


def _metrics_table(metrics: dict[str, Any]) -> str:
    return table({words_of(name): text_of(name, value) for name, value in metrics.items()})
