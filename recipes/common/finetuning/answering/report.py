"""Scores of answers to questions, the files that official evaluation scripts take, and what people look at."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

from weft.recipes.common.files import write_json
from weft.recipes.common.finetuning.answering.reader import Question
from weft.recipes.common.finetuning.answering.spans import Span, no_answer_probability, probabilities
from weft.recipes.metrics import load_metric

HALF = 0.5
NONE = "no answer"
QUESTION_WORDS = {
    "en": {word: (word,) for word in ("what", "who", "when", "where", "which", "why", "how")},
    "zh": {
        "谁": ("谁", "誰"),
        "何时": ("何时", "何時", "什么时候", "什麼時候", "哪年", "哪一年", "哪天"),
        "哪里": ("哪里", "哪裡", "哪儿", "何处", "何處", "在哪"),
        "多少": ("多少", "几", "幾", "多大", "多长", "多高"),
        "为什么": ("为什么", "為什麼", "为何", "為何"),
        "怎么": ("怎么", "怎麼", "怎样", "怎樣", "如何"),
        "哪": ("哪",),
        "什么": ("什么", "什麼", "何"),
    },
}
LENGTHS = (1, 2, 4, 8, 16)  # an answer's length is shown as the range up to the next of these


@dataclass(frozen=True)
class Answered:
    """A question with the best spans of its context, the best first."""

    question: Question
    spans: list[Span]

    @property
    def no_answer(self) -> float:
        """Probability of "no answer" against the best span."""
        return no_answer_probability(self.spans)

    @property
    def best(self) -> str:
        """The best span's text, whatever the probability of "no answer"."""
        return self.spans[0].text if self.spans else ""

    def text(self, threshold: float | None) -> str:
        """The answer: empty where "no answer" is more probable than the threshold; None: always a span."""
        return "" if threshold is not None and self.no_answer > threshold else self.best

    def confidence(self, threshold: float | None) -> float:
        """Probability of what is answered; that of a span among the best ones (None: without "no answer")."""
        if threshold is not None and self.text(threshold) == "":
            return self.no_answer
        among = probabilities(self.spans, with_none=threshold is not None)
        return among[0] if self.spans else 0.0


def score_all(
    answered: Sequence[Answered], language: str, version_2: bool, threshold: float | None, tune: bool
) -> tuple[dict[str, float], float | None]:
    """Exact match and F1 in percent, by the official definitions.

    Args:
        threshold: of the probability of "no answer"; None: 0.5.
        tune: choose it anew, so that F1 is best on these questions.

    Returns:
        exact_match and f1 of all questions and, for version 2, of those with (has_answer_) and without an answer
        (no_answer_); and the threshold.
    """
    references = [_reference(one) for one in answered]
    if not version_2:
        guesses = [{"id": one.question.id, "prediction_text": one.best} for one in answered]
        scores = load_metric("squad").compute(predictions=guesses, references=references, language=language)
        return {name: scores[name] for name in ("exact_match", "f1")}, threshold
    guesses = [_guess_2(one) for one in answered]

    def compute(at: float) -> dict[str, Any]:
        return load_metric("squad_v2").compute(
            predictions=guesses, references=references, no_answer_threshold=at, language=language
        )

    chosen = HALF if threshold is None else threshold
    scores = compute(chosen)
    if tune and scores["best_f1_thresh"] != chosen:
        chosen = scores["best_f1_thresh"]
        scores = compute(chosen)
    found = {"exact_match": scores["exact"], "f1": scores["f1"]}
    for prefix, name in (("HasAns_", "has_answer_"), ("NoAns_", "no_answer_")):
        if f"{prefix}f1" in scores:
            found |= {f"{name}exact_match": scores[f"{prefix}exact"], f"{name}f1": scores[f"{prefix}f1"]}
    return found, chosen


def score_each(answered: Sequence[Answered], language: str, threshold: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of each question, between 0 and 1: [questions] each.

    Args:
        threshold: of the probability of "no answer"; None: version 1, where a span is always the answer.
    """
    # compute() of a Metric writes its input as a table first, which takes long for one question at a time
    metric = load_metric("squad" if threshold is None else "squad_v2")
    exact, f1 = np.zeros(len(answered)), np.zeros(len(answered))
    for number, one in enumerate(answered):
        guess = {"id": one.question.id, "prediction_text": one.text(threshold), "no_answer_probability": None}
        scores = metric._compute([guess], [_reference(one)], language=language)
        exact[number] = scores["exact_match" if threshold is None else "exact"] / 100
        f1[number] = scores["f1"] / 100
    return exact, f1


def write_answers(
    path: Path,
    answered: Sequence[Answered],
    language: str,
    version_2: bool,
    threshold: float | None,
    labelled: bool,
) -> None:
    """Write a table with a row for each question, and beside it, as .json, {id: answer}.

    Args:
        path: of the table.
    """
    at = _threshold(version_2, threshold)
    write_json(path.with_suffix(".json"), {one.question.id: one.text(at) for one in answered})
    _write_table(path, answered, at, score_each(answered, language, at) if labelled else None)


def write_qa_report(
    folder: Path, split: str, answered: Sequence[Answered], language: str, version_2: bool, threshold: float | None
) -> str:
    """Write predictions.csv and .json, nbest.json, na_prob.json (version 2), mistakes.csv and answers.png; returns
    Markdown."""
    at = _threshold(version_2, threshold)
    exact, f1 = score_each(answered, language, at)
    write_json(folder / "predictions.json", {one.question.id: one.text(at) for one in answered})
    _write_table(folder / "predictions.csv", answered, at, (exact, f1))
    write_json(folder / "nbest.json", {one.question.id: _n_best(one, version_2) for one in answered})
    if version_2:
        write_json(folder / "na_prob.json", {one.question.id: one.no_answer for one in answered})
    wrong = sorted(np.flatnonzero(exact == 0), key=lambda number: -answered[number].confidence(at))
    _write_table(folder / "mistakes.csv", [answered[number] for number in wrong], at, (exact[wrong], f1[wrong]))
    groups = {
        "question word": _grouped([_question_word(one.question.question, language) for one in answered]),
        "answer length": _grouped([_length(one.question, language) for one in answered], in_order=_length_names()),
    }
    curve = _threshold_curve(answered, language) if version_2 else None
    _plot(folder / "answers.png", groups, f1, curve, at)
    return _markdown(folder, split, answered, groups, exact, f1, at, language)


def log_odds_at(threshold: float | None) -> str:
    """As Python: the log-odds of a span below which "no answer" is more probable than the threshold."""
    at = HALF if threshold is None else threshold
    if not 0 < at < 1:
        return f'float("{"inf" if at <= 0 else "-inf"}")'
    return f"{math.log1p(-at) - math.log(at):.6g}"


def _threshold(version_2: bool, threshold: float | None) -> float | None:
    if not version_2:
        return None
    return HALF if threshold is None else threshold


def _reference(one: Answered) -> dict[str, Any]:
    texts = [answer.text for answer in one.question.answers]
    return {"id": one.question.id, "answers": {"text": texts, "answer_start": [0] * len(texts)}}


def _guess_2(one: Answered) -> dict[str, Any]:
    return {"id": one.question.id, "prediction_text": one.best, "no_answer_probability": one.no_answer}


def _n_best(one: Answered, version_2: bool) -> list[dict[str, Any]]:
    """Spans and, for version 2, the empty answer, the most probable first."""
    among = probabilities(one.spans, with_none=version_2)
    entries = [
        {"text": span.text, "start": span.start, "probability": share, "score": span.score}
        for span, share in zip(one.spans, among)
    ]
    if version_2:
        entries.append({"text": "", "start": -1, "probability": among[-1], "score": 0.0})
    return sorted(entries, key=lambda entry: -entry["score"])


def _write_table(
    path: Path, answered: Sequence[Answered], at: float | None, scores: tuple[np.ndarray, np.ndarray] | None
) -> None:
    """Args:
    scores: exact match and F1 of each question; None: there are no gold answers.
    """
    columns = ["id", "question", *(["gold"] if scores else []), "predicted", "probability"]
    columns += [*(["no_answer_probability"] if at is not None else []), *(["exact_match", "f1"] if scores else [])]
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        for number, one in enumerate(answered):
            row: list[Any] = [one.question.id, one.question.question]
            if scores:
                row.append(" | ".join(dict.fromkeys(answer.text for answer in one.question.answers)))
            row += [one.text(at), f"{one.confidence(at):.6f}"]
            row += [f"{one.no_answer:.6f}"] if at is not None else []
            row += [int(scores[0][number]), f"{scores[1][number]:.4f}"] if scores else []
            writer.writerow(row)


def _question_word(question: str, language: str) -> str:
    """The first question word of a question; "other" without any."""
    text = question.lower()
    if language == "zh":
        return next((name for name, forms in QUESTION_WORDS["zh"].items() if any(f in text for f in forms)), "other")
    words = (word.strip(".,;:?!\"'()") for word in text.split())
    return next((word for word in words if word in QUESTION_WORDS["en"]), "other")


def _length(question: Question, language: str) -> str:
    """The range of the shortest gold answer's length, in words or Chinese characters."""
    if not question.answers:
        return NONE
    length = min(len(a.text) if language == "zh" else len(a.text.split()) for a in question.answers)
    names = _length_names()
    return next((name for limit, name in zip(LENGTHS, names[1:]) if length <= limit), names[-1])


def _length_names() -> list[str]:
    lows = [1, *(limit + 1 for limit in LENGTHS)]
    ranges = [str(low) if low == high else f"{low}-{high}" for low, high in zip(lows, LENGTHS)]
    return [NONE, *ranges, f"{lows[-1]} and more"]


def _grouped(names: Sequence[str], in_order: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Numbers of the questions of each group, in the given order or the largest group first."""
    groups = {name: np.flatnonzero(np.array(names) == name) for name in dict.fromkeys(names)}
    if in_order is not None:
        return {name: groups[name] for name in in_order if name in groups}
    return dict(sorted(groups.items(), key=lambda group: (group[0] == "other", -len(group[1]))))


def _threshold_curve(answered: Sequence[Answered], language: str) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, rising, and the F1 in percent of all questions at each."""
    _, f1 = score_each(answered, language, math.inf)
    has_answer = np.array([bool(one.question.answers) for one in answered])
    order = np.argsort([one.no_answer for one in answered], kind="stable")
    # from nothing answered on, one question after the other is
    gains = np.where(has_answer, f1, f1 - 1)[order]
    curve = (np.sum(~has_answer) + np.concatenate([[0.0], np.cumsum(gains)])) / len(answered) * 100
    return np.concatenate([[0.0], np.array([one.no_answer for one in answered])[order]]), curve


def _plot(
    path: Path,
    groups: dict[str, dict[str, np.ndarray]],
    f1: np.ndarray,
    curve: tuple[np.ndarray, np.ndarray] | None,
    at: float | None,
) -> None:
    panels = len(groups) + (curve is not None)
    figure, axes = pyplot.subplots(1, panels, figsize=(4.5 * panels, 3.6), layout="constrained")
    for axis, (title, members) in zip(axes, groups.items()):
        # fonts that plots come with have no Han characters
        names = [_ascii(name) for name in members]
        axis.bar(range(len(names)), [100 * f1[numbers].mean() for numbers in members.values()])
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.set(title=f"by {title}", ylabel="F1 (%)", ylim=(0, 108))
        for place, numbers in enumerate(members.values()):
            axis.text(place, 100 * f1[numbers].mean() + 1, f"{len(numbers)}", ha="center", va="bottom", fontsize=7)
    if curve is not None:
        axes[-1].step(curve[0], curve[1], where="post")
        axes[-1].axvline(at, color="grey", linestyle="--", label="chosen")
        axes[-1].set(
            title="by threshold", xlabel='probability of "no answer" above which none is given', ylabel="F1 (%)"
        )
        axes[-1].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


_ENGLISH = {
    **{"谁": "who", "何时": "when", "哪里": "where", "多少": "how many", "为什么": "why", "怎么": "how", "哪": "which"},
    "什么": "what",
}


def _ascii(name: str) -> str:
    return _ENGLISH.get(name, name)


def _markdown(
    folder: Path,
    split: str,
    answered: Sequence[Answered],
    groups: dict[str, dict[str, np.ndarray]],
    exact: np.ndarray,
    f1: np.ndarray,
    at: float | None,
    language: str,
) -> str:
    place = f"{split}/" if folder.name == split else ""
    unit = "characters" if language == "zh" else "words"
    lines = []
    if at is not None:
        chosen = "chosen on these questions" if split == "validation" else "chosen on the validation questions"
        lines += [f"No answer is given where its probability is above {at:.4f}, {chosen}.", ""]
    for title, members in groups.items():
        heading = f"answer length ({unit})" if title == "answer length" else title
        lines += [f"| {heading} | questions | exact match | F1 |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| {name} | {len(numbers):,} | {100 * exact[numbers].mean():.2f} | {100 * f1[numbers].mean():.2f} |"
            for name, numbers in members.items()
        ]
        lines.append("")
    lines += [
        f"![F1 by question word and answer length]({place}answers.png)",
        "",
        f"`{place}mistakes.csv` lists the {int((exact == 0).sum()):,} of {len(answered):,} questions whose answer is "
        "not exactly a gold one, the most confident first. `predictions.json`"
        + (" and `na_prob.json` are" if at is not None else " is")
        + " in the form that the official evaluation scripts read; `nbest.json` holds the runners-up.",
    ]
    return "\n".join(lines)
