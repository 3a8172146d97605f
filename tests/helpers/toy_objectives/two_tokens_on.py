"""A toy objective, whole in one file: every token predicts the one `distance` places on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from weft import WeftForMaskedLM
from weft.losses import IGNORE_INDEX
from weft.recipes.common.options import Options, option
from weft.recipes.pretraining.datasets.collators import MaskedCollator
from weft.recipes.pretraining.datasets.masked import pad_row
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows, positions_of
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.objectives.masked import score_targets
from weft.recipes.pretraining.validation import RowEvaluator


@dataclass
class DistanceArguments(Options):
    """How far ahead is predicted."""

    distance: int = option(2, "two-on: places between a token and its target", least=1)


class DistantRows(Dataset):
    """Rows of packed documents whose targets are `rows.overlap` places on."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        spans, distance = self.rows.spans(index), self.rows.overlap
        arrays = {
            "input_ids": [span.tokens[:-distance] for span in spans],
            "targets": [s.tokens[distance:] for s in spans],
        }
        row = {name: np.concatenate([np.empty(0), *parts]).astype(np.int64) for name, parts in arrays.items()}
        row["position_ids"] = positions_of(spans, distance) if spans else row["input_ids"]
        return pad_row(row, self.rows.row_length)


def collate(rows):
    """Every row is causal."""
    return {**MaskedCollator()(rows), "causal_rows": torch.ones(len(rows), dtype=torch.bool)}


class TwoOnEvaluator(RowEvaluator):
    def score(self, model, batch):
        outputs = model(**batch)
        return score_targets(outputs.target_nats, outputs.logits, batch["labels"])

    def metrics(self, nats, right, targets):
        return {"loss": nats / targets, "two_on_loss": nats / targets, "two_on_accuracy": right / targets}


class TwoOnObjective(Objective):
    arguments = (DistanceArguments,)
    model_class = WeftForMaskedLM
    auto_class = "AutoModelForMaskedLM"
    pipeline_tag = "fill-mask"
    summary = "A model that looks two tokens on."
    collate = staticmethod(collate)
    metrics = {"two_on_loss": ".4f", "two_on_accuracy": ".3%"}
    headline = ("two_on_accuracy",)
    parts = {"two_on": "nats per distant token"}

    def __init__(self, given):
        super().__init__()
        self.distance, self.check_fields = given.distance, given.check

    def check(self, parsed):
        self.check_fields()

    def role(self):
        return {"is_causal": False}

    def pack(self, corpus, row_length, seed, tokenizer):
        return TrainingRows(corpus, row_length, 0, seed, self.distance)

    def make_rows(self, packed, plan):
        packed.num_rows = plan.num_rows
        return DistantRows(packed)

    def make_evaluator(self, corpus, row_length, tokenizer):
        return TwoOnEvaluator(DistantRows(ValidationRows(corpus, row_length, self.distance)), collate)

    def make_samples(self, model, tokenizer, prompt, corpus):
        return ["the next token but one"]

    def loss_parts(self, batch, outputs):
        return {"two_on": (outputs["target_nats"], batch["labels"] != IGNORE_INDEX)}

    def plan_lines(self):
        return [("distance", f"{self.distance} tokens")]


OBJECTIVES = {"two-on": TwoOnObjective}
