"""Next-token prediction: every token from those before it."""

from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftForCausalLM
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import collate_causal
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.base import Objective, as_decoder
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.samples import sample_texts
from weft.recipes.pretraining.validation import CausalEvaluator


class CausalObjective(Objective):
    """Every token is predicted from those before it."""

    summary = "A causal language model: it continues text. Trained with Weft; the code it needs is in this folder."
    model_class = WeftForCausalLM
    auto_class = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    headline = ("bits_per_byte",)
    collate = staticmethod(collate_causal)

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        return as_decoder(tokenizer)

    def role(self) -> dict[str, Any]:
        return {"is_causal": True}

    def lay_out(self, corpus: Corpus, row_length: int, seed: int, tokenizer: PreTrainedTokenizerBase) -> TrainingRows:
        return TrainingRows(corpus, row_length, 0, seed)

    def make_rows(self, layout: TrainingRows, plan: Plan) -> Dataset:
        layout.num_rows = plan.num_rows
        return layout

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: PreTrainedTokenizerBase) -> CausalEvaluator:
        return CausalEvaluator(ValidationRows(corpus, row_length))

    def make_samples(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, corpus: Corpus
    ) -> list[str]:
        return sample_texts(model, tokenizer, prompt)
