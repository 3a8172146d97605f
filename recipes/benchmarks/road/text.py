"""The text of the road: documents to train on in an order that follows from the seed, and others to be scored by."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.text_source import SourceArguments, texts_of

HELD_OUT_BYTES, MOST_HELD_OUT = 400_000, 0.1  # of text to score by, and its largest share of all


@dataclass(frozen=True)
class RoadText:
    """Documents for training and documents held out from all sides."""

    training: list[str]
    held_out: list[str]

    @classmethod
    def read(cls, files: Sequence[str]) -> "RoadText":
        """Read files as the recipes do and hold documents out, the same ones each time.

        Raises:
            RecipeError: the text is broken, or has fewer than two different documents.
        """
        found = list(
            dict.fromkeys(text for text in texts_of(SourceArguments(train_files=list(files)), "train") if text)
        )
        if len(found) < 2:
            raise RecipeError(
                "there are fewer than two documents in train_files: give more text, to train and to score by."
            )
        order = np.random.default_rng(0).permutation(len(found))
        wanted = min(HELD_OUT_BYTES, MOST_HELD_OUT * sum(len(text.encode()) for text in found))
        number, size = 0, 0
        while size < wanted:
            size += len(found[order[number]].encode())
            number += 1
        number = min(number, len(found) - 1)
        return cls([found[place] for place in order[number:]], [found[place] for place in order[:number]])

    def shuffled(self, seed: int) -> list[str]:
        """The documents for training, in the order of a seed."""
        return [self.training[place] for place in np.random.default_rng(seed).permutation(len(self.training))]


def write_documents(path: Path, documents: Iterable[str]) -> None:
    """Write one document a line as JSON, which all sides read with line ends inside of documents."""
    with path.open("w", encoding="utf-8") as handle:
        for text in documents:
            handle.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def read_documents(path: Path) -> list[str]:
    """Read what `write_documents` wrote."""
    with path.open(encoding="utf-8") as handle:
        return [json.loads(line)["text"] for line in handle]
