"""The objectives of pretrain_mlm: masked, masked and causal together, and masked with sentence pairs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftForMaskedLM
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import MaskedCollator
from weft.recipes.pretraining.datasets.masked import MaskedRows, MaskedValidationRows
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments, Vocabulary
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.base import Layout, Objective
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.samples import sample_fills
from weft.recipes.pretraining.validation import MaskedEvaluator
from weft.recipes.training.trainer import Evaluator
from weft.tokenizer.special_tokens import add_mask_token, for_role

VALIDATION_SEED = 0  # the masks of the held-out text are the same in all runs


def make_vocabulary(tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
    """The ids that masking knows. An unknown token is text: it may be masked, but nothing is replaced by it."""
    special = set(tokenizer.all_special_ids)
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if name != "unk_token"}
    is_text = tokenizer.unk_token not in named.values()  # unlike GPT-2's, which is its end token too
    return Vocabulary(
        mask=tokenizer.mask_token_id,
        ordinary=np.array([i for i in range(len(tokenizer)) if i not in special], dtype=np.int64),
        special=np.array(sorted(special - ({tokenizer.unk_token_id} if is_text else set())), dtype=np.int64),
    )


class MaskedObjective(Objective):
    """Some tokens are masked and predicted from all others (BERT, https://huggingface.co/papers/1810.04805)."""

    summary = (
        "A masked language model: an encoder that fills in masked tokens. Trained with Weft; the code it needs is in "
        "this folder."
    )
    model_class = WeftForMaskedLM
    auto_class = "AutoModelForMaskedLM"
    pipeline_tag = "fill-mask"
    headline = ("masked_loss", "masked_accuracy")
    collate: Callable[[list[Any]], dict[str, torch.Tensor]]
    overlap = 0

    def __init__(self, masking: MaskingArguments, target_share: float | None) -> None:
        super().__init__()
        self.masking, self.target_share = masking, target_share
        self.collate = MaskedCollator(False, target_share)

    def check(self) -> None:
        self.masking.check()

    @property
    def needs_boundaries(self) -> bool:
        return self.masking.needs_words

    def require(self, data: DataArguments) -> None:
        if self.needs_boundaries and data.segmenter == "none":
            data.segmenter = "characters"

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        add_mask_token(tokenizer)
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            return tokenizer
        return for_role(tokenizer, "encoder")

    def role(self) -> dict[str, Any]:
        return {"is_causal": False, "masked_next_token": False}

    def lay_out(self, corpus: Corpus, row_length: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> Layout:
        self.masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), seed)
        return TrainingRows(corpus, row_length, 0, seed, self.overlap)

    def make_rows(self, layout: TrainingRows, plan: Plan) -> Dataset:
        self._check_room(0, plan)
        layout.num_rows = plan.num_rows
        return MaskedRows(layout, self.masker, plan.steps, None)

    def _check_room(self, causal_share: float, plan: Plan) -> None:
        """Refuse a target_share that the targets of a batch, such a share of whose rows is causal, will not fit."""
        rate = max(self.masking.first_rate, self.masking.final_rate)
        causal = max(math.ceil(causal_share * rows) / rows for rows in plan.batches.sizes())
        needed = causal + (1 - causal) * rate
        if self.target_share is not None and self.target_share < needed:
            raise RecipeError(
                f"target_share is {self.target_share}, but up to {needed:.2%} of a batch's tokens are predicted on "
                f"average: give at least {math.ceil(needed * 1000 - 1e-6) / 1000}, better a little more."
            )

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: PreTrainedTokenizerBase) -> Evaluator:
        masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), VALIDATION_SEED)
        rows = ValidationRows(corpus, row_length, self.overlap)
        return MaskedEvaluator(MaskedValidationRows(rows, masker, self.masking.final_rate))

    def make_samples(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, corpus: Corpus
    ) -> list[str]:
        return sample_fills(model, tokenizer, prompt, corpus)

    def plan_lines(self) -> list[tuple[str, str]]:
        rates = f"{self.masking.first_rate:.0%}"
        if self.masking.final_rate != self.masking.first_rate:
            rates += f" to {self.masking.final_rate:.0%}"
        return [("masking", f"{self.masking.masking}, {rates} of the tokens")]

    def head_share(self) -> float:
        return (self.masking.first_rate + self.masking.final_rate) / 2
