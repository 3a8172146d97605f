"""Next-token prediction: every token from those before it."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import transformers
from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import Batch, collate_causal
from weft.recipes.pretraining.datasets.fill_in_the_middle import FillInTheMiddleRows, InfillingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.datasets.prefix import PrefixArguments, PrefixRows
from weft.recipes.pretraining.objectives.base import Objective, as_decoder
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.validation import RowEvaluator, token_nats
from weft.recipes.training.evaluator import EvaluatingTrainer, Evaluator
from weft.recipes.training.model_arguments import DEFAULT_EXTRAS, ModelArguments
from weft.tokenizer.fill_in_the_middle import MiddleTokens

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch import nn
    from torch.utils.data import Dataset


SERVING = "serving"
# What models without DEFAULT_EXTRAS lost, in bits/byte (RESULTS.md, section 26)
COST = "0.02 to 0.09 bits/byte more, measured up to 6 million parameters and 4 million tokens"


@dataclass
class ServingArguments(Options):
    """What a causal model is for."""

    purpose: str | None = option(
        None,
        "serving (or --for serving): a model and tokenizer that llama.cpp and stock classes have too; a higher loss",
        choices=(SERVING,),
        also="for",
    )


class CausalObjective(Objective):
    """Every token is predicted from those before it.

    Documents may be rearranged for infilling, and have prefixes that are seen in both directions. Held-out text is
    always scored from left to right.
    """

    summary = "A causal language model: it continues text. Trained with Weft; the code it needs is in this folder."
    model_class = property(lambda self: weft.WeftForCausalLM)
    auto_class = teacher_class = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    metrics = {"perplexity": ",.2f", "bits_per_byte": ".4f"}
    headline = ("bits_per_byte",)
    collate = staticmethod(collate_causal)
    arguments = (ServingArguments, InfillingArguments, PrefixArguments)

    def __init__(
        self,
        serving: ServingArguments | None = None,
        infilling: InfillingArguments | None = None,
        prefix: PrefixArguments | None = None,
    ) -> None:
        super().__init__()
        self.serving = serving or ServingArguments()
        self.infilling, self.prefix = infilling or InfillingArguments(), prefix or PrefixArguments()
        self.is_plain = self.serving.purpose == SERVING
        self.idle_fields |= self.infilling.idle_fields()

    def check(self, parsed: Parsed) -> None:
        for fields in (self.serving, self.infilling, self.prefix):
            fields.check()
        backend = parsed[ModelArguments].attn_implementation or ""
        if self.prefix.prefix_share and "flash" in backend:
            raise RecipeError(
                f"attn_implementation {backend} attends in one direction, and prefixes in both: choose sdpa or "
                "flex_attention, or leave prefix_share out."
            )
        if not self.is_plain:
            return
        for name in ("config_name", "model_name_or_path"):
            parsed.refuse_together(("purpose",), name, "it gives the shape")
        given = [name for name in DEFAULT_EXTRAS if parsed.model.get(name)]
        if given:
            raise RecipeError(f"{' and '.join(given)} cannot be given for serving, which leaves it out: choose one.")

    def check_model(self, config: "weft.WeftConfig") -> None:
        if self.prefix.prefix_share and config.has_states:
            raise RecipeError(
                "prefix_share cannot be given with layer_types of linear_attention or recurrent, which read text one "
                "way: leave it out."
            )

    def require(self, data: DataArguments) -> None:
        self.infilling.check_data(data)
        if self.is_plain and data.tokenizer_type == "bpe" and not data.tokenizer_name and not data.add_prefix_space:
            data.pre_tokenizer = "gpt2"

    def plan_lines(self) -> list[tuple[str, str]]:
        lines = []
        if self.is_plain:
            lines.append(("for", f"serving: without {' and '.join(DEFAULT_EXTRAS)} ({COST})"))
        if self.infilling.infill_rate:
            rate, first = 100 * self.infilling.infill_rate, 100 * self.infilling.suffix_first
            lines.append(("infilling", f"{rate:g}% of the documents, {first:g}% of these with the suffix first"))
        if self.prefix.prefix_share:
            share = 100 * self.prefix.prefix_share
            lines.append(("prefixes", f"seen in both directions, in {share:g}% of the documents"))
        return lines

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        tokenizer = as_decoder(tokenizer)
        if self.infilling.infill_rate:
            MiddleTokens.give(tokenizer)
        return tokenizer

    def role(self) -> dict[str, Any]:
        return {"is_causal": True}

    def pack(self, corpus: Corpus, row_length: int, seed: int, tokenizer: Tokenizer) -> TrainingRows:
        if not self.infilling.infill_rate:
            return TrainingRows(corpus, row_length, 0, seed)
        return FillInTheMiddleRows(corpus, row_length, 0, seed, self.infilling, MiddleTokens.give(tokenizer))

    def make_rows(self, packed: TrainingRows, plan: Plan) -> "Dataset":
        packed.num_rows = plan.num_rows
        return PrefixRows(packed, self.prefix.prefix_share) if self.prefix.prefix_share else packed

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        return CausalEvaluator(ValidationRows(corpus, row_length))

    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        from weft.recipes.pretraining.samples import sample_middles, sample_texts

        samples, infilling = sample_texts(model, tokenizer, prompt), self.infilling
        if infilling.infill_rate:
            samples += sample_middles(model, tokenizer, corpus, suffix_first=infilling.suffix_first == 1)
        return samples


class CausalEvaluator(RowEvaluator):
    """Scores every token of the held-out text once (but the first of a document without a start token).

    Metrics: loss (nats per target, end tokens included), perplexity (its exponential) and bits_per_byte (the nats of
    the text's own tokens, in bits, over the UTF-8 bytes of the text).
    """

    def __init__(self, rows: ValidationRows, masked_model: bool = False) -> None:
        """Args:
        masked_model: the model is a `WeftForMaskedLM` whose head predicts the next token.
        """
        super().__init__(rows, collate_causal)
        self.masked_model = masked_model

    def score(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        import torch

        ids, labels = batch["input_ids"], batch["labels"]
        inputs = {"input_ids": ids, "position_ids": batch["position_ids"], "use_cache": False}
        if self.masked_model:
            inputs |= {"is_causal": True, "predict_from": torch.arange(ids.numel(), device=ids.device)}
        nats = token_nats(model(**inputs).logits.view(*ids.shape, -1), labels)
        is_target = labels != weft.IGNORE_INDEX
        return torch.stack([nats.sum(), nats[batch["is_text"].cpu()].sum(), is_target.sum().cpu()])

    def metrics(self, nats: float, text_nats: float, targets: float) -> dict[str, float]:
        loss = nats / targets
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "bits_per_byte": text_nats / math.log(2) / self.rows.byte_count,
        }


CAUSAL_SUMS = 3  # that CausalEvaluator gives


class JoinedEvaluator(ABC):
    """A causal evaluation and another one of the same model."""

    def __init__(self, causal: CausalEvaluator, other: RowEvaluator) -> None:
        self.causal, self.other, self.rows = causal, other, other.rows

    def __call__(self, trainer: EvaluatingTrainer) -> dict[str, float]:
        return self.metrics(*self.sums(trainer).tolist())

    def sums(self, trainer: EvaluatingTrainer) -> "torch.Tensor":
        """Those of the causal evaluation, and behind them those of the other one."""
        import torch

        return torch.cat((self.causal.sums(trainer), self.other.sums(trainer)))

    def metrics(self, *sums: float) -> dict[str, float]:
        """The metrics that follow from the sums over all rows."""
        return self.join(self.causal.metrics(*sums[:CAUSAL_SUMS]), self.other.metrics(*sums[CAUSAL_SUMS:]))

    @abstractmethod
    def join(self, causal: dict[str, float], other: dict[str, float]) -> dict[str, float]:
        """Make the metrics out of those of both evaluations."""


OBJECTIVES = {"causal": CausalObjective}
