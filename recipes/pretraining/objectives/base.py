"""What distinguishes one way of pretraining from another."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftPreTrainedModel
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.plan import Plan
from weft.recipes.training.trainer import Evaluator
from weft.tokenizer.special_tokens import for_role


class Layout(Protocol):
    """The training text laid out in rows, before it is known how many of them a run takes."""

    rows_per_epoch: int
    num_places: int


class Objective(ABC):
    """One way of pretraining: its rows, its model class, its evaluation and its report."""

    summary: str
    model_class: type[WeftPreTrainedModel]
    auto_class: str
    # What else the trained model is good for, with the same weights.
    other_auto_classes: ClassVar[tuple[str, ...]] = ()
    pipeline_tag: str
    collate: Callable[[list[Any]], dict[str, torch.Tensor]]
    # Metrics that the last line of a run names.
    headline: ClassVar[tuple[str, ...]] = ()
    # Whether its rows are those of `TrainingRows`, which can go over one block of a stream after another.
    can_stream: ClassVar[bool] = True
    # Whether a batch holds causal and bidirectional rows.
    both_directions: ClassVar[bool] = False
    # Fields of the recipe that have no effect here, and what they need to have one.
    idle_fields: dict[str, str]

    def __init__(self) -> None:
        self.idle_fields = {}

    @property
    def needs_boundaries(self) -> bool:
        """Whether the corpus must know where words and sentences begin."""
        return False

    def check(self) -> None:  # noqa: B027
        """Refuse fields that make no sense, before any work is done; raises RecipeError."""

    def require(self, data: DataArguments) -> None:  # noqa: B027
        """Change what a corpus that is prepared for this run must have."""

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer that is published with the model."""
        return tokenizer

    @abstractmethod
    def role(self) -> dict[str, Any]:
        """Fields of WeftConfig that follow from the objective."""

    @abstractmethod
    def lay_out(self, corpus: Corpus, row_length: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Layout:
        """The training text in rows."""

    @abstractmethod
    def make_rows(self, layout: Layout, plan: Plan) -> Dataset:
        """The rows of the whole run, in the order in which they are trained on."""

    @abstractmethod
    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: PreTrainedTokenizerBase) -> Evaluator:
        """What scores the held-out text."""

    @abstractmethod
    def make_samples(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, corpus: Corpus
    ) -> list[str]:
        """Texts for the model card."""

    def plan_lines(self) -> list[tuple[str, str]]:
        """What the plan says of the objective."""
        return []

    def least_steps(self) -> int:
        """The shortest run that can be trained."""
        return 1

    def head_share(self) -> float:
        """Share of the tokens that the head is computed for."""
        return 1.0


def as_decoder(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer of a model that continues text: one that puts an end token behind every text no longer does."""
    ids = tokenizer("a").input_ids
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None or ids[-1:] != [tokenizer.eos_token_id]:
        return tokenizer
    return for_role(tokenizer, "decoder")
