"""What the card of a fine-tuned model says of its scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from weft.recipes.common.markdown import table
from weft.recipes.training.metric_format import text_of, words_of
from weft.recipes.training.model_card import notes_section, pairs_table


def results_section(
    metrics: Mapping[str, Any], headline: Sequence[str], best_metric: str, reports: Mapping[str, str]
) -> str:
    """Say in Markdown how far the seeds lie apart, and what each split's scores are.

    Args:
        reports: Markdown of the task itself, by split.
    """
    parts = [_of_seeds(metrics, headline, best_metric) + notes_section(metrics["notes"])]
    parts += [
        f"### {split}\n\n{_scores_table(metrics, split, headline)}\n\n{report}" for split, report in reports.items()
    ]
    return "\n\n".join(parts)


def _scores_table(metrics: Mapping[str, Any], split: str, headline: Sequence[str]) -> str:
    """The model's scores, those of the answers that need no model, and how sure the first one is."""
    scores, baselines = scores_of(metrics, split, headline), metrics["baselines"].get(split, [])
    rows = [
        (words_of(name), text_of(name, value), *(text_of(name, of.get(name)) for of in baselines))
        for name, value in scores.items()
    ]
    named = (("", "this model", *(of["answer"] for of in baselines))) if baselines else ("", "")
    sure = [
        f"\n\n95% interval of {words_of(name)} over examples: {text_of(name, low)} to {text_of(name, high)}."
        for name, (low, high) in metrics["intervals"].get(split, {}).items()
    ]
    return table(named, rows) + "".join(sure)


def prefix_of(split: str) -> str:
    """What stands before the names of a split's scores in metrics.json."""
    return "eval_" if split == "validation" else f"{split}_"


def scores_of(metrics: Mapping[str, Any], split: str, headline: Sequence[str]) -> dict[str, int | float]:
    """The scores of a split, those of the headline first."""
    prefix = prefix_of(split)
    found = {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix) and isinstance(value, int | float)
    }
    return {name: found[name] for name in (*headline, *found) if name in found}


def _of_seeds(metrics: Mapping[str, Any], headline: Sequence[str], best_metric: str) -> str:
    """How far the seeds lie apart, and how the published one was chosen."""
    seeds, spread = metrics["seeds"], metrics["over_seeds"]
    if len(seeds) == 1:
        return f"One seed ({seeds[0]['seed']}); how much the scores depend on it was not measured."
    rows = {
        words_of(name): f"{spread[name]['mean']:.4f} (standard deviation {spread[name]['deviation']:.4f})"
        for name in dict.fromkeys((best_metric, *headline))
        if name in spread
    }
    each = ", ".join(f"{entry['seed']}: {entry[best_metric]:.4f}" for entry in seeds)
    return (
        f"Validation scores over {len(seeds)} seeds, each at its best evaluation:\n\n{pairs_table(rows)}\n\n"
        f"{words_of(best_metric)} of each seed: {each}. The model here is that of seed {metrics['seed']}, the best "
        "of them on the validation examples, so its own validation scores below are flattering: expect the mean."
    )
