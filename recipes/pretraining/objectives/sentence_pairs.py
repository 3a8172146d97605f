"""Masked tokens, and whether two segments of text belong together."""

from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from weft import WeftForPreTraining
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.datasets.sentence_pairs import SentencePairRows
from weft.recipes.pretraining.objectives.base import Layout
from weft.recipes.pretraining.objectives.masked import VALIDATION_SEED, MaskedObjective, make_vocabulary
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.validation import MaskedEvaluator
from weft.recipes.training.trainer import Evaluator
from weft.tokenizer.special_tokens import add_mask_token, for_role


class SentencePairObjective(MaskedObjective):
    """Masked tokens, and whether two segments of text belong together: in this order (BERT), or not swapped (ALBERT,
    https://huggingface.co/papers/1909.11942)."""

    summary = (
        "A masked language model that also tells whether two segments of text belong together. Trained with Weft; the "
        "code it needs is in this folder."
    )
    model_class = WeftForPreTraining
    auto_class = "AutoModelForPreTraining"
    other_auto_classes = ("AutoModelForMaskedLM",)
    headline = ("masked_loss", "masked_accuracy", "next_sentence_accuracy")
    can_stream = False

    def __init__(self, masking: MaskingArguments, target_share: float | None, swap: bool) -> None:
        super().__init__(masking, target_share)
        self.swap = swap

    @property
    def needs_boundaries(self) -> bool:
        return True

    def check(self) -> None:
        super().check()
        if self.target_share is not None:
            raise RecipeError(
                "target_share cannot fix the shapes of sentence pairs, whose number differs from batch to batch: leave "
                "it out, or choose the objective masked or hybrid."
            )

    def require(self, data: DataArguments) -> None:
        if data.document_tokens == "none":
            raise RecipeError("sentence pairs need start and end tokens: leave document_tokens at both.")
        super().require(data)

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        add_mask_token(tokenizer)
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            return tokenizer
        return for_role(tokenizer, "encoder", token_types=True)

    def role(self) -> dict[str, Any]:
        return {**super().role(), "type_vocab_size": 2}

    def lay_out(self, corpus: Corpus, row_length: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Layout:
        masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), seed)
        return SentencePairRows(corpus, "train", row_length, masker, self.swap, seed)

    def make_rows(self, layout: SentencePairRows, plan: Plan) -> Dataset:
        self._check_room(0, plan)
        layout.schedule(plan.num_rows, plan.steps)
        return layout

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: PreTrainedTokenizerBase) -> Evaluator:
        masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), VALIDATION_SEED)
        rows = SentencePairRows(corpus, "validation", row_length, masker, self.swap, VALIDATION_SEED, shuffle=False)
        return MaskedEvaluator(rows)

    def plan_lines(self) -> list[tuple[str, str]]:
        negatives = "swapped segments" if self.swap else "segments of other documents"
        return [*super().plan_lines(), ("pairs", f"half of them {negatives}")]
