"""What stands around sources and targets, as the tokenizer puts it around texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.recipes.pretraining.datasets.denoising.pieces import TextPair


@dataclass(frozen=True)
class Frame:
    """Ids before and behind a source, and before and behind a target.

    A target ends with the end token, by which generation stops, and has no start token that the decoder is given.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    before_target: tuple[int, ...]
    after_target: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, decoder_start: int | None = None) -> Self:
        """As a tokenizer frames a text.

        Args:
            decoder_start: id that the model's decoder begins with (`decoder_start_token_id` of its config).

        Raises:
            ValueError: the tokenizer has no end token.
        """
        end = tokenizer.eos_token_id
        if end is None:
            raise ValueError(
                "the tokenizer has no end token, by which a decoder would know when to stop: set its eos_token."
            )
        text = _sample(tokenizer)
        bare, ids = (tokenizer(text, add_special_tokens=special).input_ids for special in (False, True))
        place = next(place for place in range(len(ids)) if ids[place : place + len(bare)] == bare)
        before, after = ids[:place], ids[place + len(bare) :]
        return cls(
            tuple(before),
            tuple(after),
            tuple(before[1:] if before[:1] == [decoder_start] else before),
            tuple(after if after[-1:] == [end] else [*after, end]),
        )

    def put_around(self, pair: TextPair) -> tuple[np.ndarray, np.ndarray]:
        """Source and target with what stands around them, int64."""
        source = _joined(self.before, pair.source, self.after)
        return source, _joined(self.before_target, pair.target, self.after_target)

    def strip(self, ids: np.ndarray) -> np.ndarray:
        """A text's own ids, where it has what stands around a source."""
        first, last = len(self.before), len(ids) - len(self.after)
        is_framed = first <= last and (*ids[:first], *ids[last:]) == (*self.before, *self.after)
        return ids[first:last] if is_framed else ids

    @property
    def longest(self) -> int:
        """The more tokens of those around a source and those around a target."""
        return max(len(self.before) + len(self.after), len(self.before_target) + len(self.after_target))


def _sample(tokenizer: Tokenizer) -> str:
    """A text of which a tokenizer makes tokens: "a", or a token of a vocabulary without Latin letters."""
    named = {*tokenizer.all_special_tokens}
    vocabulary = tokenizer.get_vocab()  # in another order each time
    texts = ("a", *(token for token in sorted(vocabulary, key=vocabulary.__getitem__) if token not in named))
    return next(text for text in texts if tokenizer(text, add_special_tokens=False).input_ids)


def _joined(*parts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
