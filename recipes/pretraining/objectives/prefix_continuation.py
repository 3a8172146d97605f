"""Prefix language modelling: the decoder goes on with the text whose beginning the encoder reads."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.datasets.denoising.pieces import Denoiser
from weft.recipes.pretraining.datasets.denoising.prefix import PrefixDenoiser
from weft.recipes.pretraining.datasets.denoising.rows import ContinuationRows, collate_pairs
from weft.recipes.pretraining.objectives.causal import CausalEvaluator, CausalObjective
from weft.recipes.pretraining.objectives.masked import VALIDATION_SEED
from weft.recipes.pretraining.objectives.text_to_text import TextToTextObjective
from weft.recipes.pretraining.validation import RowEvaluator, token_nats
from weft.recipes.training.evaluator import Evaluator

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch import nn


class PrefixObjective(TextToTextObjective):
    """The end of a text is written from its beginning (T5, https://huggingface.co/papers/1910.10683)."""

    summary = (
        "A text-to-text model that goes on with a text, to be fine-tuned. Trained with Weft; the code it needs is in "
        "this folder."
    )
    metrics = CausalObjective.metrics
    headline = CausalObjective.headline

    def make_denoiser(self, tokenizer: Tokenizer) -> Denoiser:
        return PrefixDenoiser()

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        return self.make_continuation(corpus, row_length)

    def make_continuation(
        self, corpus: Corpus, row_length: int, mode_tokens: Sequence[int] = ()
    ) -> "ContinuationEvaluator":
        """Make the evaluator of the held-out text in windows of half a row."""
        read = self._reader(corpus, VALIDATION_SEED)
        return ContinuationEvaluator(ContinuationRows(read, row_length // 2, self.frame, mode_tokens))

    def describe(self) -> str:
        return "each text is written from a prefix of it, of any length"


class ContinuationEvaluator(CausalEvaluator):
    """Scores every token of the held-out text once, each window of it given the one before.

    Metrics: those of a causal model. Inside of a document nothing says that a window ends, so the text's bits per byte
    are those of a model that may also stop there.
    """

    def __init__(self, rows: ContinuationRows) -> None:
        RowEvaluator.__init__(self, rows, collate_pairs)

    def score(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        import torch

        is_text, labels = batch.pop("is_text").bool().cpu(), batch["labels"]
        nats = token_nats(model(**batch, use_cache=False).logits, labels)
        return torch.stack([nats.sum(), nats[is_text].sum(), (labels != weft.IGNORE_INDEX).sum().cpu()])


OBJECTIVES = {"prefix": PrefixObjective}
