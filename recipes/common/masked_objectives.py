"""The objectives of pretrain_mlm: masked, masked and causal together, and masked with sentence pairs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining
from weft.recipes.common.corpus import Corpus
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.evaluation import CausalEvaluator, HybridEvaluator, MaskedEvaluator
from weft.recipes.common.generation import sample_fills, sample_texts
from weft.recipes.common.masked_rows import HybridArguments, MaskedCollator, MaskedRows, MaskedValidationRows
from weft.recipes.common.masking import Masker, MaskingArguments, Vocabulary
from weft.recipes.common.objective import Layout, Objective, as_decoder
from weft.recipes.common.packing import TrainingRows, ValidationRows
from weft.recipes.common.plan import Plan
from weft.recipes.common.preparation import DataArguments
from weft.recipes.common.sentence_pairs import SentencePairRows
from weft.recipes.common.trainer import Evaluator
from weft.tokenizer.roles import add_mask_token, for_role

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


class HybridObjective(MaskedObjective):
    """Rows of both kinds in one batch: causal ones, and masked ones in which a token is predicted from the place before
    it, so that both share one head (GPT-BERT, https://huggingface.co/papers/2410.24159). Rows of both kinds count the
    same in the loss, whatever the number of their targets."""

    summary = (
        "A language model in both directions: it continues text (AutoModelForCausalLM) and fills in masked tokens "
        "(AutoModelForMaskedLM). Trained with Weft; the code it needs is in this folder."
    )
    other_auto_classes = ("AutoModelForCausalLM",)
    headline = ("masked_loss", "masked_accuracy", "causal_loss", "bits_per_byte")
    both_directions = True
    overlap = 1

    def __init__(self, masking: MaskingArguments, target_share: float | None, hybrid: HybridArguments) -> None:
        super().__init__(masking, target_share)
        self.hybrid = hybrid
        self.collate = MaskedCollator(True, target_share)

    def check(self) -> None:
        super().check()
        self.hybrid.check()

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        add_mask_token(tokenizer)
        return as_decoder(tokenizer)

    def role(self) -> dict[str, Any]:
        return {"is_causal": False, "masked_next_token": True}

    def least_steps(self) -> int:
        return int(self.hybrid.causal_steps) + 1

    def make_rows(self, layout: TrainingRows, plan: Plan) -> Dataset:
        if self.hybrid.causal_steps >= plan.max_steps:
            raise RecipeError(
                f"causal_steps is {self.hybrid.causal_steps:g}, as long as the whole run of {plan.max_steps} steps: "
                "give fewer, or train with pretrain_clm.py."
            )
        share = 1 if self.hybrid.causal_steps else self.hybrid.causal_share
        self._check_room(share, plan)
        layout.num_rows = plan.num_rows
        return MaskedRows(layout, self.masker, plan.steps, self.hybrid)

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: PreTrainedTokenizerBase) -> HybridEvaluator:
        causal = CausalEvaluator(ValidationRows(corpus, row_length), masked_model=True)
        masked = super().make_evaluator(corpus, row_length, tokenizer)
        return HybridEvaluator(causal, masked, self.hybrid.causal_share)

    def make_samples(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, corpus: Corpus
    ) -> list[str]:
        causal = WeftForCausalLM(model.config)
        causal.load_state_dict(model.state_dict())
        causal.to(model.device).eval()
        return [*sample_texts(causal, tokenizer, prompt), *sample_fills(model, tokenizer, prompt, corpus)]

    def plan_lines(self) -> list[tuple[str, str]]:
        hybrid, lines = self.hybrid, super().plan_lines()
        steps = hybrid.causal_steps
        until = f"{steps:.0%} of the steps" if steps < 1 else f"{int(steps):,} steps"
        first = f"all in the first {until}, then " if steps else ""
        return [*lines, ("causal rows", f"{first}{hybrid.causal_share:.2%}")]

    def head_share(self) -> float:
        return self.hybrid.causal_share + (1 - self.hybrid.causal_share) * super().head_share()


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
