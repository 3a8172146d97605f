"""Masked tokens, and whether two segments of text belong together."""

from typing import TYPE_CHECKING, Any, ClassVar

from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.streaming.documents import StreamArguments
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.datasets.masking import Masker
from weft.recipes.pretraining.datasets.sentence_pairs import SentencePairCollator, SentencePairRows
from weft.recipes.pretraining.objectives.base import PackedText
from weft.recipes.pretraining.objectives.masked import (
    VALIDATION_SEED,
    MaskedEvaluator,
    MaskedObjective,
    as_encoder,
    make_vocabulary,
    score_targets,
)
from weft.recipes.pretraining.plan import Plan
from weft.recipes.training.evaluator import Evaluator

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch import nn
    from torch.utils.data import Dataset


class NextSentenceObjective(MaskedObjective):
    """Masked tokens, and whether a segment follows another in the text (BERT,
    https://huggingface.co/papers/1810.04805)."""

    summary = (
        "A masked language model that also tells whether two segments of text belong together. Trained with Weft; the "
        "code it needs is in this folder."
    )
    model_class = property(lambda self: weft.WeftForPreTraining)
    auto_class = "AutoModelForPreTraining"
    teacher_class = None
    other_auto_classes = ("AutoModelForMaskedLM",)
    metrics = {**MaskedObjective.metrics, "next_sentence_loss": ".4f", "next_sentence_accuracy": ".2%"}
    headline = ("masked_loss", "masked_accuracy", "next_sentence_accuracy")
    parts = {"masked": "nats per token", "next_sentence": "nats per pair"}
    collator = SentencePairCollator
    swap: ClassVar[bool] = False
    needs_boundaries = True

    def check(self, parsed: Parsed) -> None:
        super().check(parsed)
        if self.masking.target_share is not None:
            raise RecipeError(
                "target_share cannot fix the shapes of sentence pairs, whose number differs from batch to batch: leave "
                "it out, or choose the objective masked or hybrid."
            )
        if parsed[StreamArguments].stream:
            raise RecipeError(
                "stream cannot be given with an objective of sentence pairs, which draws them from the whole text: "
                "choose masked or hybrid, or leave stream out."
            )

    def require(self, data: DataArguments) -> None:
        if data.document_tokens == "none":
            raise RecipeError("sentence pairs need start and end tokens: leave document_tokens at both.")
        super().require(data)

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        return as_encoder(tokenizer, token_types=True)

    def role(self) -> dict[str, Any]:
        return {**super().role(), "type_vocab_size": 2}

    def pack(self, corpus: Corpus, row_length: int, seed: int, tokenizer: Tokenizer) -> PackedText:
        masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), seed)
        return SentencePairRows(corpus, "train", row_length, masker, self.swap, seed)

    def make_rows(self, packed: SentencePairRows, plan: Plan) -> "Dataset":
        self._follow(plan)
        packed.schedule(plan.num_rows, plan.steps)
        return packed

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), VALIDATION_SEED)
        rows = SentencePairRows(corpus, "validation", row_length, masker, self.swap, VALIDATION_SEED, shuffle=False)
        return SentencePairEvaluator(rows)

    def loss_divisors(self, batch: Batch) -> "dict[str, torch.Tensor]":
        pairs = (batch["next_sentence_label"] != weft.IGNORE_INDEX).sum()
        return {**super().loss_divisors(batch), "num_pairs_in_batch": pairs}

    def loss_parts(self, batch: Batch, outputs: Any) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
        return {
            "masked": (outputs["target_nats"], batch["labels"] != weft.IGNORE_INDEX),
            "next_sentence": (outputs["next_sentence_nats"], batch["next_sentence_label"] != weft.IGNORE_INDEX),
        }

    def plan_lines(self) -> list[tuple[str, str]]:
        negatives = "swapped segments" if self.swap else "segments of other documents"
        return [*super().plan_lines(), ("pairs", f"half of them {negatives}")]


class SentenceOrderObjective(NextSentenceObjective):
    """Masked tokens, and whether two segments were swapped (ALBERT, https://huggingface.co/papers/1909.11942)."""

    swap = True


class SentencePairEvaluator(MaskedEvaluator):
    """Predicts the masked tokens of the held-out text, and the labels of its pairs.

    Metrics: those of masked tokens, next_sentence_loss and next_sentence_accuracy, and loss, the sum of the losses.
    """

    collator = SentencePairCollator

    def score(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        import torch

        outputs = model(**batch)
        masked = score_targets(outputs.target_nats, outputs.prediction_logits, batch["labels"])
        nats, logits = outputs.next_sentence_nats, outputs.seq_relationship_logits
        return torch.cat((masked, score_targets(nats, logits, batch["next_sentence_label"])))

    def metrics(self, *sums: float) -> dict[str, float]:
        result, (nats, right, pairs) = super().metrics(*sums[:3]), sums[3:]
        if pairs:
            result |= {"next_sentence_loss": nats / pairs, "next_sentence_accuracy": right / pairs}
            result["loss"] += nats / pairs
        return result


OBJECTIVES = {"next-sentence": NextSentenceObjective, "sentence-order": SentenceOrderObjective}
