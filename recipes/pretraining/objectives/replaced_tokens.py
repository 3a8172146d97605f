"""Replaced-token detection: which tokens of a text are not its own, but were drawn by a small masked model."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import transformers
from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.datasets.replaced_tokens import (
    ReplacedTokenCollator,
    ReplacedTokenRows,
    ReplacedTokenValidationRows,
)
from weft.recipes.pretraining.objectives.masked import (
    VALIDATION_SEED,
    MaskedEvaluator,
    MaskedObjective,
    make_vocabulary,
)
from weft.recipes.pretraining.plan import Plan
from weft.recipes.training.evaluator import Evaluator
from weft.recipes.training.model_arguments import ModelArguments
from weft.recipes.training.sharding import shards_weights

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch import nn
    from torch.utils.data import Dataset

    from weft.recipes.training.model_setup import ParameterCounts

LABELS = ("ORIGINAL", "REPLACED")
EMBEDDING_SHARING = ("gradient_disentangled", "shared", "none")


@dataclass
class ReplacedTokenArguments(Options):
    """The generator of replaced tokens, and what the model that tells them apart shares with it."""

    generator_depth: float = option(
        0.5, "replaced-tokens: layers of the generator, as a share of the model's", above=0, most=1
    )
    embedding_sharing: str = option(
        "gradient_disentangled",
        "replaced-tokens: gradient_disentangled (the generator's embeddings without gradient plus a matrix of one's "
        "own, as DeBERTa-v3), shared (one matrix, as ELECTRA) or none",
        choices=EMBEDDING_SHARING,
    )
    discriminator_weight: float = option(
        50.0, "replaced-tokens: weight of the loss of telling tokens apart beside the generator's", above=0
    )


class ReplacedTokenObjective(MaskedObjective):
    """A generator draws tokens for the masked places, and a discriminator tells of every token whether it is the text's
    own (ELECTRA, https://huggingface.co/papers/2003.10555). Only the discriminator is published."""

    summary = (
        "An encoder to be fine-tuned, which learnt to tell the tokens of a text that another model had put there "
        "(AutoModelForTokenClassification says which). Trained with Weft; the code it needs is in this folder."
    )
    arguments = (MaskingArguments, ReplacedTokenArguments)
    model_class = property(lambda self: weft.WeftForTokenClassification)
    auto_class, teacher_class = "AutoModelForTokenClassification", None
    other_auto_classes = ("AutoModel", "AutoModelForSequenceClassification")
    pipeline_tag = "token-classification"
    metrics = {
        "generator_loss": ".4f",
        "discriminator_loss": ".4f",
        "mcfadden_r2": ".4f",
        "detection_accuracy": ".2%",
        "replaced_share": ".2%",
        "replaced_recall": ".2%",
        "replaced_f1": ".2%",
    }
    headline = ("mcfadden_r2", "replaced_f1", "generator_loss")
    parts = {"generator": "nats per masked token", "discriminator": "nats per token"}
    collator = ReplacedTokenCollator

    def __init__(self, masking: MaskingArguments, replaced: ReplacedTokenArguments) -> None:
        super().__init__(masking)
        self.replaced = replaced

    def check(self, parsed: Parsed) -> None:
        super().check(parsed)
        self.replaced.check()
        if parsed[ModelArguments].model_name_or_path is not None:
            raise RecipeError(
                "model_name_or_path cannot be given with objective replaced-tokens, whose new generator would be far "
                "behind that model: leave it out, or choose masked."
            )
        if shards_weights():
            raise RecipeError(
                "objective replaced-tokens trains two models as one, which is not sharded: launch with ddp.yaml."
            )

    def role(self) -> dict[str, Any]:
        names = dict(enumerate(LABELS))
        return {**super().role(), "id2label": names, "label2id": {name: number for number, name in names.items()}}

    def trained(self, model: "transformers.PreTrainedModel") -> "transformers.PreTrainedModel":
        from weft.recipes.pretraining.replaced_tokens import ReplacedTokenModel

        replaced = self.replaced
        return ReplacedTokenModel(
            model, replaced.generator_depth, replaced.embedding_sharing, replaced.discriminator_weight
        )

    def published(self, model: "transformers.PreTrainedModel") -> "transformers.PreTrainedModel":
        return model.discriminator

    def training_only(self, model: "transformers.PreTrainedModel") -> "dict[str, torch.Tensor]":
        return model.training_only()

    def make_rows(self, packed: TrainingRows, plan: Plan) -> "Dataset":
        rows = super().make_rows(packed, plan)
        return ReplacedTokenRows(rows.rows, rows.masker, rows.steps)

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), VALIDATION_SEED)
        rows = ValidationRows(corpus, row_length, overlap=0)
        masked = ReplacedTokenValidationRows(rows, masker, self.masking.held_out_rate)
        return ReplacedTokenEvaluator(masked, self.replaced.discriminator_weight)

    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        from weft.recipes.pretraining.samples import sample_replaced

        return sample_replaced(model, tokenizer, prompt, corpus)

    def loss_divisors(self, batch: Batch) -> "dict[str, torch.Tensor]":
        return {**super().loss_divisors(batch), "num_tokens_in_batch": batch["is_text"].sum()}

    def loss_parts(self, batch: Batch, outputs: Any) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
        return {
            "generator": (outputs["target_nats"], batch["labels"] != weft.IGNORE_INDEX),
            "discriminator": (outputs["discriminator_nats"], batch["is_text"].flatten()),
        }

    def plan_lines(self) -> list[tuple[str, str]]:
        replaced = self.replaced
        generator = f"{replaced.generator_depth:g} times the layers, embeddings {replaced.embedding_sharing}"
        loss = f"the generator's and {replaced.discriminator_weight:g} times the discriminator's, which is the model"
        return [*super().plan_lines(), ("generator", generator), ("loss", loss)]

    def flops_per_token(
        self, config: "weft.WeftConfig", parameters: "ParameterCounts", row_length: int, head_share: float
    ) -> float:
        from weft.recipes.pretraining.replaced_tokens import generator_config
        from weft.recipes.training.model_setup import count_parameters

        helper = generator_config(config, self.replaced.generator_depth)
        of_model = super().flops_per_token(config, parameters, row_length, head_share)
        counts = count_parameters(helper, weft.WeftForMaskedLM)
        return of_model + super().flops_per_token(helper, counts, row_length, head_share)


class ReplacedTokenEvaluator(MaskedEvaluator):
    """Tells the replaced tokens of the held-out text apart, with the same masks and random numbers in every run. Which
    tokens are drawn by these follows from the run's own generator.

    Metrics: loss, the weighted sum of generator_loss (nats per masked token) and discriminator_loss (nats per token);
    mcfadden_r2, which is 1 less that loss over the one of whoever knows the share of replaced tokens alone;
    detection_accuracy; replaced_share, the share of all tokens that are replaced; replaced_recall, the share of these
    that are found; and replaced_f1, the harmonic mean of that and of the share of what is called replaced that is.
    """

    collator = ReplacedTokenCollator

    def __init__(self, rows: "Dataset", weight: float) -> None:
        super().__init__(rows)
        self.weight = weight

    def score(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        import torch

        outputs = model(**batch)
        said, true, is_text = outputs.logits.argmax(-1), outputs.is_replaced, batch["is_text"]
        counted = (
            *(outputs.target_nats.double().sum(), (batch["labels"] != weft.IGNORE_INDEX).sum()),
            *(outputs.discriminator_nats.double().sum(), is_text.sum(), (said == true).sum()),
            *((true == 1).sum(), ((said == 1) & is_text).sum(), ((said == 1) & (true == 1)).sum()),
        )
        return torch.stack([number.cpu().double() for number in counted])

    def metrics(
        self,
        generator_nats: float,
        targets: float,
        nats: float,
        tokens: float,
        right: float,
        replaced: float,
        flagged: float,
        found: float,
    ) -> dict[str, float]:
        of_generator, of_discriminator, share = generator_nats / targets, nats / tokens, replaced / tokens
        result = {
            "loss": of_generator + self.weight * of_discriminator,
            "generator_loss": of_generator,
            "discriminator_loss": of_discriminator,
            "detection_accuracy": right / tokens,
            "replaced_share": share,
        }
        if 0 < share < 1:
            known = -share * math.log(share) - (1 - share) * math.log(1 - share)
            result |= {"mcfadden_r2": 1 - of_discriminator / known, "replaced_recall": found / replaced}
            result |= {"replaced_f1": 2 * found / (replaced + flagged)}
        return result


OBJECTIVES = {"replaced-tokens": ReplacedTokenObjective}
