"""Masked and causal rows in one batch, and those of diffusion: one model that reads and writes in every direction."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import transformers
from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.schedule import Schedule
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.datasets.diffusion import (
    DiffusionArguments,
    DiffusionRows,
    DiffusionValidationRows,
    DocumentMasker,
)
from weft.recipes.pretraining.datasets.hybrid import (
    CAUSAL,
    DIFFUSION,
    HybridArguments,
    HybridCollator,
    HybridRows,
)
from weft.recipes.pretraining.datasets.masking import MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.causal import CausalEvaluator, CausalObjective, JoinedEvaluator
from weft.recipes.pretraining.objectives.masked import (
    VALIDATION_SEED,
    MaskedEvaluator,
    MaskedObjective,
    make_vocabulary,
)
from weft.recipes.pretraining.objectives.masked_diffusion import DiffusionEvaluator, copy_sampler, sample_unmasked
from weft.recipes.pretraining.plan import Plan
from weft.recipes.training.evaluator import EvaluatingTrainer, Evaluator
from weft.recipes.training.model_arguments import ModelArguments

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch.utils.data import Dataset


SAMPLER = "diffusion"  # the folder with the sampler: at the root it would take the place of writing left to right
BOUND = ("loss", "bits_per_byte", "bits_per_byte_error")  # of a DiffusionEvaluator, which gives as many sums


class HybridObjective(MaskedObjective):
    """Rows of several kinds in one batch: causal ones, and masked ones in which a token is predicted from the place
    before it, so that both share one head (GPT-BERT, https://huggingface.co/papers/2410.24159). With a diffusion_share
    also rows in which each document is masked at a rate of its own (MDLM, https://huggingface.co/papers/2406.07524).
    Rows of every kind count the same in the loss, whatever the number of their targets.

    A run that ends with masked rows may predict them from their own places, so that it ends as a masked model
    (https://huggingface.co/papers/2507.00994 compares such runs with others)."""

    summary = (
        "A language model in both directions: it continues text (AutoModelForCausalLM) and fills in masked tokens "
        "(AutoModelForMaskedLM). Trained with Weft; the code it needs is in this folder."
    )
    arguments = (MaskingArguments, HybridArguments, DiffusionArguments)
    other_auto_classes = ("AutoModelForCausalLM",)
    kept_back = ("diffusion_rows",)
    metrics = {
        "causal_loss": ".4f",
        **CausalObjective.metrics,
        **MaskedObjective.metrics,
        **{f"diffusion_{name}": ".4f" for name in BOUND},
    }
    headline = ("masked_loss", "masked_accuracy", "causal_loss", "bits_per_byte", "diffusion_bits_per_byte")
    parts = dict.fromkeys(("causal", "masked", "diffusion"), "nats per token")
    collator = HybridCollator
    overlap = 1

    def __init__(
        self, masking: MaskingArguments, hybrid: HybridArguments, diffusion: DiffusionArguments | None = None
    ) -> None:
        super().__init__(masking)
        self.hybrid, self.diffusion = hybrid, diffusion or DiffusionArguments()
        if hybrid.diffusion_share:
            self.summary += (
                " It also writes by filling in masks, in any order: `generate` of AutoModelForCausalLM with "
                f'`custom_generate="FOLDER/{SAMPLER}"` and `trust_remote_code=True`.'
            )
        else:
            self.idle_fields["validation_rates"] = "--diffusion_share"
        if hybrid.ends_masked:
            self.overlap = 0
            for name in ("summary", "other_auto_classes", "metrics", "headline"):
                setattr(self, name, getattr(MaskedObjective, name))

    @property
    def causal_share(self) -> Schedule:
        return self.hybrid.share

    def check(self, parsed: Parsed) -> None:
        super().check(parsed)
        self.hybrid.check()
        self.diffusion.check()
        if self.hybrid.diffusion_share and self.masking.target_share is not None:
            raise RecipeError(
                "target_share cannot be given with diffusion_share: a row of diffusion has any number of targets, and "
                "none may be left out. Leave target_share out."
            )
        backend = parsed[ModelArguments].attn_implementation or ""
        if "flash" in backend:
            raise RecipeError(
                f"attn_implementation {backend} attends in one direction per batch, and hybrid rows in both: choose "
                "sdpa or flex_attention."
            )

    def check_model(self, config: "weft.WeftConfig") -> None:
        if "recurrent" in config.layer_types:
            raise RecipeError(
                "objective hybrid has rows of both directions, and the weights of recurrent layers belong to one: "
                "choose linear_attention, or another objective."
            )

    def role(self) -> dict[str, Any]:
        return {"is_causal": False, "masked_next_token": not self.hybrid.ends_masked}

    def pack(self, corpus: Corpus, row_length: int, seed: int, tokenizer: Tokenizer) -> TrainingRows:
        self.document_masker = DocumentMasker(make_vocabulary(tokenizer), seed, from_before=bool(self.overlap))
        return super().pack(corpus, row_length, seed, tokenizer)

    def make_rows(self, packed: TrainingRows, plan: Plan) -> "Dataset":
        self._follow(plan)
        packed.num_rows = plan.num_rows
        diffusion = DiffusionRows(packed, self.document_masker) if self.hybrid.diffusion_share else None
        return HybridRows(packed, self.masker, plan.steps, self.hybrid, diffusion)

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        masked = super().make_evaluator(corpus, row_length, tokenizer)
        if self.hybrid.ends_masked:
            return masked
        causal = CausalEvaluator(ValidationRows(corpus, row_length), masked_model=True)
        if not self.hybrid.diffusion_share:
            return HybridEvaluator(causal, masked, self.causal_share.final)
        masker = DocumentMasker(make_vocabulary(tokenizer), VALIDATION_SEED, from_before=bool(self.overlap))
        # of pairs one place less, so that no span has more tokens than a row has places
        rows = ValidationRows(corpus, max(1, row_length - self.overlap), self.overlap)
        bound = DiffusionEvaluator(DiffusionValidationRows(rows, masker, self.diffusion.validation_rates))
        return HybridEvaluator(causal, masked, self.causal_share.final, bound, self.hybrid.diffusion_share)

    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        from weft.recipes.pretraining.samples import sample_texts

        if self.hybrid.ends_masked:
            return super().make_samples(model, tokenizer, prompt, corpus)
        causal = weft.WeftForCausalLM(model.config)
        causal.load_state_dict(model.state_dict())
        causal.to(model.device).eval()
        samples = [*sample_texts(causal, tokenizer, prompt), *super().make_samples(model, tokenizer, prompt, corpus)]
        return samples + (sample_unmasked(model, tokenizer, prompt) if self.hybrid.diffusion_share else [])

    def write_beside(self, folder: Path) -> None:
        if self.hybrid.diffusion_share:
            copy_sampler(folder / SAMPLER)

    def loss_divisors(self, batch: Batch) -> "dict[str, torch.Tensor]":
        return {"num_items_in_batch": batch["loss_weights"].sum()}

    def loss_parts(self, batch: Batch, outputs: Any) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
        rows = batch["predict_from"] // batch["input_ids"].shape[1]
        is_causal, is_diffusion = (batch[f"{kind}_rows"][rows] for kind in (CAUSAL, DIFFUSION))
        nats, is_target = outputs["target_nats"], batch["labels"] != weft.IGNORE_INDEX
        return {
            "causal": (nats, is_target & is_causal),
            "masked": (nats, is_target & ~is_causal & ~is_diffusion),
            "diffusion": (nats, batch["loss_weights"] * is_diffusion),
        }

    def plan_lines(self) -> list[tuple[str, str]]:
        hybrid, lines = self.hybrid, super().plan_lines()
        lines.append(("causal rows", self.causal_share.describe("{:.2%}".format, self.num_steps)))
        if hybrid.diffusion_share:
            rates = f"each document at a rate of its own; held-out ones at {self.diffusion.validation_rates} rates"
            lines.append(("diffusion", f"{hybrid.diffusion_share:.2%} of the rows, {rates}"))
        return lines

    def head_shares(self, places: np.ndarray, steps: int) -> np.ndarray:
        found, rate = super().head_shares(places, steps), self.masking.rate.at_all(places, steps)
        diffusion = np.minimum(self.hybrid.diffusion_share, 1 - self.causal_share.at_all(places, steps))
        return found + diffusion * (0.5 - rate)  # half of their tokens, instead of those of masked rows


class HybridEvaluator(JoinedEvaluator):
    """The evaluations of a model that is causal and masked, and of one that was trained for diffusion its bound too.

    Metrics: those of the first two; of the bound diffusion_loss (nats per token of the text, at most),
    diffusion_bits_per_byte and diffusion_bits_per_byte_error. loss is the mean of all, weighted as the last rows of
    training.
    """

    def __init__(
        self,
        causal: CausalEvaluator,
        masked: MaskedEvaluator,
        causal_share: float,
        diffusion: DiffusionEvaluator | None = None,
        diffusion_share: float = 0.0,
    ) -> None:
        super().__init__(causal, masked)
        self.diffusion, self.causal_share, self.diffusion_share = diffusion, causal_share, diffusion_share

    def sums(self, trainer: EvaluatingTrainer) -> "torch.Tensor":
        import torch

        found = super().sums(trainer)
        return found if self.diffusion is None else torch.cat((found, self.diffusion.sums(trainer)))

    def metrics(self, *sums: float) -> dict[str, float]:
        if self.diffusion is None:
            return super().metrics(*sums)
        found = super().metrics(*sums[: -len(BOUND)])
        bound = self.diffusion.metrics(*sums[-len(BOUND) :])
        told = {f"diffusion_{name}": bound[name] for name in BOUND}
        return {**found, **told, "loss": found["loss"] + self.diffusion_share * bound["loss"]}

    def join(self, causal: dict[str, float], other: dict[str, float]) -> dict[str, float]:
        masked_share = 1 - self.causal_share - self.diffusion_share
        loss = self.causal_share * causal["loss"] + masked_share * other["loss"]
        return {**other, **causal, "causal_loss": causal["loss"], "loss": loss}


OBJECTIVES = {"hybrid": HybridObjective}
