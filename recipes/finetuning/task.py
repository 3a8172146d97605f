"""The contract of a task: what the run, its Trainer, its evaluation and its card ask it for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.baseline import Baseline, constant_baselines
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample, PackingCollator
from weft.recipes.finetuning.known_tasks import KnownTask
from weft.recipes.training.metric_format import range_of
from weft.recipes.training.trainer import WeftTrainer

Batch = dict[str, torch.Tensor]
Items = Sequence[EncodedExample]
Divisor = torch.Tensor | int | None  # of a loss: the `count` of a whole step, None: of the batch alone
PREDICT = "predict"  # the split of examples without labels


def hide_behind(logits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Logits [rows, columns] in at least float32, with the dtype's minimum from each row's length on: not all families
    put it there."""
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    behind = torch.arange(logits.shape[1], device=logits.device) >= lengths.to(logits.device)[:, None]
    return logits.masked_fill(behind, torch.finfo(logits.dtype).min)


def label_fields(names: Sequence[str]) -> dict[str, Any]:
    """Config fields of the names of labels in the order of the model's outputs."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}


class ModelTask(ABC):
    """What a model is set up for, and what its card says of it."""

    summary: str  # a sentence for the model card
    auto_class: str  # such as "AutoModelForSequenceClassification"
    pipeline_tag: str  # such as "text-classification"
    library: ClassVar[str] = "transformers"  # the Hub's name of what loads the model
    finds_spans: ClassVar[bool] = False  # whether its answers are parts of a text, which tokens should not reach over
    known: KnownTask | None = None  # the data set that --task names
    language: str | list[str] | None = None  # of the texts, such as "en", where the user or the task says it
    has_own_head: ClassVar[bool] = True  # whether the model has an output matrix that is of this task only
    closes_texts: ClassVar[bool] = True  # whether the tokenizer is to put its start and end token around each text
    new_tokens: Sequence[int] = ()  # ids that `prepare_tokenizer` added, of which the model knows nothing yet
    # Metrics that the console, the card and the summary over seeds show first.
    headline: tuple[str, ...]
    best_metric: BestMetric

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """The texts of the training split, which a new tokenizer is trained on."""

    def align_labels(self, config: PreTrainedConfig) -> bool:
        """Take over the order of labels of an existing model that has the same ones.

        Returns:
            Whether the model's head fits; if it does not, it starts anew.
        """
        return True

    def config_fields(self) -> dict[str, Any]:
        """Config fields that follow from the data: id2label, label2id, problem_type.

        A head has as many outputs as `id2label` has entries; a regression has one.
        """
        return {}

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer to encode with and to publish; raises RecipeError for one that cannot be used."""
        return tokenizer

    def prepare_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model with all that its folder is to hold besides weights, before it is trained."""
        return model

    @abstractmethod
    def usage(self, name: str) -> str:
        """Python that uses the published model, for its card."""


class ScoredTask(ModelTask):
    """What is scored: the data of a task, its scores and its report. Its model is trained by a Trainer of its own.

    Splits are named "train", "validation", "test" and "predict" (examples without labels).

    The order of calls: `read` (all data is read and checked before any other work), `align_labels` with the config of
    an existing model, `prepare_tokenizer`, `config_fields`, `encode` of each split, `prepare_model`, `make_trainer`.
    Then, over and over, `predict` and `score` in evaluation. In the end `sample`, `baselines`, `remarks` and
    `write_report`. `score` is also called with a part of a split's items and `examples`, on a copy of the task, and
    with results that no model made.
    """

    has_choices: ClassVar[bool] = False  # whether an item's sequences are choices of which one is right
    # Fields of every recipe that mean nothing to this task, each with a reason.
    refused_fields: ClassVar[dict[str, str]] = {}
    # Fields of FineTuningArguments that have another default with this task.
    default_fields: ClassVar[dict[str, Any]] = {}
    make_trainer: Callable[..., WeftTrainer] | None  # of what FineTuningTrainer is given; None: that one, for a Task
    input_name: ClassVar[str] = "text"  # what `input_of` gives, in a word
    examples: dict[str, list[Any]]  # of each split, as they were read

    @classmethod
    def read(cls, files: Any, run: FineTuningArguments) -> Self:
        """Make the task out of its own fields and the run's: read and check all data.

        Raises:
            RecipeError: what is missing or wrong, with file and row.
        """
        return cls(files)

    @property
    def splits(self) -> dict[str, int]:
        """The number of examples of each labelled split."""
        return {split: len(examples) for split, examples in self.examples.items() if split != PREDICT}

    @staticmethod
    def input_of(example: Any) -> Hashable:
        """What examples that must not stand on both sides of a split have in common, such as their text; without a
        method of its own, a task keeps those together that are equal as a whole."""
        return str(example)

    @abstractmethod
    def describe(self) -> list[tuple[str, str]]:
        """Lines of the plan about the data: labels, what was dropped or cut (after `encode`)."""

    @abstractmethod
    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[EncodedExample]:
        """The items of a split, in order; items of an example that is cut into several follow each other.

        Args:
            max_length: tokens of a sequence at most, special tokens included.
        """

    def longest(self, item: EncodedExample) -> int:
        """Positions that a model needs for an item."""
        return max(map(len, item.sequences))

    def make_collator(self, tokenizer: PreTrainedTokenizerBase, packed: bool) -> PackingCollator:
        """What lays items out."""
        return PackingCollator(tokenizer, packed, self.has_choices)

    def forward(self, model: nn.Module, inputs: Batch) -> Any:
        """The outputs of a model."""
        return model(**inputs)

    def predict(self, model: nn.Module, inputs: Batch, layout: BatchLayout) -> list[Any]:
        """Predictions for one batch, one entry per item of `layout.items`, without gradient."""
        return self.results(self.forward(model, inputs), layout)

    @abstractmethod
    def results(self, outputs: Any, layout: BatchLayout) -> list[Any]:
        """The part of a model's outputs that is kept for each item of `layout.items`: arrays on the CPU.

        They are held for a whole split: no larger than needed.
        """

    @abstractmethod
    def score(self, split: str, items: Items, results: Sequence[Any]) -> dict[str, float]:
        """Metrics of a labelled split, "loss" among them. `results` stand in the order of `items`."""

    def preview(self) -> str:
        """What the plan shows beside its lines, on the terminal alone: one example as the model reads it, for one."""
        return ""

    def sample(self, model: PreTrainedModel, split: str, items: Items) -> None:
        """Have the finished model do what scores do not show, for `write_report` to tell of."""
        return

    def baselines(self, split: str, items: Items, learnt: Items) -> list[Baseline]:
        """What could be answered without a model, for its scores to be compared with.

        By default that is the most frequent class of the training items, their mean, or their most frequent labels,
        seen from the targets (`baseline.constant_baselines`).

        Args:
            items: of a labelled split, to answer for.
            learnt: the training items that have a target.
        """
        return constant_baselines(items, learnt, self.config_fields().get("id2label", {}), self.results)

    def remarks(self, split: str, items: Items, results: Sequence[Any]) -> list[str]:
        """What makes the results of a labelled split useless: the same answer for every text, for one.

        Each is a sentence without its full stop; what may help is said behind them.
        """
        return []

    def range_of(self, metric: str) -> tuple[float, float] | None:
        """The lowest and the highest value of one of its metrics; None without limits."""
        return range_of(metric)

    @abstractmethod
    def write_report(self, folder: Path, split: str, items: Items, results: Sequence[Any]) -> str:
        """Write tables and plots of a labelled split; say in Markdown, for the model card, what they show.

        Args:
            folder: of the finished run, or a temporary one that gets its name.
        """

    def unlabelled(self, folder: Path) -> dict[str, Path]:
        """The splits without labels to predict for, each with the file that `write_predictions` writes.

        They are "predict", if `read_unlabelled` was called, and others that the task's own fields ask for.

        Args:
            folder: of the run.
        """
        return {PREDICT: folder / "predicted.csv"} if PREDICT in self.examples else {}


class Task(ScoredTask):
    """One task of fine-tuning, whole: what is scored, and the loss that trains for it.

    A new one is a folder of `tasks`, whose `task.py` says `TASK = Class`, or a class anywhere that is registered with
    `tasks.register`. To the order of calls of ScoredTask it adds `targets`, `forward`, `loss` and `count` in training,
    and `write_predictions` in the end.
    """

    # Keys of a batch that are targets: they go to `loss`, all others to the model.
    target_names: ClassVar[tuple[str, ...]] = ("labels",)
    make_trainer = None

    @abstractmethod
    def targets(self, layout: BatchLayout) -> Batch:
        """The targets of a batch, in the order of `layout.items`: a tensor for each of `target_names`.

        What else is returned is given to the model in training.
        """

    @abstractmethod
    def loss(self, outputs: Any, targets: Batch, num_items_in_batch: Divisor) -> torch.Tensor:
        """The loss, computed from logits, so that it is the same for models of every family.

        It is a sum over targets divided by `num_items_in_batch`, the `count` of the whole step (None: of this batch).
        """

    @abstractmethod
    def count(self, targets: Batch) -> torch.Tensor:
        """What a loss of these targets divides by (a scalar)."""

    @abstractmethod
    def read_unlabelled(self, path: Path) -> None:
        """Read a file to predict for, as split "predict"; raises RecipeError."""

    @abstractmethod
    def write_predictions(self, path: Path, split: str, items: Items, results: Sequence[Any]) -> None:
        """Write what is predicted for each example of a split, labelled or not, with its scores."""
