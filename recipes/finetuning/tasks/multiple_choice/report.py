"""What a multiple-choice model chose: tables, and whether its probabilities can be believed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weft.recipes.common.markdown import table
from weft.recipes.finetuning.plots import faded
from weft.recipes.finetuning.report_files import place_of, write_csv
from weft.recipes.finetuning.tasks.multiple_choice.reading import ChoiceExample
from weft.recipes.metrics import load_metric
from weft.recipes.training.figures import panels

BINS = 10  # of confidence, in the plot


def write_choice_table(path: Path, examples: Sequence[ChoiceExample], results: Sequence[np.ndarray]) -> None:
    """Write a row for each example: prompt, right and chosen text, and the probability of each choice.

    Args:
        results: for each example, log-probabilities [choices].
    """
    most = max((len(result) for result in results), default=0)
    labelled = any(example.gold is not None for example in examples)
    columns = ["example", "prompt", *(["gold"] if labelled else []), "predicted", *(["right"] if labelled else [])]
    rows = []
    for example, result in zip(examples, results, strict=True):
        chosen = int(result.argmax())
        row: list[Any] = [example.where, example.prompt]
        row += [example.texts[example.gold]] if example.gold is not None else []
        row.append(example.texts[chosen])
        row += [int(chosen == example.gold)] if example.gold is not None else []
        shares = [f"{share:.6f}" for share in np.exp(result)]
        rows.append([*row, *shares, *[""] * (most - len(shares))])
    write_csv(path, [*columns, *(f"probability_{choice}" for choice in range(most))], rows)


def write_choice_report(
    folder: Path, split: str, examples: Sequence[ChoiceExample], results: Sequence[np.ndarray]
) -> str:
    """Write predictions.csv, mistakes.csv and choices.png; returns Markdown."""
    write_choice_table(folder / "predictions.csv", examples, results)
    confidence = np.array([float(np.exp(result.max())) for result in results])
    right = np.array([int(result.argmax()) == example.gold for example, result in zip(examples, results)])
    numbers = np.array([len(result) for result in results])
    wrong = sorted(np.flatnonzero(~right), key=lambda number: -confidence[number])
    write_choice_table(
        folder / "mistakes.csv", [examples[number] for number in wrong], [results[number] for number in wrong]
    )
    most = int(numbers.max())
    # in float64, since they have to add up to 1; a choice that an example has not has probability 0
    shares = np.zeros((len(results), most))
    for row, result in zip(shares, results):
        row[: len(result)] = np.exp(result.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    gold = [example.gold for example in examples]
    calibration = load_metric("calibration").compute(predictions=shares.tolist(), references=gold)
    _plot(folder / "choices.png", confidence, right, numbers)
    place = place_of(folder, split)
    rows = [
        (number, f"{(numbers == number).sum():,}", f"{right[numbers == number].mean():.4f}", f"{1 / number:.4f}")
        for number in sorted(set(numbers.tolist()))
    ]
    lines = [table(("choices", "examples", "accuracy", "by chance"), rows)]
    lines += [
        "",
        f"![Accuracy by confidence and by number of choices]({place}choices.png)",
        "",
        f"Expected calibration error {calibration['ece']:.4f}. `{place}mistakes.csv` lists the {len(wrong):,} of "
        f"{len(examples):,} examples that the model gets wrong, the most confident first.",
    ]
    return "\n".join(lines)


def _plot(path: Path, confidence: np.ndarray, right: np.ndarray, numbers: np.ndarray) -> None:
    """Accuracy over confidence and, where examples differ in it, over the number of choices."""
    counts = sorted(set(numbers.tolist()))
    columns = 2 if len(counts) > 1 else 1
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    filled = [number for number in range(BINS) if (bins == number).any()]
    means = [(confidence[bins == number].mean(), right[bins == number].mean()) for number in filled]
    with panels(path, (4.5 * columns, 3.8), columns) as axes:
        axes[0].plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
        sizes = np.array([(bins == number).sum() for number in filled])
        axes[0].scatter(*zip(*means), s=20 + 180 * sizes / len(bins), c=[("tab:blue", alpha) for alpha in faded(sizes)])
        for (x, y), size in zip(means, sizes):
            axes[0].annotate(f"{size:,}", (x, y), (0, 7), textcoords="offset points", ha="center", fontsize=7)
        axes[0].set(xlabel="probability of the chosen one", ylabel="accuracy", title="calibration")
        axes[0].set(xlim=(0, 1.02), ylim=(0, 1.08))
        for axis in axes[1:]:
            shares = [right[numbers == number].mean() for number in counts]
            axis.bar(range(len(counts)), shares)
            for place, share in enumerate(shares):
                axis.text(place, share + 0.01, f"{share:.2f}", ha="center", va="bottom", fontsize=8)
            axis.plot(range(len(counts)), [1 / number for number in counts], "k_", markersize=30, label="by chance")
            axis.set_xticks(range(len(counts)), counts)
            axis.set(xlabel="choices", ylabel="accuracy", ylim=(0, 1.08), title="by number of choices")
            axis.legend()
