"""Masked and causal rows in one batch, for one model in both directions."""

from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftForCausalLM
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import MaskedCollator
from weft.recipes.pretraining.datasets.hybrid import HybridArguments
from weft.recipes.pretraining.datasets.masked import MaskedRows
from weft.recipes.pretraining.datasets.masking import MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.base import as_decoder
from weft.recipes.pretraining.objectives.masked import MaskedObjective
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.samples import sample_fills, sample_texts
from weft.recipes.pretraining.validation import CausalEvaluator, HybridEvaluator
from weft.tokenizer.special_tokens import add_mask_token


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
