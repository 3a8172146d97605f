"""Texts to token ids as `encode_as_text` gives them, with every word encoded once: byte-level BPE on words with blanks.

Pre-tokenizers like GPT-2's cut before the blank in front of a word, whatever stands around it, and find the same pieces
on either side as if the text ended or began there. So the tokens of " word" are the same in every text, and a table of
them replaces most of the work. Where no such rule is known of, texts are encoded as a whole.
"""

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tokenizers import models
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import PreTrainedTokenizerBase

from weft.tokenizer.encode_as_text import encode_as_text
from weft.tokenizer.pre_tokenizers import LLAMA3, PIECE, QWEN2, prefix_blank

# The last blank before a character that is none, as Python counts blanks: more than a pre-tokenizer does.
_BETWEEN_WORDS = re.compile(r" (?=\S)")
_BLANK = "\u0120"  # how byte-level BPE writes the one byte of a blank
WORDS_AT_ONCE = 256  # encoded as one text
LONGEST_WORD = 64  # longer ones hardly come again
MOST_WORDS = 1 << 18  # about 50 MB

# Patterns of which no match reaches over a blank in front of a word, and which cut the blanks before that one as at the
# end of a text: ours, and those of Llama 3 and Qwen 2. GPT-2's is built into ByteLevel.
PATTERNS = (PIECE, LLAMA3, QWEN2)


class WordEncoder:
    """Encodes texts; remembers the tokens of their words where the tokenizer cuts between them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Args:
        tokenizer: any fast tokenizer.
        """
        self.tokenizer = tokenizer
        self._known: dict[str, bytes] | None = None  # the ids of each word; None: texts are encoded as a whole
        if cuts_between_words(tokenizer):
            self._known, vocabulary = {}, tokenizer.get_vocab()
            self._opens_word = np.zeros(max(vocabulary.values()) + 1, dtype=bool)
            self._opens_word[[index for token, index in vocabulary.items() if token.startswith(_BLANK)]] = True

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, [tokens] uint32: those of `encode_as_text`."""
        if self._known is None:
            return self._encode_whole(texts)
        words = [_BETWEEN_WORDS.split(text) for text in texts]
        for each in words:
            each[0] = " " + each[0]  # no other begins with a blank: it stands for the word without one before it
        all_words = itertools.chain.from_iterable
        new = set(itertools.filterfalse(self._known.__contains__, all_words(words)))
        self._learn(new)
        found = [np.frombuffer(b"".join(map(self._known.__getitem__, each)), dtype=np.uint32) for each in words]
        if len(self._known) > MOST_WORDS:  # the words that are in use now are the frequent ones
            self._known = {word: self._known[word] for word in all_words(words)}
        for word in new:
            if len(word) > LONGEST_WORD:
                del self._known[word]
        return found

    def _learn(self, words: Iterable[str]) -> None:
        """Enter new words. Most are encoded many together: a token with a blank in front tells where each begins."""
        known, together, alone = self._known, [], []
        for word in words:
            is_plain = len(word) <= LONGEST_WORD and " " not in word
            (together if is_plain else alone).append(word)
        groups = [together[first : first + WORDS_AT_ONCE] for first in range(0, len(together), WORDS_AT_ONCE)]
        encoded = self._encode_whole(["".join(f" {word}" for word in group) for group in groups])
        for group, ids in zip(groups, encoded, strict=True):
            content, size = ids.tobytes(), ids.itemsize
            places = [*(np.flatnonzero(self._opens_word[ids]) * size).tolist(), len(content)]
            known |= zip(group, (content[first:last] for first, last in itertools.pairwise(places)), strict=True)
        as_written = [word[1:] if word[0] == " " else f" {word}" for word in alone]
        known |= zip(alone, (ids.tobytes() for ids in self._encode_whole(as_written)), strict=True)

    def _encode_whole(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(each.ids, dtype=np.uint32) for each in encode_as_text(self.tokenizer, texts, False)]


def cuts_between_words(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a tokenizer is known to cut before the blank in front of a word, and to encode each part alone.

    It must be byte-level BPE without dropout, with one of PATTERNS or GPT-2's, which has a token for the blank; nothing
    may be done to the text before but NFC (a blank composes with nothing) or `prefix_blank` (what begins with a blank
    stays as it is). Added tokens must be special, which spelt out stay text: others cut a text where they stand,
    and a pattern then takes a blank before them for the end of the text.
    """
    backend = tokenizer.backend_tokenizer
    model = backend.model
    return (
        isinstance(model, models.BPE)
        and not (model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix)
        and model.token_to_id(_BLANK) is not None
        and _state(backend.normalizer) in (None, {"type": "NFC"}, _state(prefix_blank()))
        and _is_cut(_state(backend.pre_tokenizer))
        and all(token.special for token in backend.get_added_tokens_decoder().values())
    )


def _state(part: Normalizer | PreTokenizer | None) -> dict[str, Any] | None:
    return None if part is None else json.loads(part.__getstate__())


def _is_cut(state: dict[str, Any] | None) -> bool:
    """Tell whether a pre-tokenizer is a pattern of PATTERNS before the bytes, or ByteLevel with its own pattern."""
    match state:
        case {"type": "ByteLevel", "use_regex": True}:
            return True
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
            ],
        }:
            return pattern in PATTERNS
    return False
