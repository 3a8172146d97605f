"""The table and the picture of baselines.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.recipes.common.markdown import table
from weft.recipes.training.figures import panels

TABLE, PICTURE = "README.md", "baselines.png"
HEADER = ("model", "bits/byte", "perplexity", "tokens seen", "passes", "training, s", "size", "", "on disk, MB")


@dataclass(frozen=True)
class Result:
    """What became of a model.

    Attributes:
        loss: nats per token of the held-out text, end tokens included; perplexity is its exponential.
        bits_per_byte: of the held-out text.
        tokens: that it saw in training, in so many `passes` over the text.
        seconds: of training.
        size: how many numbers it has learnt, `size_of` what they are.
        bytes_on_disk: of these.
        sample: what it writes.
    """

    model: str
    title: str
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int
    passes: float
    seconds: float
    size: int
    size_of: str
    bytes_on_disk: int
    sample: str

    def told(self) -> str:
        """The result in a line."""
        return (
            f"{self.bits_per_byte:.4f} bits/byte; {self.tokens:,} tokens in {self.seconds:.1f} s; {self.size:,} "
            f"{self.size_of}"
        )

    def cells(self) -> tuple[str, ...]:
        """Its row in the table."""
        numbers = (f"{self.bits_per_byte:.4f}", f"{self.perplexity:,.1f}", f"{self.tokens:,}", f"{self.passes:.2f}")
        rest = (f"{self.seconds:.1f}", f"{self.size:,}", self.size_of, f"{self.bytes_on_disk / 1e6:.1f}")
        return self.title, *numbers, *rest


def as_markdown(results: Sequence[Result], description: dict[str, Any], row: int, similarity: str = "") -> str:
    """The page of the results.

    Args:
        description: of the corpus.
        row: tokens that a network sees at most.
        similarity: what is said of the vectors of words.
    """
    training, held_out = description["splits"]["train"], description["splits"]["validation"]
    text = (
        f"The text is {description['source']}: {training['documents']:,} documents of {training['tokens']:,} tokens, "
        f"and {held_out['documents']:,} held-out ones of {held_out['tokens']:,} tokens and {held_out['bytes']:,} "
        f"bytes. The vocabulary has {description['vocab_size']:,} tokens. All models are scored on all of the held-out "
        f"text, every document by itself. A network sees at most {row:,} tokens of it at once, an n-gram as many as it "
        "is long, a hidden Markov model all of the document. The training of a network is without its evaluations."
    )
    samples = [f"{each.title}:\n\n```text\n{_fenced(each.sample)}\n```" for each in results]
    parts = ["# Baselines", text, table(HEADER, [each.cells() for each in results]), f"![bits per byte]({PICTURE})"]
    parts += [similarity] if similarity else []
    return "\n\n".join([*parts, "## Samples", *samples]) + "\n"


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw the bits per byte of each model as a bar, the first on top."""
    with panels(path, (8, 1 + 0.35 * len(results))) as (axis,):
        bars = axis.barh([each.title for each in results], [each.bits_per_byte for each in results], color="C0")
        axis.bar_label(bars, fmt="%.3f", padding=3)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set_xlabel("bits per byte of the held-out text")


def _fenced(text: str) -> str:
    return text.replace("```", "'''").strip()
