"""The contract of an objective: what the run, its Trainer, its validation, its plots and its card ask it for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import transformers
from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.source_mixture import SourceMixture
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.plan import Plan
from weft.recipes.training.batch_schedule import Steps
from weft.recipes.training.evaluator import Evaluator
from weft.recipes.training.metric_format import FORMATS
from weft.tokenizer.special_tokens import for_role

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch.utils.data import Dataset

    from weft.recipes.training.model_setup import ParameterCounts


class PackedText(Protocol):
    """The training text in rows of one length, of which a run may take any number (`num_rows`, set by `make_rows`)."""

    rows_per_epoch: int
    num_places: int
    num_rows: int
    source_sizes: list[int]

    def mix(self, mixture: SourceMixture, steps: Steps | None = None) -> None:
        """Mix the sources anew, for runs with weights of their own; `steps`: of the run in which they change."""


class Objective(ABC):
    """One way of pretraining.

    A new one is a subclass in a file of this folder, which the file lists as `OBJECTIVES = {"name": Class}`, or in any
    other, which calls `register("name", Class)`.
    """

    # The command that offers it.
    recipe: ClassVar[str] = "pretrain_mlm"
    # Dataclasses of command-line fields; __init__ takes an instance of each.
    arguments: ClassVar[tuple[type, ...]] = ()
    # Fields of WeftConfig that may be given with it, beside those that any model of one stack has.
    model_fields: ClassVar[tuple[str, ...]] = ()
    # The model, the Auto class that loads it and others that load the same weights, and what the card says of it.
    model_class: "type[weft.WeftPreTrainedModel]"
    auto_class: str
    other_auto_classes: ClassVar[tuple[str, ...]] = ()
    pipeline_tag: str
    summary: str
    # Makes a batch of rows: tensors that the model's forward takes by their names, among them `labels` and, of packed
    # rows, `position_ids`, which restart with each document (`datasets/collators.py`).
    collate: Callable[[Sequence[Any]], Batch]
    # What of a batch is for `loss_parts` and the evaluator only, and not given to the model.
    kept_back: ClassVar[tuple[str, ...]] = ()
    # The format of each metric of the evaluator beside loss, in the order in which they are shown.
    metrics: ClassVar[dict[str, str]] = {}
    # Metrics that the last line of a run names.
    headline: ClassVar[tuple[str, ...]] = ("loss",)
    # The unit of each part of the loss: PART is logged as loss_PART in training, and as PART_loss by the evaluator.
    parts: ClassVar[dict[str, str]] = {}
    # Command-line fields that have no effect here, and what they need to have one.
    idle_fields: dict[str, str]

    # Whether a new model is left without what no stock class computes (`DEFAULT_EXTRAS`).
    is_plain: bool = False
    # The Auto class of the models that can be asked about its targets (`distillation/`); None: it has no teacher.
    teacher_class: ClassVar[str | None] = None

    def __init__(self) -> None:
        self.idle_fields = {}

    def check(self, parsed: Parsed) -> None:  # noqa: B027
        """Refuse fields that make no sense, before any work is done; raises RecipeError."""

    def require(self, data: DataArguments) -> None:  # noqa: B027
        """Change how a corpus is prepared for this run; raises RecipeError."""

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer that is published with the model."""
        return tokenizer

    @abstractmethod
    def role(self) -> dict[str, Any]:
        """Fields of WeftConfig that follow from the objective."""

    def check_model(self, config: "weft.WeftConfig") -> None:  # noqa: B027
        """Refuse a model that cannot learn this; raises RecipeError."""

    def trained(self, model: "transformers.PreTrainedModel") -> "transformers.PreTrainedModel":
        """What the Trainer trains: the new or existing `model_class`, alone or with a helper beside it."""
        return model

    def published(self, model: "transformers.PreTrainedModel") -> "transformers.PreTrainedModel":
        """The `model_class` in what is trained, which is all that saving writes."""
        return model

    def training_only(self, model: "transformers.PreTrainedModel") -> "dict[str, torch.Tensor]":
        """By name the weights that are trained and not saved as they are: checkpoints keep them in a file beside."""
        return {}

    @abstractmethod
    def pack(self, corpus: Corpus, row_length: int, seed: int, tokenizer: Tokenizer) -> PackedText:
        """Pack the training text into rows."""

    @abstractmethod
    def make_rows(self, packed: PackedText, plan: Plan) -> "Dataset":
        """The rows of the whole run (`plan.num_rows`), in the order in which they are trained on."""

    @abstractmethod
    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        """Make the function that scores the held-out text: a `RowEvaluator` (../validation.py) of its rows."""

    @abstractmethod
    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        """Texts for the model card; none: it shows no samples."""

    def write_beside(self, folder: Path) -> None:  # noqa: B027
        """Write what else the finished folder holds beside model, tokenizer and report."""

    def loss_divisors(self, batch: Batch) -> "dict[str, torch.Tensor]":
        """What a batch adds to the divisor of each loss, by the model's argument for it: here its targets."""
        return {"num_items_in_batch": (batch["labels"] != weft.IGNORE_INDEX).sum()}

    def loss_parts(self, batch: Batch, outputs: Any) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
        """For each of `parts`, which batches all have, the nats [n] of a forward pass and which of them count, or how
        much each does [n]."""
        return {}

    def plan_lines(self) -> list[tuple[str, str]]:
        """What the plan says of the objective."""
        return []

    def min_steps(self) -> int:
        """The shortest run that can be trained."""
        return 1

    def longest_input(self, row_length: int) -> int:
        """The most tokens that the model is given at once."""
        return row_length

    def side_shares(self) -> tuple[float, float]:
        """Of an encoder-decoder: how many tokens each side computes for a token of a row."""
        return 1.0, 0.0

    def head_share(self) -> float:
        """The share of the tokens that the head is computed for."""
        return 1.0

    def head_shares(self, places: np.ndarray, steps: int) -> np.ndarray:
        """That share at these steps of a run of so many [places]."""
        return np.full(len(places), self.head_share())

    def flops_per_token(
        self, config: "weft.WeftConfig", parameters: "ParameterCounts", row_length: int, head_share: float
    ) -> float:
        """Operations of forward and backward for one token of a row."""
        from weft.recipes.training.throughput import training_flops_per_token

        return training_flops_per_token(config, parameters, row_length, head_share, self.side_shares())

    @property
    def formats(self) -> dict[str, str]:
        """The formats of all metrics of a run."""
        return FORMATS | self.metrics


def as_decoder(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer for a model that continues text: it puts the start token before a text, as documents had it in
    training, and no end token behind it."""
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        return tokenizer
    if tokenizer("a").input_ids == [tokenizer.bos_token_id, *tokenizer("a", add_special_tokens=False).input_ids]:
        return tokenizer
    return for_role(tokenizer, "decoder")
