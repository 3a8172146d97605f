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
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.base import Objective, as_decoder
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.validation import RowEvaluator, token_nats
from weft.recipes.training.evaluator import EvaluatingTrainer, Evaluator
from weft.recipes.training.model_arguments import DEFAULT_EXTRAS

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
    """Every token is predicted from those before it."""

    summary = "A causal language model: it continues text. Trained with Weft; the code it needs is in this folder."
    model_class = property(lambda self: weft.WeftForCausalLM)
    auto_class = teacher_class = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    metrics = {"perplexity": ",.2f", "bits_per_byte": ".4f"}
    headline = ("bits_per_byte",)
    collate = staticmethod(collate_causal)
    arguments = (ServingArguments,)

    def __init__(self, serving: ServingArguments | None = None) -> None:
        super().__init__()
        self.serving = serving or ServingArguments()
        self.is_plain = self.serving.purpose == SERVING

    def check(self, parsed: Parsed) -> None:
        self.serving.check()
        if not self.is_plain:
            return
        for name in ("config_name", "model_name_or_path"):
            parsed.refuse_together(("purpose",), name, "it gives the shape")
        given = [name for name in DEFAULT_EXTRAS if parsed.model.get(name)]
        if given:
            raise RecipeError(f"{' and '.join(given)} cannot be given for serving, which leaves it out: choose one.")

    def require(self, data: DataArguments) -> None:
        if self.is_plain and data.tokenizer_type == "bpe" and not data.tokenizer_name and not data.add_prefix_space:
            data.pre_tokenizer = "gpt2"

    def plan_lines(self) -> list[tuple[str, str]]:
        return [("for", f"serving: without {' and '.join(DEFAULT_EXTRAS)} ({COST})")] if self.is_plain else []

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        return as_decoder(tokenizer)

    def role(self) -> dict[str, Any]:
        return {"is_causal": True}

    def pack(self, corpus: Corpus, row_length: int, seed: int, tokenizer: Tokenizer) -> TrainingRows:
        return TrainingRows(corpus, row_length, 0, seed)

    def make_rows(self, packed: TrainingRows, plan: Plan) -> "Dataset":
        packed.num_rows = plan.num_rows
        return packed

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        return CausalEvaluator(ValidationRows(corpus, row_length))

    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        from weft.recipes.pretraining.samples import sample_texts

        return sample_texts(model, tokenizer, prompt)


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
