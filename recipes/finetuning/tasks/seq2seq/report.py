"""What a text-to-text model wrote: tables, plain lines, and the best and the worst of them."""

from collections.abc import Sequence
from pathlib import Path

from weft.recipes.common.markdown import table
from weft.recipes.finetuning.report_files import place_of, write_csv
from weft.recipes.finetuning.tasks.seq2seq.reading import TextPair
from weft.recipes.finetuning.tasks.seq2seq.scoring import chrf_of_each

SHOWN, LONGEST = 3, 300  # examples at each end, and characters of a text, in the card


def write_texts(
    path: Path, pairs: Sequence[TextPair], texts: Sequence[str], chrf: Sequence[float] | None = None
) -> None:
    """A row for each pair, with a column for each reference, and beside it a .txt file with the texts alone, a line
    each."""
    most = max((len(pair.targets) for pair in pairs), default=0)
    targets = ["target", *(f"target_{number}" for number in range(2, most + 1))][:most]
    rows = []
    for number, (pair, text) in enumerate(zip(pairs, texts, strict=True)):
        missing = [""] * (most - len(pair.targets))
        scores = [f"{chrf[number]:.2f}"] if chrf is not None else []
        rows.append([pair.where, pair.source, *pair.targets, *missing, text, *scores])
    write_csv(path, ["example", "source", *targets, "output", *(["chrf"] if chrf is not None else [])], rows)
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    path.with_suffix(".txt").write_text(lines, encoding="utf-8")


def write_seq2seq_report(
    folder: Path, split: str, pairs: Sequence[TextPair], texts: Sequence[str], signatures: dict[str, str]
) -> str:
    """Write predictions.csv and predictions.txt; returns Markdown.

    Args:
        signatures: how scores were computed, by their names.
    """
    chrf = chrf_of_each(texts, [pair.targets for pair in pairs])
    write_texts(folder / "predictions.csv", pairs, texts, chrf)
    place = place_of(folder, split)
    order = sorted(range(len(texts)), key=lambda number: chrf[number])
    shown = min(SHOWN, len(order) // 2)
    chosen = {"worst": order[:shown], "best": order[::-1][:shown]}
    rows = [
        (name, f"{chrf[number]:.1f}", pairs[number].source, pairs[number].targets[0], texts[number])
        for name, numbers in chosen.items()
        for number in numbers
    ]
    return "\n".join(
        [
            *(f"{name}: `{signature}`  " for name, signature in signatures.items()),
            "",
            f"The worst and the best by chrF; `{place}predictions.csv` holds all {len(texts):,}.",
            "",
            table(("", "chrF", "source", "target", "output"), rows, LONGEST),
        ]
    )
