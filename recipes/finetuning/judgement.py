"""Whether a finished run's scores mean anything: against what needs no model, and by how many examples they rest on."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from weft.recipes.common.wording import counted
from weft.recipes.finetuning.best_weights import evaluations_of
from weft.recipes.finetuning.task import Items, ScoredTask
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training.jackknife import jackknife_error
from weft.recipes.training.learning_curve import curve_notes
from weft.recipes.training.metric_format import text_of, words_of

SURE = 0.95  # of an interval
PARTS, PARTS_OF_MANY, MANY = 20, 10, 1000  # of a split, each left out once; fewer of more examples, for time's sake
WIDEST = 0.2  # interval of a score that is known well, as a share of the highest one there can be
FEWEST = 100  # examples, of a metric without limits
PERFECT = 0.01  # of the range, below its end: from here on a loss that falls says nothing
SHARES = ("accuracy", "exact_match", "subset_accuracy", "subset_accuracy_tuned")  # of the examples that are right
INCOMPARABLE = ("loss", "ece")  # a baseline has no confidence of its own
Interval, Scores = tuple[float, float], Mapping[str, float]


@dataclass(frozen=True)
class SplitJudgement:
    """What the scores of a split are to be held against.

    Attributes:
        examples: how many the split has.
        interval: in which the metric that chooses the weights would lie for other examples like these, 19 times out of
            20; None where that cannot be said.
        baselines: for each what it does ("answer") and its scores.
    """

    examples: int
    interval: Interval | None
    baselines: list[dict[str, Any]]


class Judge:
    """Judges the splits of a run one after another, the one first whose scores tune what the others are scored with."""

    def __init__(self, task: ScoredTask, learnt: Items) -> None:
        """Args:
        learnt: the training items that have a target.
        """
        self.task, self.learnt = task, learnt
        self.trials: dict[str, ScoredTask] = {}  # for each baseline a task of its own, with thresholds tuned for it

    def of_split(self, split: str, items: Items, results: Sequence[Any], scores: Scores) -> SplitJudgement:
        """Judge a labelled split.

        Args:
            results, scores: the model's.
        """
        metric = self.task.best_metric.name
        interval = interval_of(self.task, split, items, results, metric, scores.get(metric, math.nan))
        return SplitJudgement(self.task.splits[split], interval, self._baselines(split, items))

    def _baselines(self, split: str, items: Items) -> list[dict[str, Any]]:
        found = []
        for baseline in self.task.baselines(split, items, self.learnt):
            scores = dict(baseline.scores)
            if baseline.results is not None:
                trial = self.trials.setdefault(baseline.answer, copy.copy(self.task))
                scores |= trial.score(split, items, baseline.results)
            known = {name: value for name, value in scores.items() if name not in INCOMPARABLE and math.isfinite(value)}
            found.append({"answer": baseline.answer, **known})
        return found


def interval_of(
    task: ScoredTask, split: str, items: Items, results: Sequence[Any], metric: str, value: float
) -> Interval | None:
    """The 95% confidence interval of a metric over the examples of a split.

    Of a share of the examples it is Wilson's. Of any other metric the split is scored without each twentieth of it (of
    more than 1,000 examples each tenth), see `jackknife_error`. That takes a metric as it is, whatever it is computed
    from.
    """
    examples, limits = task.splits[split], task.range_of(metric)
    if not math.isfinite(value) or examples < 4:
        return None
    if metric in SHARES and limits is not None:
        right = value / limits[1] * examples
        if math.isclose(right, round(right), abs_tol=1e-6):  # else a share of words
            return _wilson(round(right), examples, limits[1])
    parts = min(PARTS if examples <= MANY else PARTS_OF_MANY, examples)
    without = [_score_without(task, split, items, results, metric, part, parts) for part in range(parts)]
    if not np.isfinite(without).all():
        return None
    if min(without) == max(without):  # such as 0
        return _wilson(round(value / limits[1] * examples), examples, limits[1]) if limits and value >= 0 else None
    from scipy import stats  # at the end of a run only

    reach = float(stats.t.ppf((1 + SURE) / 2, parts - 1)) * jackknife_error(without)
    is_error = not task.best_metric.greater_is_better  # which is 0 at least
    low, high = limits or (0.0 if is_error else -math.inf, math.inf)
    return max(low, value - reach), min(high, value + reach)


def _wilson(right: int, examples: int, highest: float) -> Interval:
    from scipy import stats  # at the end of a run only

    found = stats.binomtest(right, examples).proportion_ci(SURE, method="wilson")
    return float(found.low) * highest, float(found.high) * highest


def _score_without(
    task: ScoredTask, split: str, items: Items, results: Sequence[Any], metric: str, part: int, parts: int
) -> float:
    """The metric of a split without one example of every `parts`, the one at place `part`."""
    rest, examples = copy.copy(task), task.examples[split]
    kept = [number for number in range(len(examples)) if number % parts != part]
    number_of = {number: place for place, number in enumerate(kept)}
    rest.examples = {**task.examples, split: [examples[number] for number in kept]}
    pairs = [
        (replace(item, example=number_of[item.example]), result)
        for item, result in zip(items, results, strict=True)
        if item.example in number_of
    ]
    if not pairs:
        return math.nan
    return rest.score(split, *map(list, zip(*pairs))).get(metric, math.nan)


def closing_figures(task: ScoredTask, scores: Scores, judged: SplitJudgement) -> str:
    """The scores of the headline, each with what a baseline reaches, the first that chooses the weights with its
    interval too."""
    metric, best = task.best_metric.name, best_baseline(task, judged)
    figures = []
    for name in (name for name in task.headline if name in scores):
        beside = []
        if name == metric:
            if judged.interval is not None:
                low, high = (text_of(name, limit) for limit in judged.interval)
                beside.append(f"{SURE:.0%} interval {low} to {high}")
            beside += [f"{one['answer']}: {text_of(name, one[name])}" for one in judged.baselines if name in one]
        elif best is not None and name in best:
            beside.append(f"baseline {text_of(name, best[name])}")
        figures.append(
            f"{words_of(name)} {text_of(name, scores[name])}" + (f" ({'; '.join(beside)})" if beside else "")
        )
    return "; ".join(figures)


def best_baseline(task: ScoredTask, judged: SplitJudgement) -> dict[str, Any] | None:
    """The baseline with the best metric; None where there is none."""
    best, metric = None, task.best_metric
    for one in judged.baselines:
        if metric.name in one and metric.is_better(one[metric.name], None if best is None else best[metric.name]):
            best = one
    return best


def notes_of(
    task: ScoredTask,
    remarks: Sequence[str],
    scores: Scores,
    judged: SplitJudgement,
    settings: Mapping[str, Any],
    best: SeedResult,
) -> list[str]:
    """What a reader should know before the scores are relied on, each with the fields that help.

    Args:
        remarks, scores, judged: of the validation split.
        settings: all fields of the run.
        best: the seed whose model is published.
    """
    useless = [*remarks, *_no_better(task, scores, judged)]
    found = [f"{'; '.join(useless)}: {_help(settings)}"] if useless else _few(task, scores, judged, settings)
    return [*found, *_curve(task, settings, best)]


def _no_better(task: ScoredTask, scores: Scores, judged: SplitJudgement) -> list[str]:
    baseline, metric = best_baseline(task, judged), task.best_metric
    if baseline is None or metric.is_better(scores[metric.name], baseline[metric.name]):
        return []
    reached = text_of(metric.name, baseline[metric.name])
    return [f"{words_of(metric.name)} is no better than without a model ({baseline['answer']}: {reached})"]


def _help(settings: Mapping[str, Any]) -> str:
    pretrained = "" if settings.get("model_name_or_path") else ", or from a pretrained model (model_name_or_path)"
    return f"train longer ({_length(settings)}), on more examples, with another learning_rate{pretrained}"


def _few(task: ScoredTask, scores: Scores, judged: SplitJudgement, settings: Mapping[str, Any]) -> list[str]:
    metric, interval, baseline = task.best_metric, judged.interval, best_baseline(task, judged)
    limits, name = task.range_of(metric.name), words_of(metric.name)
    examples, are = counted(judged.examples, "validation example"), "is" if judged.examples == 1 else "are"
    if interval and baseline and interval[0] <= (reached := baseline[metric.name]) <= interval[1]:
        value, other = text_of(metric.name, scores[metric.name]), text_of(metric.name, reached)
        return [f"{examples} {are} too few to tell {name} {value} from the {other} without a model: {_more(settings)}"]
    if interval is not None and limits is not None:
        is_known = interval[1] - interval[0] <= WIDEST * limits[1]
    else:
        is_known = judged.examples >= FEWEST
    if is_known:
        return []
    return [f"{examples} {are} few, so that {name} is known roughly only: {_more(settings)}"]


def _curve(task: ScoredTask, settings: Mapping[str, Any], best: SeedResult) -> list[str]:
    training = [(entry["step"], entry["loss"]) for entry in best.history if "loss" in entry]
    validation = [(one.step, one.scores["loss"]) for one in evaluations_of(best.history)]
    limits, metric = task.range_of(task.best_metric.name), best.metrics[task.best_metric.name]
    is_perfect = limits is not None and metric >= limits[1] - PERFECT * (limits[1] - limits[0])
    is_last = bool(validation) and best.step == validation[-1][0]
    length = _length(settings)
    kept = (
        f"the weights of step {best.step:,} are kept: train less ({length}, patience), with a lower learning_rate, or "
        "on more examples"
    )
    return curve_notes(training, validation, "validation loss", kept, length if is_last and not is_perfect else None)


def _length(settings: Mapping[str, Any]) -> str:
    return "max_steps" if settings.get("max_steps") else "num_train_epochs"


def _more(settings: Mapping[str, Any]) -> str:
    if any(settings.get(name) for name in ("validation_file", "validation_source")):
        return "give more of them in validation_file"
    own = settings.get("task") is None
    return (
        "give more (validation_file, or a larger validation_fraction)" if own else "compare the mean of several seeds"
    )
