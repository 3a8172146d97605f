"""Masked diffusion: masked tokens are predicted at every rate of masking, so that text is written in any order."""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.masked_diffusion import bound_variance
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.datasets.diffusion import (
    DiffusionArguments,
    DiffusionCollator,
    DiffusionRows,
    DiffusionValidationRows,
    DocumentMasker,
    collate_rates,
)
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.objectives.masked import VALIDATION_SEED, as_encoder, make_vocabulary
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.validation import RowEvaluator
from weft.recipes.training.evaluator import Evaluator

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch import nn
    from torch.utils.data import Dataset

SAMPLES, SAMPLE_LENGTH = 3, 60  # texts of the card, and tokens of each


class DiffusionObjective(Objective):
    """Every document is masked at a rate of its own, and a masked token counts by the inverse of that rate (MDLM,
    https://huggingface.co/papers/2406.07524; LLaDA, https://huggingface.co/papers/2502.09992).

    The loss is then a bound on the nats of a text. The model is a masked language model like any other.
    """

    summary = (
        "A masked diffusion language model: it fills in masked tokens, be they few or all (AutoModelForMaskedLM), and "
        "so writes text in any order (`generate` of AutoModelForCausalLM, loaded with trust_remote_code=True, which "
        "takes the sampler of `custom_generate/`). Trained with Weft; the code it needs is in this folder."
    )
    arguments = (DiffusionArguments,)
    model_class = property(lambda self: weft.WeftForMaskedLM)
    auto_class = teacher_class = "AutoModelForMaskedLM"
    other_auto_classes = ("AutoModelForCausalLM",)
    pipeline_tag = "fill-mask"
    metrics = {"perplexity": ",.2f", "bits_per_byte": ".4f", "bits_per_byte_error": ".4f"}
    headline = ("bits_per_byte",)
    collate = DiffusionCollator()

    def __init__(self, diffusion: DiffusionArguments) -> None:
        super().__init__()
        self.diffusion = diffusion

    def check(self, parsed: Parsed) -> None:
        self.diffusion.check()

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        return as_encoder(tokenizer)

    def role(self) -> dict[str, Any]:
        return {"is_causal": False, "masked_next_token": False}

    def pack(self, corpus: Corpus, row_length: int, seed: int, tokenizer: Tokenizer) -> TrainingRows:
        self.masker = DocumentMasker(make_vocabulary(tokenizer), seed)
        return TrainingRows(corpus, row_length, 0, seed, overlap=0)

    def make_rows(self, packed: TrainingRows, plan: Plan) -> "Dataset":
        packed.num_rows = plan.num_rows
        return DiffusionRows(packed, self.masker)

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        masker = DocumentMasker(make_vocabulary(tokenizer), VALIDATION_SEED)
        rows = ValidationRows(corpus, row_length, overlap=0)
        return DiffusionEvaluator(DiffusionValidationRows(rows, masker, self.diffusion.validation_rates))

    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        return sample_unmasked(model, tokenizer, prompt)

    def write_beside(self, folder: Path) -> None:
        copy_sampler(folder)

    def loss_divisors(self, batch: Batch) -> "dict[str, torch.Tensor]":
        return {"num_items_in_batch": batch["loss_weights"].sum()}

    def plan_lines(self) -> list[tuple[str, str]]:
        rates = self.diffusion.validation_rates
        return [("masking", f"each document at a rate of its own, weight 1/rate; held-out ones at {rates} rates")]

    def head_share(self) -> float:
        return 0.5


class DiffusionEvaluator(RowEvaluator):
    """Bounds the nats of the held-out text, with the masks of `DiffusionValidationRows`.

    Metrics: loss (nats per token of the text, at most), perplexity (its exponential), bits_per_byte (of the text's
    UTF-8, at most), and bits_per_byte_error, the standard error that the choice of rates and masks leaves.
    """

    def __init__(self, rows: DiffusionValidationRows) -> None:
        """Raises RecipeError where there is no text."""
        super().__init__(rows, collate_rates)
        self.byte_count = rows.rows.byte_count
        if not any(rows[index]["is_text"].any() for index in range(len(rows))):
            raise RecipeError("the held-out text has no token to predict: hold more text out.")

    def score(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        import torch

        rows, rates, length = batch["input_ids"].shape
        documents = (batch["owners"] + length * torch.arange(rows, device=batch["owners"].device)[:, None]).flatten()
        totals = torch.zeros(rates, rows * length, dtype=torch.float64)
        for total, ids, targets, weights in zip(
            totals, *(batch[n].unbind(1) for n in ("input_ids", "targets", "weights"))
        ):
            places = (targets != weft.IGNORE_INDEX).flatten().nonzero()[:, 0]
            chosen = {"predict_from": places, "labels": targets.flatten()[places]}
            nats = model(input_ids=ids, position_ids=batch["position_ids"], **chosen).target_nats
            counted = nats.cpu().double() * weights.flatten()[places].cpu().double()
            total.index_add_(0, documents[places].cpu(), counted)
        tokens = batch["is_text"].sum().cpu().double()
        return torch.stack((totals.mean(0).sum(), bound_variance(totals).sum(), tokens))

    def metrics(self, nats: float, variance: float, tokens: float) -> dict[str, float]:
        loss, bytes_in_nats = nats / tokens, math.log(2) * self.byte_count
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "bits_per_byte": nats / bytes_in_nats,
            "bits_per_byte_error": math.sqrt(max(variance, 0.0)) / bytes_in_nats,
        }


def sample_unmasked(model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str) -> list[str]:
    """Some texts written by filling in masks behind a prompt, always the same, for a model card."""
    from weft.recipes.generation.diffusion.texts import write_texts

    transformers.set_seed(0)
    length = max(1, min(SAMPLE_LENGTH, tokenizer.model_max_length - len(tokenizer(prompt).input_ids)))
    return write_texts(model, tokenizer, [prompt] * SAMPLES, length, temperature=0.8, top_p=0.95)


def copy_sampler(folder: Path) -> None:
    """Put the sampler into a folder, where `generate` of transformers finds it as that folder's `custom_generate`."""
    from weft.recipes.generation.diffusion.custom_generate import generate

    target = folder / "custom_generate" / "generate.py"
    target.parent.mkdir(parents=True)
    shutil.copyfile(generate.__file__, target)


OBJECTIVES = {"diffusion": DiffusionObjective}
