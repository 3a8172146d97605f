"""What distinguishes one kind of fine-tuning (classification, tagging, question answering ...) from another."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.finetuning.collation import Batcher, Item, Layout


@dataclass(frozen=True)
class Goal:
    """The metric that tells the best weights: a key of what `Kind.score` returns, and its direction."""

    metric: str
    greater_is_better: bool = True

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether `value` is an improvement; a value that is not a number never is, and any number is one over it."""
        if value != value:
            return False
        return than is None or than != than or (value > than if self.greater_is_better else value < than)

    def chooses(self, scores: Mapping[str, float], over: Mapping[str, float] | None) -> bool:
        """Whether scores, such as `Kind.score` returns, are better than others; of equal ones the lower loss decides,
        since a metric often stands still at first (Matthews' correlation at 0) while the model learns."""
        value, than = scores[self.metric], None if over is None else over[self.metric]
        if over is not None and value == than:
            return Goal("loss", greater_is_better=False).is_better(scores["loss"], over["loss"])
        return self.is_better(value, than)


class Kind(ABC):
    """One kind of fine-tuning: its data, its model class, its loss, its scores and its report.

    The order of calls: made from the fields (reads and checks all data, before any other work), `adopt` with the
    config of an existing model, `prepare_tokenizer`, `config_fields`, `encode` for each split, `prepare_model`; then,
    over and over, `targets`, `forward`, `loss` and `count` in training, `answer` and `score` in evaluation;
    `write_report` once at the end.
    Splits are named "train", "validation", "test" (where there is one) and "predict" (data without labels).
    """

    summary: ClassVar[str]  # a sentence for the model card
    auto_class: ClassVar[str]  # such as "AutoModelForSequenceClassification"
    pipeline_tag: ClassVar[str]  # such as "text-classification"
    finds_spans: ClassVar[bool] = False  # whether its answers are parts of a text, which tokens should not reach over
    language: str | None = None  # of the texts, such as "en", where it is known
    has_choices: ClassVar[bool] = False  # whether an item's sequences are choices of which one is right
    has_own_head: ClassVar[bool] = True  # whether the model has an output matrix that is of this task only
    # Fields of every recipe that mean nothing to this kind, each with a reason.
    refused_fields: ClassVar[dict[str, str]] = {}
    # Keys of a batch that are targets: they go to `loss`, all others to the model.
    target_names: ClassVar[tuple[str, ...]] = ("labels",)
    # Metrics that the console, the card and the summary over seeds show first.
    headline: tuple[str, ...]
    goal: Goal

    @property
    @abstractmethod
    def splits(self) -> dict[str, int]:
        """Number of examples of each split that there is."""

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """The texts of the training split, which a new tokenizer is trained on."""

    @abstractmethod
    def describe(self) -> list[tuple[str, str]]:
        """Lines of the plan about the data: labels, what was dropped or cut (after `encode`)."""

    def adopt(self, config: PreTrainedConfig) -> bool:
        """Take over the order of labels of an existing model that has the same ones.

        Returns:
            Whether the model's head fits; if it does not, it starts anew.
        """
        return True

    def config_fields(self) -> dict[str, Any]:
        """Config fields that follow from the data: id2label, label2id, problem_type."""
        return {}

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer to encode with and to publish; raises RecipeError for one that cannot be used."""
        return tokenizer

    @abstractmethod
    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Item]:
        """The items of a split, in order; items of an example that is cut into several follow each other.

        Args:
            max_length: tokens of a sequence at most, special tokens included.
        """

    def longest(self, item: Item) -> int:
        """Positions that a model needs for an item."""
        return max(map(len, item.sequences))

    def make_batcher(self, tokenizer: PreTrainedTokenizerBase, packed: bool) -> Batcher:
        """What lays items out."""
        return Batcher(tokenizer, packed, self.has_choices)

    def prepare_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model with all that its folder is to hold besides weights, before it is trained."""
        return model

    @abstractmethod
    def targets(self, layout: Layout) -> dict[str, torch.Tensor]:
        """The targets of a batch, for each of `target_names` a tensor, in the order of `layout.items`; what else is
        returned is given to the model in training."""

    def forward(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> Any:
        """The outputs of a model."""
        return model(**inputs)

    def answer(self, model: nn.Module, inputs: dict[str, torch.Tensor], layout: Layout) -> list[Any]:
        """What is kept of a model's say on a batch, for each item of `layout.items`, without gradient."""
        return self.results(self.forward(model, inputs), layout)

    @abstractmethod
    def loss(
        self, outputs: Any, targets: dict[str, torch.Tensor], num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The loss, computed from logits, so that it is the same for every model: a sum over targets divided by
        `num_items_in_batch`, the `count` of the whole step (None: of this batch)."""

    @abstractmethod
    def count(self, targets: dict[str, torch.Tensor]) -> torch.Tensor:
        """What a loss of these targets divides by (a scalar)."""

    @abstractmethod
    def results(self, outputs: Any, layout: Layout) -> list[Any]:
        """What is kept of a model's outputs for each item of the batch, in the order of `layout.items`: arrays on the
        CPU, no larger than needed (they are held for a whole split)."""

    @abstractmethod
    def score(self, split: str, items: Sequence[Item], results: Sequence[Any]) -> dict[str, float]:
        """Metrics of a labelled split. `results` stand in the order of `items`. "loss" is among them."""

    @abstractmethod
    def write_report(self, folder: Path, split: str, items: Sequence[Item], results: Sequence[Any]) -> str:
        """Write tables and plots of a labelled split into a folder, and say in Markdown, for the model card, what they
        show. `folder` is that of the finished run, or a temporary one that gets its name."""

    @abstractmethod
    def read_unlabelled(self, path: Path) -> None:
        """Read a file to predict for, as split "predict"; raises RecipeError."""

    def unlabelled(self, folder: Path) -> dict[str, Path]:
        """The splits without labels to predict for, each with the file in the run's folder that `write_predictions`
        writes: "predict" where `read_unlabelled` was called, and others that the kind's own fields ask for."""
        return {"predict": folder / "predicted.csv"} if self.has_unlabelled else {}

    has_unlabelled = False  # `read_unlabelled` sets it

    @abstractmethod
    def write_predictions(self, path: Path, split: str, items: Sequence[Item], results: Sequence[Any]) -> None:
        """Write what the model says of each example of a split, with its scores, labelled or not."""

    @abstractmethod
    def usage(self, name: str) -> str:
        """Python that uses the published model."""
