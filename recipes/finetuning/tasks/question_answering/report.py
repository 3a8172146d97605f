"""Answers to questions as files: those that official evaluation scripts take, and what people look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weft.recipes.common.files import write_json
from weft.recipes.common.markdown import table
from weft.recipes.finetuning.report_files import place_of, write_csv
from weft.recipes.finetuning.tasks.question_answering.groups import group_questions, in_latin
from weft.recipes.finetuning.tasks.question_answering.scoring import (
    Answered,
    score_each,
    threshold_curve,
    threshold_used,
)
from weft.recipes.finetuning.tasks.question_answering.spans import probabilities
from weft.recipes.training.figures import panels


def write_answers(
    path: Path,
    answered: Sequence[Answered],
    language: str,
    version_2: bool,
    threshold: float | None,
    labelled: bool,
) -> None:
    """Write a table with a row for each question, and beside it, as .json, {id: answer}."""
    at = threshold_used(version_2, threshold)
    write_json(path.with_suffix(".json"), {one.question.id: one.text(at) for one in answered})
    _write_table(path, answered, at, score_each(answered, language, at) if labelled else None)


def write_qa_report(
    folder: Path, split: str, answered: Sequence[Answered], language: str, version_2: bool, threshold: float | None
) -> str:
    """Write predictions.csv and .json, nbest.json, na_prob.json (version 2), mistakes.csv and answers.png; returns
    Markdown."""
    at = threshold_used(version_2, threshold)
    exact, f1 = score_each(answered, language, at)
    write_json(folder / "predictions.json", {one.question.id: one.text(at) for one in answered})
    _write_table(folder / "predictions.csv", answered, at, (exact, f1))
    write_json(folder / "nbest.json", {one.question.id: _n_best(one, version_2) for one in answered})
    if version_2:
        write_json(folder / "na_prob.json", {one.question.id: one.no_answer for one in answered})
    wrong = sorted(np.flatnonzero(exact == 0), key=lambda number: -answered[number].confidence(at))
    _write_table(folder / "mistakes.csv", [answered[number] for number in wrong], at, (exact[wrong], f1[wrong]))
    groups = group_questions([one.question for one in answered], language)
    curve = threshold_curve(answered, language) if version_2 else None
    _plot(folder / "answers.png", groups, f1, curve, at)
    return _markdown(folder, split, answered, groups, exact, f1, at, language)


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
    rows = []
    for number, one in enumerate(answered):
        row: list[Any] = [one.question.id, one.question.question]
        if scores:
            row.append(" | ".join(dict.fromkeys(answer.text for answer in one.question.answers)))
        row += [one.text(at), f"{one.confidence(at):.6f}"]
        row += [f"{one.no_answer:.6f}"] if at is not None else []
        row += [int(scores[0][number]), f"{scores[1][number]:.4f}"] if scores else []
        rows.append(row)
    write_csv(path, columns, rows)


def _plot(
    path: Path,
    groups: dict[str, dict[str, np.ndarray]],
    f1: np.ndarray,
    curve: tuple[np.ndarray, np.ndarray] | None,
    at: float | None,
) -> None:
    columns = len(groups) + (curve is not None)
    with panels(path, (4.5 * columns, 3.6), columns) as axes:
        for axis, (title, members) in zip(axes, groups.items()):
            names = [in_latin(name) for name in members]
            axis.bar(range(len(names)), [100 * f1[numbers].mean() for numbers in members.values()])
            axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
            axis.set(title=f"by {title} (and how many)", ylabel="F1 (%)", ylim=(0, 118))
            for place, numbers in enumerate(members.values()):
                score = 100 * f1[numbers].mean()
                text = f"{score:.0f}\n({len(numbers):,})"
                axis.text(place, score + 1, text, ha="center", va="bottom", fontsize=7)
        if curve is not None:
            axes[-1].step(curve[0], curve[1], where="post")
            axes[-1].axvline(at, color="grey", linestyle="--", label="chosen")
            says = 'probability of "no answer" above which none is given'
            axes[-1].set(title="by threshold", xlabel=says, ylabel="F1 (%)", ylim=(0, 105))
            axes[-1].legend()


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
    place = place_of(folder, split)
    unit = "words" if language == "en" else "characters"
    lines = []
    if at is not None:
        chosen = "chosen on these questions" if split == "validation" else "chosen on the validation questions"
        lines += [f"No answer is given where its probability is above {at:.4f}, {chosen}.", ""]
    for title, members in groups.items():
        heading = f"answer length ({unit})" if title == "answer length" else title
        rows = [
            (name, f"{len(numbers):,}", f"{100 * exact[numbers].mean():.2f}", f"{100 * f1[numbers].mean():.2f}")
            for name, numbers in members.items()
        ]
        lines += [table((heading, "questions", "exact match", "F1"), rows), ""]
    lines += [
        f"![F1 by question word and answer length]({place}answers.png)",
        "",
        f"`{place}mistakes.csv` lists the {int((exact == 0).sum()):,} of {len(answered):,} questions whose answer is "
        "not exactly a gold one, the most confident first. `predictions.json`"
        + (" and `na_prob.json` are" if at is not None else " is")
        + " in the form that the official evaluation scripts read; `nbest.json` holds the runners-up.",
    ]
    return "\n".join(lines)
