"""What a finished run tells its readers: metrics.json, curve.png and the model card."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


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


def plot_curve(history: list[dict[str, Any]], path: Path) -> None:
    """Training and validation loss over tokens seen, and the learning rate."""
    training = [entry for entry in history if "loss" in entry]
    validation = [entry for entry in history if "eval_loss" in entry]
    tokens_of_step = {entry["step"]: entry["tokens_seen"] for entry in training}
    per_step = training[-1]["tokens_seen"] / training[-1]["step"] if training else 1
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 1))
    top.plot([e["tokens_seen"] for e in training], [e["loss"] for e in training], label="training", linewidth=1)
    tokens = [tokens_of_step.get(e["step"], e["step"] * per_step) for e in validation]
    top.plot(tokens, [e["eval_loss"] for e in validation], "o-", label="validation", markersize=4)
    top.set_ylabel("loss (nats per token)")
    top.legend()
    top.grid(alpha=0.3)
    bottom.plot([e["tokens_seen"] for e in training], [e["learning_rate"] for e in training], color="gray")
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("tokens seen")
    bottom.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


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

{_table(report.facts)}

![loss over tokens](curve.png)

## Metrics on the held-out text

{_table({name: _number(value) for name, value in report.metrics.items()})}

## Samples

{samples}

## Settings

{_table(report.settings)}
""",
        encoding="utf-8",
    )


def _table(rows: dict[str, Any]) -> str:
    cells = [(name, str(value).replace("|", "\\|").replace("\n", " ")) for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells)])


def _number(value: Any) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else json.dumps(value)
