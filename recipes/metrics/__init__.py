"""Metrics that come with the recipes and need no network.

Each lives in a folder of its own as one `evaluate.Metric`, so `evaluate.load("recipes/metrics/f1")` works from a
checkout, and a folder copied with its links followed (`cp -rL`) works anywhere. evaluate takes along files of that
folder alone: what several metrics share stands here once, and each of their folders has a link to it. Recipes call
`load_metric("f1")`, which copies and writes nothing.

An undefined score (no example, one class only, a constant prediction ...) is a plain number that each metric documents
and that never beats a defined score by being lucky; the result then holds "undefined", sentences that say what and why.
"""

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weft.recipes.common.errors import RecipeError

if TYPE_CHECKING:
    import evaluate


@dataclass(frozen=True)
class Headline:
    """The one number of a metric's result by which models are compared."""

    key: str
    greater_is_better: bool = True


HEADLINES = {
    "accuracy": Headline("accuracy"),
    "bleu": Headline("bleu"),
    "calibration": Headline("ece", greater_is_better=False),
    "chrf": Headline("chrf"),
    "f1": Headline("f1"),
    "matthews": Headline("matthews_correlation"),
    "multilabel": Headline("f1_micro"),
    "pearson_spearman": Headline("spearmanr"),
    "pearsonr": Headline("pearsonr"),
    "perplexity": Headline("perplexity", greater_is_better=False),
    "rouge": Headline("rougeL"),
    "seqeval": Headline("f1"),
    "spearmanr": Headline("spearmanr"),
    "squad": Headline("f1"),
    "squad_v2": Headline("f1"),
}
METRICS = tuple(HEADLINES)


def load_metric(name: str) -> "evaluate.Metric":
    """A new instance of a metric, which keeps what it is given in memory.

    Raises:
        RecipeError: an unknown name, or a library that the metric needs is not installed.
    """
    if name not in HEADLINES:
        near = difflib.get_close_matches(name, METRICS, n=1)
        raise RecipeError(
            f"there is no metric {name!r}: choose one of {', '.join(METRICS)}."
            + (f" Did you mean {near[0]!r}?" if near else "")
        )
    try:
        from evaluate.loading import import_main_class

        metric_class = import_main_class(f"{__name__}.{name}.{name}")
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        raise RecipeError(
            f"the metric {name!r} needs {library}, which is not installed: pip install {library}."
        ) from error

    class InMemory(metric_class):
        """evaluate creates a cache folder even for a metric that keeps everything in memory."""

        def _build_data_dir(self) -> str:
            return ""

    InMemory.__name__ = metric_class.__name__  # evaluate names the metric after its class
    return InMemory(keep_in_memory=True)
