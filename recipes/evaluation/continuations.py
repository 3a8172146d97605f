"""The log-probabilities that an encoder-decoder gives to the tokens of texts.

continuation  each token given those before it. The encoder reads what stands before the tokens that are scored, with
              the special tokens that `tokenizer(text)` adds; the decoder writes these. A longer text passes through a
              window: what is written at each place of it, and as much before that as has room.

What a decoder would say at the end of a text, its end token, is not scored.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation.likelihood import Scorer, ScoringRow, TokenSpan


class ContinuationScorer(Scorer):
    """A `Scorer` of an encoder-decoder."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *args: Any, source_prefix: str = "", **kw: Any
    ) -> None:
        """Args:
            source_prefix: put before every source, such as the token of a mode; special tokens in it are read as such.

        Raises:
            RecipeError: as `Scorer`, or nothing says what the decoder begins with.
        """
        self.prefix = np.array(tokenizer(source_prefix, add_special_tokens=False).input_ids, dtype=np.int32)
        self.start = model.config.decoder_start_token_id
        if self.start is None:
            raise RecipeError(
                "the model's config has no decoder_start_token_id, which its decoder begins with: set it."
            )
        super().__init__(model, tokenizer, *args, **kw)

    def _special_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        before, after = super()._special_tokens()
        return np.concatenate([before, self.prefix]), after

    def _rows(self, span: TokenSpan) -> Iterator[ScoringRow]:
        """Yield sources, each with what is written for it behind it."""
        text, first = span.text, span.first
        room = self.window - len(text.before) - len(text.after)
        while first < span.last:
            end = min(span.last, first + self.stride)
            source = np.concatenate([text.before, text.ids[max(0, first - room) : first], text.after])
            ids = np.concatenate([source, text.ids[first:end]])
            yield ScoringRow(ids, len(source), len(ids), len(ids))
            first = end

    @torch.no_grad()
    def _score_batch(self, rows: Sequence[ScoringRow]) -> list[tuple[np.ndarray, np.ndarray]]:
        sources, mask = self._padded([row.ids[: row.first] for row in rows])
        written, _ = self._padded([np.append(self.start, row.ids[row.first : -1]) for row in rows])
        inputs = {"input_ids": sources, "attention_mask": mask, "decoder_input_ids": written}
        counts = [row.last - row.first for row in rows]
        numbers = np.repeat(np.arange(len(rows)), counts)
        places = np.concatenate([np.arange(count) for count in counts])
        targets = np.concatenate([row.ids[row.first :] for row in rows])
        log_probs, is_top = self._forward(inputs, numbers, places, targets, written.shape[1])
        ends = np.cumsum(counts)[:-1]
        return list(zip(np.split(log_probs, ends), np.split(is_top, ends)))
