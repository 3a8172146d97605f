"""Masked-token prediction: some tokens are masked, and predicted from all others."""

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import transformers
from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.schedule import Schedule
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.collators import Batch, MaskedCollator
from weft.recipes.pretraining.datasets.masked import MaskedRows, MaskedValidationRows
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments, Vocabulary
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.base import Objective, PackedText
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.validation import RowEvaluator
from weft.recipes.training.evaluator import Evaluator
from weft.tokenizer.special_tokens import add_mask_token, for_role

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch import nn
    from torch.utils.data import Dataset

VALIDATION_SEED = 0  # the masks of the held-out text are the same in all runs


def make_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The ids that masking knows. An unknown token is text: it may be masked, but nothing is replaced by it."""
    unnamed = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = {*tokenizer.all_special_ids, *unnamed}
    named = {name: token for name, token in tokenizer.special_tokens_map.items() if name != "unk_token"}
    is_text = tokenizer.unk_token not in named.values()  # unlike GPT-2's, which is its end token too
    return Vocabulary(
        mask=tokenizer.mask_token_id,
        ordinary=np.array(sorted(set(tokenizer.get_vocab().values()) - special), dtype=np.int64),
        special=np.array(sorted(special - ({tokenizer.unk_token_id} if is_text else set())), dtype=np.int64),
    )


class MaskedObjective(Objective):
    """Some tokens are masked and predicted from all others (BERT, https://huggingface.co/papers/1810.04805)."""

    summary = (
        "A masked language model: an encoder that fills in masked tokens. Trained with Weft; the code it needs is in "
        "this folder."
    )
    arguments = (MaskingArguments,)
    model_class = property(lambda self: weft.WeftForMaskedLM)
    auto_class = teacher_class = "AutoModelForMaskedLM"
    pipeline_tag = "fill-mask"
    metrics = {"masked_loss": ".4f", "masked_accuracy": ".2%"}
    headline = ("masked_loss", "masked_accuracy")
    collator: ClassVar[type[MaskedCollator]] = MaskedCollator
    overlap: ClassVar[int] = 0
    num_steps = 1  # of the run, as soon as it is planned

    def __init__(self, masking: MaskingArguments) -> None:
        super().__init__()
        self.masking, self.collate = masking, self.collator(masking.target_share)
        self.idle_fields |= masking.idle_fields()

    @property
    def needs_boundaries(self) -> bool:
        """Whether the corpus must know where words and sentences begin."""
        return self.masking.needs_words

    def check(self, parsed: Parsed) -> None:
        self.masking.check()
        if self.needs_boundaries and parsed[DataArguments].segmenter == "none" and "segmenter" in parsed.given:
            raise RecipeError(
                "segmenter none keeps no boundaries, which sentence pairs and masking by words need: give characters, "
                "jieba or module:function, or leave it out."
            )

    @property
    def causal_share(self) -> Schedule:
        """The share of the rows that are causal, by the step."""
        return Schedule.line(0.0, 0.0)

    def min_steps(self) -> int:
        return max(self.masking.rate.min_steps(), self.causal_share.min_steps())

    def require(self, data: DataArguments) -> None:
        if self.needs_boundaries and data.segmenter == "none":
            data.segmenter = "characters"

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        return as_encoder(tokenizer)

    def role(self) -> dict[str, Any]:
        return {"is_causal": False, "masked_next_token": False}

    def pack(self, corpus: Corpus, row_length: int, seed: int, tokenizer: Tokenizer) -> PackedText:
        self.masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), seed)
        return TrainingRows(corpus, row_length, 0, seed, self.overlap)

    def make_rows(self, packed: TrainingRows, plan: Plan) -> "Dataset":
        self._follow(plan)
        packed.num_rows = plan.num_rows
        return MaskedRows(packed, self.masker, plan.steps)

    def _follow(self, plan: Plan) -> None:
        """Note the steps of a run, and refuse one that is too short for its stages, or whose batches have more targets
        than target_share has room for (raises RecipeError)."""
        steps = self.num_steps = plan.max_steps
        rate, causal, share = self.masking.rate, self.causal_share, self.masking.target_share
        rate.check_length("mask_rate", steps)
        causal.check_length("causal_steps or causal_share", steps)
        needed = max(  # which a straight line has at one of its ends
            share_of_targets(math.ceil(causal.at(step, steps) * rows) / rows, rate.at(step, steps))
            for step in rate.edges(steps) | causal.edges(steps)
            for rows in plan.batches.sizes()
        )
        if share is not None and share < needed:
            raise RecipeError(
                f"target_share is {share}, but up to {needed:.2%} of a batch's tokens are predicted on "
                f"average: give at least {math.ceil(needed * 1000 - 1e-6) / 1000}, better a little more."
            )

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        masker = Masker(corpus, self.masking, make_vocabulary(tokenizer), VALIDATION_SEED)
        rows = ValidationRows(corpus, row_length, self.overlap)
        return MaskedEvaluator(MaskedValidationRows(rows, masker, self.masking.held_out_rate))

    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        from weft.recipes.pretraining.samples import sample_fills

        return sample_fills(model, tokenizer, prompt, corpus)

    def plan_lines(self) -> list[tuple[str, str]]:
        rates = self.masking.rate.describe("{:.0%}".format, self.num_steps)
        return [("masking", f"{self.masking.masking}, {rates} of the tokens")]

    def head_shares(self, places: np.ndarray, steps: int) -> np.ndarray:
        if self.masking.target_share is not None:
            return np.full(len(places), self.masking.target_share)
        return share_of_targets(self.causal_share.at_all(places, steps), self.masking.rate.at_all(places, steps))


def share_of_targets(causal: float | np.ndarray, rate: float | np.ndarray) -> float | np.ndarray:
    """The share of the tokens that are predicted where some rows are causal, and the others masked at this rate."""
    return causal + (1 - causal) * rate


class MaskedEvaluator(RowEvaluator):
    """Predicts the masked tokens of the held-out text.

    Metrics: masked_loss (nats per masked token), which is the loss too, and masked_accuracy.
    """

    collator: ClassVar[type[MaskedCollator]] = MaskedCollator

    def __init__(self, rows: "Dataset") -> None:
        """Raises RecipeError where nothing is masked in any row."""
        super().__init__(rows, self.collator())
        if not any((rows[index]["targets"] != weft.IGNORE_INDEX).any() for index in range(len(rows))):
            raise RecipeError("no token of the held-out text is masked, so short is it: hold more text out.")

    def score(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        outputs = model(**batch)
        return score_targets(outputs.target_nats, outputs.logits, batch["labels"])

    def metrics(self, nats: float, right: float, targets: float) -> dict[str, float]:
        return {"loss": nats / targets, "masked_loss": nats / targets, "masked_accuracy": right / targets}


def score_targets(nats: "torch.Tensor", logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
    """Nats, right predictions and targets [3], in float64 on the CPU, of nats [n], logits [n, classes], labels [n]."""
    import torch

    right, targets = (logits.argmax(-1) == labels).sum(), (labels != weft.IGNORE_INDEX).sum()
    return torch.stack([number.cpu().double() for number in (nats.cpu().double().sum(), right, targets)])


def as_encoder(tokenizer: Tokenizer, token_types: bool = False) -> Tokenizer:
    """The tokenizer with a mask token and, where it has start and end tokens, these around each text."""
    add_mask_token(tokenizer)
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        return tokenizer
    return for_role(tokenizer, "encoder", token_types=token_types)


OBJECTIVES = {"masked": MaskedObjective}
