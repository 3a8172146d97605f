"""What a fine-tuned model tells its readers: the model card and the learning curve."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from weft.recipes.finetuning.best_weights import evaluations_of
from weft.recipes.finetuning.task import Kind
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training.metric_format import text_of, words_of
from weft.recipes.training.model_card import table


@dataclass(frozen=True)
class Card:
    """Everything the card says; `sections` are the kind's own reports, by split."""

    title: str
    summary: str
    pipeline_tag: str
    language: str | None
    usage: str
    facts: dict[str, Any]
    metrics: dict[str, Any]
    headline: tuple[str, ...]
    goal: str
    sections: dict[str, str]
    settings: dict[str, Any]


def write_card(card: Card, path: Path) -> None:
    """The README.md of the published folder."""
    scores = "\n\n".join(
        f"### {split}\n\n{_scores(card, 'eval_' if split == 'validation' else f'{split}_')}\n\n{section}"
        for split, section in card.sections.items()
    )
    language = "" if card.language is None else f"language: {card.language}\n"
    path.write_text(
        f"""---
{language}library_name: transformers
pipeline_tag: {card.pipeline_tag}
tags:
- weft
---

# {card.title}

{card.summary}

## How to use it

```python
{card.usage}
```

## Data and training

{table(card.facts)}

![learning curve](curve.png)

## Results

{_seeds(card)}

{scores}

## Settings

{table(card.settings)}
""",
        encoding="utf-8",
    )


def _scores(card: Card, prefix: str) -> str:
    found = {
        name.removeprefix(prefix): value
        for name, value in card.metrics.items()
        if name.startswith(prefix) and isinstance(value, int | float)
    }
    names = [name for name in (*card.headline, *found) if name in found]
    return table({words_of(name): text_of(name, found[name]) for name in dict.fromkeys(names)})


def _seeds(card: Card) -> str:
    """How far the seeds lie apart, and how the published one was chosen."""
    seeds, spread = card.metrics["seeds"], card.metrics["over_seeds"]
    if len(seeds) == 1:
        return f"One seed ({seeds[0]['seed']}); how much the scores depend on it was not measured."
    rows = {
        words_of(name): f"{spread[name]['mean']:.4f} (standard deviation {spread[name]['deviation']:.4f})"
        for name in dict.fromkeys((card.goal, *card.headline))
        if name in spread
    }
    each = ", ".join(f"{entry['seed']}: {entry[card.goal]:.4f}" for entry in seeds)
    return (
        f"Validation scores over {len(seeds)} seeds, each at its best evaluation:\n\n{table(rows)}\n\n"
        f"{words_of(card.goal)} of each seed: {each}. The model here is that of seed {card.metrics['seed']}, the best "
        "of them on the validation examples, so its own validation scores below are flattering: expect the mean."
    )


def plot_seeds(results: list[SeedResult], kind: Kind, path: Path) -> None:
    """Training and validation loss, and the metric that chooses the weights, over steps, for every seed."""
    figure, (losses, scores) = pyplot.subplots(2, 1, figsize=(8, 7), sharex=True)
    for number, result in enumerate(results):
        colour, name = f"C{number}", f"seed {result.seed}"
        trained = [(entry["step"], entry["loss"]) for entry in result.history if "loss" in entry]
        validated = [(one.step, one.scores["loss"]) for one in evaluations_of(result.history)]
        if trained:
            losses.plot(*zip(*trained), color=colour, linewidth=1, alpha=0.5, label=f"{name}, training")
        losses.plot(*zip(*validated), "o-", color=colour, markersize=3, label=f"{name}, validation")
        reached = [(one.step, one.scores[kind.goal.metric]) for one in evaluations_of(result.history)]
        scores.plot(*zip(*reached), "o-", color=colour, markersize=3, label=name)
        scores.plot([result.step], [result.metrics[kind.goal.metric]], "*", color=colour, markersize=12)
    losses.set_ylabel("loss")
    scores.set_ylabel(words_of(kind.goal.metric))
    scores.set_xlabel("step (a star marks the weights that were kept)")
    for axis in (losses, scores):
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
