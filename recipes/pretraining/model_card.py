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
    formats: dict[str, str]
    settings: dict[str, Any]
    samples: list[str]
    usage: str
    pipeline_tag: str


def plot_curve(
    history: list[dict[str, Any]], parts: dict[str, str], tokens_before: Callable[[int], int], path: Path
) -> None:
    """Plot training and validation loss over tokens seen, each part by itself where it has several, and the learning
    rate.

    Args:
        history: the Trainer's log.
        parts: the unit of each part of the loss; parts of one unit share a panel.
        tokens_before: the tokens of the first so many steps.
        path: of the PNG.
    """
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    panels = _panels(training, parts)
    figure, axes = pyplot.subplots(
        len(panels) + 1, 1, figsize=(8, 4.5 + 1.5 * len(panels)), sharex=True, height_ratios=(3, *[1] * len(panels))
    )
    for axis, (unit, curves) in zip(axes, panels.items()):
        for colour, (name, (trained, validated)) in enumerate(curves.items()):
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

{_metrics_table(report.metrics, "eval_", report.formats)}

## The run

{_metrics_table({k: v for k, v in report.metrics.items() if not k.startswith("eval_")}, "", report.formats)}

## Samples

{samples}

## Settings

{table(report.settings)}
""",
        encoding="utf-8",
    )


def _metrics_table(metrics: dict[str, Any], prefix: str, formats: dict[str, str]) -> str:
    shown = in_order(metrics, prefix, formats)
    return table({words_of(name): text_of(name, value, formats) for name, value in shown.items()})
