"""The learning curves of a fine-tuning run, one for each seed."""

from pathlib import Path

from weft.recipes.finetuning.best_weights import evaluations_of
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training.figures import stacked_panels
from weft.recipes.training.metric_format import words_of


def plot_seeds(results: list[SeedResult], metric: str, path: Path) -> None:
    """Draw training and validation loss, and the metric that chooses the weights, over steps, for every seed."""
    with stacked_panels(path, (8, 7), (1, 1)) as (losses, scores):
        for number, result in enumerate(results):
            colour, name = f"C{number}", f"seed {result.seed}"
            trained = [(entry["step"], entry["loss"]) for entry in result.history if "loss" in entry]
            validated = [(one.step, one.scores["loss"]) for one in evaluations_of(result.history)]
            if trained:
                losses.plot(*zip(*trained), color=colour, linewidth=1, alpha=0.5, label=f"{name}, training")
            losses.plot(*zip(*validated), "o-", color=colour, markersize=3, label=f"{name}, validation")
            reached = [(one.step, one.scores[metric]) for one in evaluations_of(result.history)]
            scores.plot(*zip(*reached), "o-", color=colour, markersize=3, label=name)
            scores.plot([result.step], [result.metrics[metric]], "*", color=colour, markersize=12)
        losses.set_ylabel("loss")
        scores.set_ylabel(words_of(metric))
        scores.set_xlabel("step (a star marks the weights that were kept)")
        for axis in (losses, scores):
            axis.legend(fontsize="small")
