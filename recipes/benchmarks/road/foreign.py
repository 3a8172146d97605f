"""Models and tokenizers of other projects, behind the few doors that `likelihood.Scorer` knows."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn


class ForeignModel(nn.Module):
    """A causal model of any kind, called as one of transformers' is."""

    def __init__(self, model: nn.Module, embedding: nn.Module, logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Args:
        model: in evaluation mode.
        embedding: its table of tokens.
        logits: of ids [rows, tokens, vocabulary], two tokens a row or more.
        """
        super().__init__()
        self.model, self.embedding, self.logits = model, embedding, logits
        self.config = SimpleNamespace(model_type="foreign")
        self.device = embedding.weight.device

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        """The logits at each place; padding is on the right, where a causal model does not look."""
        length = input_ids.shape[1]
        padded = input_ids if length > 1 else nn.functional.pad(input_ids, (0, 1))
        return SimpleNamespace(logits=self.logits(padded)[:, :length])


class ForeignTokenizer:
    """A tokenizer that is none of transformers': what it makes of texts, and the token that begins each.

    `Scorer` asks it for the ids of special tokens; texts are encoded by `encode`.
    """

    is_fast = True
    pad_token_id, eos_token_id, mask_token_id = 0, None, None
    special_tokens_map: dict[str, Any] = {}
    added_tokens_decoder: dict[int, Any] = {}

    def __init__(self, encode: Callable[[list[str]], list[list[int]]], start: int, size: int) -> None:
        """Args:
        encode: the ids of each text, without special tokens.
        start: id of the token before a text.
        size: number of ids.
        """
        self.encode, self.bos_token_id, self.size = encode, start, size

    def get_vocab(self) -> dict[str, int]:
        """Only as many names as tell the largest id."""
        return {"last": self.size - 1}
