"""What a finished classification run tells its readers: tables of answers and mistakes, and plots."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from weft.recipes.common.files import write_json
from weft.recipes.common.markdown import table
from weft.recipes.finetuning import plots
from weft.recipes.finetuning.report_files import place_of, write_csv
from weft.recipes.finetuning.tasks.text_classification.known_task import MULTI, REGRESSION
from weft.recipes.metrics import load_metric

LABELS_IN_TABLE, MOST_LABELS = 150, 60
THRESHOLDS = "thresholds.json"


@dataclass(frozen=True)
class Answers:
    """What a model says of the examples of a split.

    Attributes:
        text_columns, names: of the texts and of the labels.
        texts: of each example.
        gold: the right label of each; None without labels.
        probabilities: [examples, labels]; of a regression the number itself, [examples, 1].
        thresholds: [labels], from where on one of several labels holds.
        separator: what stands between several labels.
    """

    problem_type: str
    text_columns: tuple[str, ...]
    names: tuple[str, ...]
    texts: list[tuple[str, ...]]
    gold: list[Any]
    probabilities: np.ndarray
    thresholds: np.ndarray
    separator: str

    @cached_property
    def predicted(self) -> list[Any]:
        """The name of the label, the names of several, or the number."""
        if self.problem_type == REGRESSION:
            return [float(number) for number in self.probabilities[:, 0]]
        if self.problem_type == MULTI:
            return [
                tuple(n for n, holds in zip(self.names, row) if holds) for row in self.probabilities >= self.thresholds
            ]
        return [self.names[number] for number in self.probabilities.argmax(-1)]

    @cached_property
    def gold_numbers(self) -> np.ndarray:
        """Class numbers [examples], of several labels 0 or 1 [examples, labels], of a regression numbers [examples]."""
        if self.problem_type == REGRESSION:
            return np.array(self.gold, dtype=float)
        if self.problem_type == MULTI:
            return np.array([[int(name in label) for name in self.names] for label in self.gold])
        return np.array([self.names.index(label) for label in self.gold])

    @cached_property
    def confidence_of_mistakes(self) -> np.ndarray:
        """How sure the model is where it is wrong [examples], and 0 where it is right.

        The probability of the wrong label; of several labels the largest distance of one that is wrong from 0 or 1; of
        a regression the distance from the right number.
        """
        if self.problem_type == REGRESSION:
            return np.abs(self.probabilities[:, 0] - self.gold_numbers)
        if self.problem_type == MULTI:
            wrong = (self.probabilities >= self.thresholds) != self.gold_numbers
            return (np.abs(self.probabilities - self.gold_numbers) * wrong).max(-1)
        wrong = self.probabilities.argmax(-1) != self.gold_numbers
        return self.probabilities.max(-1) * wrong

    def text_of(self, label: Any) -> str:
        """A label as the tables show it."""
        if isinstance(label, tuple):
            return self.separator.join(label)
        return f"{label:.6g}" if isinstance(label, float) else label


def write_predictions(path: Path, answers: Answers, order: Iterable[int] | None = None) -> None:
    """A row for each example, in the order given: its texts, the right label where it is known, the predicted one, and
    the probability of each label."""
    labelled = answers.gold[0] is not None
    classes = answers.problem_type != REGRESSION
    header = [*answers.text_columns, *(["gold"] if labelled else []), "predicted"]
    header += [f"probability of {name}" for name in answers.names] if classes else []
    rows = []
    for number in range(len(answers.texts)) if order is None else order:
        row = [*answers.texts[number]]
        row += [answers.text_of(answers.gold[number])] if labelled else []
        row.append(answers.text_of(answers.predicted[number]))
        rows.append(row + ([f"{p:.6f}" for p in answers.probabilities[number]] if classes else []))
    write_csv(path, header, rows)


def write(folder: Path, split: str, answers: Answers) -> str:
    """Write predictions.csv, mistakes.csv and the plots of a labelled split; give Markdown about them.

    Args:
        folder: the run's for "validation", and its subfolder that is named after the split for any other.
    """
    place = place_of(folder, split)
    write_predictions(folder / "predictions.csv", answers)
    confidence = answers.confidence_of_mistakes
    mistakes = [int(n) for n in np.argsort(-confidence, kind="stable") if confidence[n] > 0]
    write_predictions(folder / "mistakes.csv", answers, mistakes)
    number = len(answers.texts)
    lines = [f"`{place}predictions.csv` holds all {number:,} {split} examples."]
    if answers.problem_type == REGRESSION:
        lines[0] += f" `{place}mistakes.csv` holds them by their error, the largest first."
        plots.plot_scatter(folder / "scatter.png", answers.gold_numbers, answers.probabilities[:, 0])
        return "\n".join([*lines, "", f"![predicted and right numbers]({place}scatter.png)"])
    lines[0] += f" `{place}mistakes.csv` holds the {len(mistakes):,} mistakes, the most confident first."
    lines += ["", *_table(answers), ""]
    if answers.problem_type == MULTI:
        thresholds = dict(zip(answers.names, answers.thresholds.tolist()))
        write_json(folder / THRESHOLDS, {"tuned_on": "validation", "thresholds": thresholds})
        lines.append(
            "A label holds from a probability on that gives the best F1 on the validation examples (`thresholds.json`)"
            + (", which these scores are therefore a little too good for." if split == "validation" else ".")
        )
        _plot_labels(folder / "label_scores.png", answers)
        return "\n".join([*lines, "", f"![F1 of each label]({place}label_scores.png)"])
    predicted = answers.probabilities.argmax(-1)
    counts = np.zeros((len(answers.names),) * 2, dtype=int)
    np.add.at(counts, (answers.gold_numbers, predicted), 1)
    plots.plot_confusion(folder / "confusion_matrix.png", answers.names, counts)
    scores = load_metric("calibration").compute(
        predictions=answers.probabilities.tolist(), references=answers.gold_numbers.tolist()
    )
    right = predicted == answers.gold_numbers
    plots.plot_calibration(folder / "calibration.png", answers.probabilities.max(-1), right, scores["ece"])
    lines += [f"![confusion matrix]({place}confusion_matrix.png)", "", f"![calibration]({place}calibration.png)"]
    return "\n".join(lines)


def _scores(answers: Answers) -> dict[str, list[float]]:
    """Precision, recall, F1 and support of each label."""
    if answers.problem_type == MULTI:
        held, gold = answers.probabilities >= answers.thresholds, answers.gold_numbers
        columns = list(zip(held.T.astype(int), gold.T))
        found = [
            load_metric("f1").compute(predictions=p.tolist(), references=y.tolist(), average=None, labels=[1])
            for p, y in columns
        ]
        scores = {name: [f[name][0] for f in found] for name in ("precision", "recall", "f1")}
        return {**scores, "support": gold.sum(0).tolist()}
    labels = list(range(len(answers.names)))
    found = load_metric("f1").compute(
        predictions=answers.probabilities.argmax(-1).tolist(),
        references=answers.gold_numbers.tolist(),
        average=None,
        labels=labels,
    )
    support = np.bincount(answers.gold_numbers, minlength=len(labels)).tolist()
    return {**{name: found[name] for name in ("precision", "recall", "f1")}, "support": support}


def _table(answers: Answers) -> list[str]:
    scores = _scores(answers)
    rows = [
        (
            number,
            name,
            *(f"{scores[key][number]:.3f}" for key in ("precision", "recall", "f1")),
            f"{scores['support'][number]:,}",
        )
        for number, name in enumerate(answers.names[:LABELS_IN_TABLE])
    ]
    lines = [table(("", "label", "precision", "recall", "F1", "examples"), rows)]
    if len(answers.names) > LABELS_IN_TABLE:
        lines += ["", f"(the first {LABELS_IN_TABLE} of {len(answers.names)} labels)"]
    return lines


def _plot_labels(path: Path, answers: Answers) -> None:
    """F1 of each label, the best on top; of more than 60 labels the 60 worst."""
    names, f1 = answers.names, _scores(answers)["f1"]
    order = sorted(range(len(names)), key=lambda number: (f1[number], number))[:MOST_LABELS]
    title = f"the {len(order)} worst of {len(names)} labels" if len(order) < len(names) else ""
    plots.plot_scores(path, [names[number] for number in order], [f1[number] for number in order], title, order)
