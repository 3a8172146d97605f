"""From texts in tokens to the windows that a tagger is given, each with the labels of its tokens."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from weft.losses import IGNORE_INDEX
from weft.recipes.finetuning.collation import EncodedExample
from weft.recipes.finetuning.tasks.token_classification import encoding
from weft.recipes.finetuning.tasks.token_classification.decoding import group
from weft.recipes.finetuning.tasks.token_classification.encoding import NOTHING
from weft.recipes.finetuning.tasks.token_classification.passages import Passage

# What encoding counts, in words.
WINDOWS = "longer texts, cut into overlapping windows of"
UNREACHABLE = "entities that cannot be found exactly, because a token reaches over an end of them"
SHARED = "tokens of several words with different tags"
SILENT = "words without any token, which cannot be tagged"
CUT_WORDS = "words longer than a window, cut"


class Part(NamedTuple):
    """Where the tokens of a window that are its to score stand: in the text (see `Tokens`), and from `low` to `high` in
    the model's input."""

    offsets: np.ndarray
    shown: np.ndarray
    low: int
    high: int


@dataclass
class WindowMaker:
    """How the texts of a split are cut and labelled.

    Attributes:
        labels: in the order of the model.
        label_all_pieces: label every piece of a word, not its first alone.
        trims: whether the tokenizer's tokens stand without the blank before them.
        before, after: special tokens around each window.
        capacity: tokens of a window between them, at most.
        stride: tokens that neighbouring windows share.
        counts: what became of the texts, in words.
    """

    labels: Sequence[str]
    label_all_pieces: bool
    trims: bool
    before: list[int]
    after: list[int]
    capacity: int
    stride: int
    counts: Counter[str] = field(default_factory=Counter)

    def items(
        self, number: int, passage: Passage, ids: list[int], places: Sequence[tuple[int, int]]
    ) -> list[EncodedExample]:
        """One item for each window of a text.

        Args:
            number: of the text in its split.
            ids, places: its tokens, and their first and last characters.
        """
        offsets = encoding.trim(passage.text, places)
        shown = np.array(places, dtype=np.int32).reshape(-1, 2) if self.trims else offsets
        reached = encoding.reach(encoding.mark(len(passage.text), passage.words), offsets)
        self.counts[SILENT] += int((encoding.first_tokens(reached, len(passage.words)) == NOTHING).sum())
        if not ids:
            return []
        begins = encoding.begins_word(reached)
        is_cut = (begins | (reached[:, 0] == NOTHING)).tolist()
        windows = encoding.cut(is_cut, self.capacity, self.stride)
        if len(windows) > 1:
            self.counts[f"{WINDOWS} {self.capacity} tokens"] += 1
            self.counts[CUT_WORDS] += sum(window.low > 0 and not is_cut[window.low] for window in windows)
        labels = self._label(passage, offsets, reached, begins) if passage.labelled else None
        items = []
        for first, end, low, high in windows:
            target = None
            place = len(self.before) - first
            if labels is not None:
                target = [IGNORE_INDEX] * (len(self.before) + end - first + len(self.after))
                target[place + low : place + high] = labels[low:high].tolist()
                if all(label == IGNORE_INDEX for label in target):
                    target = None  # nothing to learn
            part = Part(offsets[low:high], shown[low:high], place + low, place + high)
            items.append(EncodedExample([[*self.before, *ids[first:end], *self.after]], number, target, info=part))
        return items

    def _label(self, passage: Passage, offsets: np.ndarray, reached: np.ndarray, begins: np.ndarray) -> np.ndarray:
        """The label of each token [tokens], IGNORE_INDEX for those that are not learnt."""
        number_of = {label: number for number, label in enumerate(self.labels)}
        if passage.spans is not None:
            names = encoding.label_entities(passage.spans, len(passage.text), offsets)
            labels = np.array([number_of[name] for name in names], dtype=np.int64)
            found = {entity[:3] for entity in group(offsets, names, np.ones(len(names)))}
            self.counts[UNREACHABLE] += sum(tuple(span) not in found for span in passage.spans)
        else:
            tags = [number_of[tag] for tag in passage.tags or ()]
            owner = encoding.owners(encoding.mark(len(passage.text), passage.words), offsets)
            labels = np.array([IGNORE_INDEX if word == NOTHING else tags[word] for word in owner], dtype=np.int64)
            self.counts[SHARED] += sum(
                len(set(tags[first : last + 1])) > 1 for first, last in reached.tolist() if first != NOTHING
            )
        if not self.label_all_pieces:
            labels[~begins] = IGNORE_INDEX
        return labels
