"""Weft beside transformers' own classes of the same shape and the same weights, for the benchmark."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from weft.interop import find_family
from weft.losses import IGNORE_INDEX
from weft.recipes.benchmarks.arguments import HEADS
from weft.recipes.common.errors import RecipeError

MASKED_SHARE, WARM_UP, TOLERANCE = 0.15, 2, 1e-4
NO_DROPOUT = {
    "gpt2": ("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
}
GATED = ("llama", "modernbert")


@dataclass
class Shape:
    """What is measured: a model of one family, and its batches."""

    family: str
    layers: int
    width: int
    vocabulary: int
    length: int
    batch_size: int

    @property
    def head(self) -> str:
        """The name of the head in `weft.interop`."""
        return HEADS[self.family]

    def stock_config(self) -> PreTrainedConfig:
        """The family's config: heads of 64, no dropout, no special tokens among the ids that are drawn."""
        inner = -(-self.width * 8 // (3 * 64)) * 64 if self.family in GATED else 4 * self.width
        fields: dict[str, Any] = {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": max(1, self.width // 64),
            "max_position_embeddings": self.length,
            "pad_token_id": 0,
            **dict.fromkeys(NO_DROPOUT.get(self.family, ()), 0.0),
        }
        fields |= {} if self.family == "gpt2" else {"intermediate_size": inner}
        fields |= dict.fromkeys(("bos_token_id", "eos_token_id"), 1)
        if self.family == "modernbert":
            fields |= dict.fromkeys(("cls_token_id", "sep_token_id"), 1)
        return AutoConfig.for_model(self.family, **fields)

    def batch(self, device: str) -> dict[str, torch.Tensor]:
        """Full rows of random ids and, for the masked head, a share of random places."""
        draw = torch.Generator().manual_seed(0)
        ids = torch.randint(2, self.vocabulary, (self.batch_size, self.length), generator=draw)
        labels = ids
        if self.head == "masked":
            labels = ids.where(torch.rand(ids.shape, generator=draw) < MASKED_SHARE, IGNORE_INDEX)
        return {"input_ids": ids.to(device), "labels": labels.to(device)}

    def weft_batch(self, device: str) -> dict[str, torch.Tensor]:
        """The same as the recipes give it: the places to predict alone, and no logits returned."""
        batch = self.batch(device)
        if self.head == "masked":
            places = (batch["labels"].flatten() != IGNORE_INDEX).nonzero()[:, 0]
            batch |= {"labels": batch["labels"].flatten()[places], "predict_from": places}
        return {**batch, "return_logits": False}


def make_stock(shape: Shape) -> PreTrainedModel:
    """A stock model of random weights."""
    torch.manual_seed(0)
    return find_family(shape.family).stock_class(shape.head)._from_config(shape.stock_config())


def allowed_difference(device: str) -> float:
    """Of the losses of equal models; bfloat16 rounds on a GPU."""
    return TOLERANCE if device == "cpu" else 10 * TOLERANCE


def last_line_of(what: str, module: str, argument: Any, **environment: str) -> str:
    """What a module that is run in a fresh process, with an argument in JSON, prints last.

    Raises:
        RecipeError: it failed; says of `what` and why, and passes on all that it wrote.
    """
    command = [sys.executable, "-m", module, json.dumps(argument)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.stderr.write(done.stderr)
        lines = done.stderr.strip().splitlines()
        named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
        why = (named or lines or [f"it ended with status {done.returncode}"])[-1]
        raise RecipeError(f"{what} was not measured: {why}")
    return done.stdout.strip().splitlines()[-1]


def process_megabytes(field: str) -> float:
    """Of this process, by Linux; the peak that getrusage tells of begins with that of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6
