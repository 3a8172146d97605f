"""The learning curves of a fine-tuning run, one for each seed."""

from pathlib import Path
from typing import TYPE_CHECKING

from weft.recipes.finetuning.best_weights import evaluations_of
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training.figures import stacked_panels
from weft.recipes.training.metric_format import text_of, words_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MARKED = 3  # seeds whose scores are written into the plot


def plot_seeds(
    results: list[SeedResult],
    metric: str,
    path: Path,
    limits: tuple[float, float] | None = None,
    baseline: float | None = None,
) -> None:
    """Draw the losses and the metric that chooses the weights over steps, for every seed.

    Args:
        limits: of the metric; of one that has them the axis shows 0.
        baseline: the metric that is reached without a model, as a line.
    """
    with stacked_panels(path, (8, 7.4), (1, 1)) as (losses, scores):
        for number, result in enumerate(results):
            colour, name = f"C{number}", f"seed {result.seed}"
            trained = [(entry["step"], entry["loss"]) for entry in result.history if "loss" in entry]
            scored = evaluations_of(result.history)
            validated = [(one.step, one.scores["loss"]) for one in scored if "loss" in one.scores]
            if trained:
                losses.plot(*zip(*trained), color=colour, linewidth=1, alpha=0.5, label=f"{name}, training")
            if validated:
                losses.plot(*zip(*validated), "o-", color=colour, markersize=3, label=f"{name}, validation")
            reached = [(one.step, one.scores[metric]) for one in scored]
            scores.plot(*zip(*reached), "o-", color=colour, markersize=3, label=name)
            scores.plot([result.step], [result.metrics[metric]], "*", color=colour, markersize=12)
        _mark_best(scores, results, metric)
        if baseline is not None:
            scores.axhline(baseline, color="grey", linestyle="--", linewidth=1, label="without a model")
        if limits is not None:
            low, high = scores.get_ylim()
            scores.set_ylim(min(0, low) if limits[0] < 0 else 0, min(high, 1.02 * limits[1]) if high > 0 else limits[1])
        losses.set_ylabel("loss")
        scores.set_ylabel(words_of(metric))
        scores.set_xlabel("step (a star marks the weights that were kept)")
        for axis in (losses, scores):
            axis.legend(fontsize="small", ncols=2 if len(results) > 2 else 1)


def _mark_best(axis: "Axes", results: list[SeedResult], metric: str) -> None:
    """Write beside the star of each seed what was reached there, where there are few."""
    for result in results if len(results) <= MOST_MARKED else ():
        value = result.metrics[metric]
        place = {"xytext": (-8, 6), "textcoords": "offset points", "ha": "right"}
        axis.annotate(text_of(metric, value), (result.step, value), fontsize=8, **place)
