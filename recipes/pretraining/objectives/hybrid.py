"""Masked and causal rows in one batch, for one model in both directions."""

from typing import TYPE_CHECKING, Any

import transformers
from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.datasets.hybrid import HybridArguments, HybridCollator, HybridRows
from weft.recipes.pretraining.datasets.masking import MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.causal import CausalEvaluator, CausalObjective, JoinedEvaluator
from weft.recipes.pretraining.objectives.masked import MaskedEvaluator, MaskedObjective
from weft.recipes.pretraining.plan import Plan
from weft.recipes.training.evaluator import Evaluator
from weft.recipes.training.model_arguments import ModelArguments

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch.utils.data import Dataset


class HybridObjective(MaskedObjective):
    """Rows of both kinds in one batch: causal ones, and masked ones in which a token is predicted from the place before
    it, so that both share one head (GPT-BERT, https://huggingface.co/papers/2410.24159). Rows of both kinds count the
    same in the loss, whatever the number of their targets."""

    summary = (
        "A language model in both directions: it continues text (AutoModelForCausalLM) and fills in masked tokens "
        "(AutoModelForMaskedLM). Trained with Weft; the code it needs is in this folder."
    )
    arguments = (MaskingArguments, HybridArguments)
    other_auto_classes = ("AutoModelForCausalLM",)
    metrics = {"causal_loss": ".4f", **CausalObjective.metrics, **MaskedObjective.metrics}
    headline = ("masked_loss", "masked_accuracy", "causal_loss", "bits_per_byte")
    parts = {"causal": "nats per token", "masked": "nats per token"}
    collator = HybridCollator
    overlap = 1

    def __init__(self, masking: MaskingArguments, hybrid: HybridArguments) -> None:
        super().__init__(masking)
        self.hybrid = hybrid

    def check(self, parsed: Parsed) -> None:
        super().check(parsed)
        self.hybrid.check()
        backend = parsed[ModelArguments].attn_implementation or ""
        if "flash" in backend:
            raise RecipeError(
                f"attn_implementation {backend} attends in one direction per batch, and hybrid rows in both: choose "
                "sdpa or flex_attention."
            )

    def role(self) -> dict[str, Any]:
        return {"is_causal": False, "masked_next_token": True}

    def min_steps(self) -> int:
        return int(self.hybrid.causal_steps) + 1

    def make_rows(self, packed: TrainingRows, plan: Plan) -> "Dataset":
        if self.hybrid.causal_steps >= plan.max_steps:
            raise RecipeError(
                f"causal_steps is {self.hybrid.causal_steps:g}, as long as the whole run of {plan.max_steps} steps: "
                "give fewer, or train with pretrain_clm.py."
            )
        self._check_target_share(1 if self.hybrid.causal_steps else self.hybrid.causal_share, plan)
        packed.num_rows = plan.num_rows
        return HybridRows(packed, self.masker, plan.steps, self.hybrid)

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        causal = CausalEvaluator(ValidationRows(corpus, row_length), masked_model=True)
        masked = super().make_evaluator(corpus, row_length, tokenizer)
        return HybridEvaluator(causal, masked, self.hybrid.causal_share)

    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        from weft.recipes.pretraining.samples import sample_texts

        causal = weft.WeftForCausalLM(model.config)
        causal.load_state_dict(model.state_dict())
        causal.to(model.device).eval()
        return [*sample_texts(causal, tokenizer, prompt), *super().make_samples(model, tokenizer, prompt, corpus)]

    def loss_divisors(self, batch: Batch) -> "dict[str, torch.Tensor]":
        return {"num_items_in_batch": batch["loss_weights"].sum()}

    def loss_parts(self, batch: Batch, outputs: Any) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
        is_causal = batch["causal_rows"][batch["predict_from"] // batch["input_ids"].shape[1]]
        nats, is_target = outputs["target_nats"], batch["labels"] != weft.IGNORE_INDEX
        return {"causal": (nats, is_target & is_causal), "masked": (nats, is_target & ~is_causal)}

    def plan_lines(self) -> list[tuple[str, str]]:
        hybrid, lines = self.hybrid, super().plan_lines()
        steps = hybrid.causal_steps
        until = f"{steps:.0%} of the steps" if steps < 1 else f"{int(steps):,} steps"
        first = f"all in the first {until}, then " if steps else ""
        return [*lines, ("causal rows", f"{first}{hybrid.causal_share:.2%}")]

    def head_share(self) -> float:
        return self.hybrid.causal_share + (1 - self.hybrid.causal_share) * super().head_share()


class HybridEvaluator(JoinedEvaluator):
    """Both evaluations of a model that is causal and masked; loss is their mean, weighted as the rows in training."""

    def __init__(self, causal: CausalEvaluator, masked: MaskedEvaluator, causal_share: float) -> None:
        super().__init__(causal, masked)
        self.causal_share = causal_share

    def join(self, causal: dict[str, float], other: dict[str, float]) -> dict[str, float]:
        loss = self.causal_share * causal["loss"] + (1 - self.causal_share) * other["loss"]
        return {**other, **causal, "causal_loss": causal["loss"], "loss": loss}


OBJECTIVES = {"hybrid": HybridObjective}
