"""Weft beside transformers' own classes of the same shape and the same weights, for the benchmark."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from weft import tiles
from weft.interop import find_family
from weft.recipes.benchmarks import batches
from weft.recipes.benchmarks.arguments import GROUPED, HEADS, WINDOWED
from weft.recipes.common.errors import RecipeError

WARM_UP, TOLERANCE = 2, 1e-4
NO_DROPOUT = {
    "gpt2": ("embd_pdrop", "attn_pdrop", "resid_pdrop"),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
}
GATED = ("llama", "mistral", "modernbert")
PACKING = ("llama", "mistral")  # stock classes that isolate documents told apart by position_ids


@dataclass
class Shape:
    """What is measured: a model of one family, and its batches.

    Attributes:
        window: tokens that one sees; None: as the family's config has it.
        key_value_heads: None: as many as of queries.
        is_classifier: whether the model ends in two classes of a text.
        document_tokens: fewest and most tokens of the documents of a row, or of a classifier's texts; none: whole rows.
    """

    family: str
    layers: int
    width: int
    vocabulary: int
    length: int
    batch_size: int
    window: int | None = None
    key_value_heads: int | None = None
    is_classifier: bool = False
    document_tokens: Sequence[int] = ()

    @property
    def head(self) -> str:
        """The name of the head in `weft.interop`."""
        return "sequence" if self.is_classifier else HEADS[self.family]

    @property
    def isolates(self) -> bool:
        """Whether the stock class computes the same as Weft: of packed rows not all classes keep documents apart."""
        return self.is_classifier or not self.document_tokens or self.family in PACKING

    @property
    def may_be_cut(self) -> bool:
        """Whether Weft may compute scores of pieces of the rows instead of whole ones."""
        is_long = self.length >= min(tiles.LEAST_TOKENS, tiles.LEAST_PACKED)
        return is_long and (self.family in WINDOWED or bool(self.document_tokens))

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
        groups = self.key_value_heads or fields["num_attention_heads"]
        fields |= {"num_key_value_heads": groups} if self.family in GROUPED else {}
        fields |= {"num_labels": 2, "problem_type": "single_label_classification"} if self.is_classifier else {}
        if self.window is not None:
            fields["local_attention" if self.family == "modernbert" else "sliding_window"] = self.window
        fields |= dict.fromkeys(("bos_token_id", "eos_token_id"), 1)
        if self.family == "modernbert":
            fields |= dict.fromkeys(("cls_token_id", "sep_token_id"), 1)
        return AutoConfig.for_model(self.family, **fields)

    def batch(self, device: str) -> dict[str, torch.Tensor]:
        """What the stock class is given: rows of random ids, or texts that are padded to the longest."""
        if self.is_classifier:
            batch = batches.classifier_batch(self.vocabulary, self.text_lengths(), packed=False)
        else:
            batch = batches.random_rows(self.vocabulary, self.batch_size, self.length, self.head == "masked")
            if self.document_tokens:
                places = batches.document_places(self.batch_size, self.length, *self.document_tokens)
                batch = batches.in_documents(batch, places)
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def weft_batch(self, device: str) -> dict[str, torch.Tensor]:
        """The same as the recipes give it: texts packed into rows, the places to predict alone, no logits returned."""
        if self.is_classifier:
            batch = batches.classifier_batch(self.vocabulary, self.text_lengths(), packed=True)
            return {name: tensor.to(device) for name, tensor in batch.items()}
        batch = self.batch(device)
        return {**(batches.at_places(batch) if self.head == "masked" else batch), "return_logits": False}

    def text_lengths(self) -> list[int]:
        """Tokens of each text of a batch of texts."""
        return batches.text_lengths(self.batch_size, *(self.document_tokens or (self.length, self.length)))


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
