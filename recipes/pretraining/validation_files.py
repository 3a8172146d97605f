"""The held-out text file by file: each file's scores beside those of all of them, at the cost of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.validation import RowEvaluator
from weft.recipes.training.evaluator import EvaluatingTrainer, Evaluator

MOST_FILES = 16  # of more, as a folder may hold, only the scores of all are told


@dataclass(frozen=True)
class PartOfValidation(Corpus):
    """A corpus whose held-out documents are some of another one's, from `first` to before `last` in their order."""

    first: int
    last: int

    def documents(self, split: str) -> np.ndarray:
        found = super().documents(split)
        return found[self.first : self.last] if split == "validation" else found


class EvaluatorOfFiles:
    """Scores each file by itself; the sums over all of them give the scores of the whole.

    Metrics: those of the whole, and for each file its loss and the headline metrics, as METRIC_on_FILE.
    """

    def __init__(self, whole: RowEvaluator, files: dict[str, RowEvaluator], shown: Sequence[str]) -> None:
        self.whole, self.files, self.shown = whole, files, shown
        self.rows = whole.rows

    def __call__(self, trainer: EvaluatingTrainer) -> dict[str, float]:
        total, found = torch.zeros(()), {}
        for name, evaluator in self.files.items():
            sums = evaluator.sums(trainer)
            total = total + sums
            of_file = evaluator.metrics(*sums.tolist())
            found |= {on_file(metric, name): of_file[metric] for metric in self.shown if metric in of_file}
        if isinstance(self.whole, RowEvaluator):
            self.whole.of_batches = [batch for evaluator in self.files.values() for batch in evaluator.of_batches]
        return {**self.whole.metrics(*total.tolist()), **found}


def on_file(metric: str, name: str) -> str:
    """The name of a file's metric."""
    return f"{metric}_on_{name}"


def make_evaluator(objective: Objective, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
    """The objective's evaluator, of each validation file by itself where there are several with text."""
    whole, files = objective.make_evaluator(corpus, row_length, tokenizer), {}
    for name, part in _parts(corpus).items():
        try:
            files[name] = objective.make_evaluator(part, row_length, tokenizer)
        except RecipeError:
            return whole  # a file without a token to predict
    shown = dict.fromkeys(("loss", *objective.headline))
    return EvaluatorOfFiles(whole, files, [*shown]) if len(files) > 1 else whole


def whole_of(evaluator: Evaluator) -> Evaluator:
    """The evaluator of all files together."""
    return evaluator.whole if isinstance(evaluator, EvaluatorOfFiles) else evaluator


def losses_on_files(evaluator: Evaluator) -> list[str]:
    """The names of the losses on single files, where an evaluator tells them apart."""
    return [on_file("loss", name) for name in evaluator.files] if isinstance(evaluator, EvaluatorOfFiles) else []


def _parts(corpus: Corpus) -> dict[str, PartOfValidation]:
    """The held-out text of each file that has some, by a name as short as tells them apart."""
    files = corpus.description.get("validation_files", [])
    if not 1 < len(files) <= MOST_FILES:
        return {}
    paths = [Path(file["name"]) for file in files]
    stems = [path.name.partition(".")[0] or path.name for path in paths]
    names = [stem if stems.count(stem) == 1 else f"{stem}_{place}" for place, stem in enumerate(stems, 1)]
    ends = np.cumsum([0, *(file["documents"] for file in files)]).tolist()
    parts = zip(names, ends, ends[1:])
    return {name: PartOfValidation(corpus.folder, first, last) for name, first, last in parts if last > first}
