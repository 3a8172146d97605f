"""Statistics of a tokenizer for each script of a text: characters per token, unknown tokens, bytes of characters."""

import functools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import regex
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

from weft.tokenizer.encode_as_text import encode_as_text
from weft.tokenizer.sampling import sample
from weft.tokenizer.vocabulary import number_of_ids

COMMON, OTHER = "Common", "Other"
# Scripts in everyday use, by their names in Unicode (Annex 24); characters of any other are counted under "Other".
SCRIPTS = (
    *("Latin", "Cyrillic", "Greek", "Armenian", "Georgian", "Hebrew", "Arabic", "Syriac", "Thaana", "Ethiopic"),
    *("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala"),
    *("Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Mongolian", "Han", "Hiragana", "Katakana", "Bopomofo", "Hangul"),
    *("Cherokee", "Canadian_Aboriginal", "Javanese", "Balinese", "Tifinagh", "Nko", "Yi"),
)
_NAMES = (*SCRIPTS, COMMON, OTHER)
_NUMBERS = {name: number for number, name in enumerate(_NAMES)}
_SCRIPT = regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS))
_SHARED = regex.compile(r"[\p{Script=Common}\p{Script=Inherited}\p{Script=Unknown}]")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@functools.lru_cache(maxsize=1 << 16)
def script_of(character: str) -> str:
    """Return the script of one character: a name of SCRIPTS, "Other", or "Common" (blanks, digits, punctuation, emoji,
    combining marks that any script may use)."""
    if match := _SCRIPT.match(character):
        return match.lastgroup
    return COMMON if _SHARED.match(character) else OTHER


class ScriptReport:
    """Counts over encoded text, by script.

    A character counts under its own script. A token counts under the script of the first of its characters that is not
    "Common", so that " the" is Latin. A token of such characters alone is "Common". The rates are shares of a script's
    tokens: *unknown* is the unknown token; *byte fallback* is a token that does not stand for whole characters, but for
    some bytes of one (in byte-level BPE, or as a `<0xNN>` of Unigram and SentencePiece).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.unknown_id = tokenizer.unk_token_id
        self.special_ids = set(tokenizer.all_special_ids) - {self.unknown_id}
        self.fallback_ids = byte_fallback_ids(tokenizer)
        self.characters: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.byte_fallback: Counter[str] = Counter()
        self._is_special, self._is_fallback = np.zeros((2, number_of_ids(tokenizer)), dtype=bool)
        self._is_special[list(self.special_ids)] = True
        self._is_fallback[list(self.fallback_ids)] = True
        self._number_of = np.full(sys.maxunicode + 1, -1, dtype=np.int16)  # by character; -1: not met yet

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> "ScriptReport":
        """Encode texts and count them."""
        report = cls(tokenizer)
        for text in texts:
            (encoding,) = encode_as_text(tokenizer, [text])
            report.add(text, encoding.ids, encoding.offsets)
        return report

    def add(self, text: str, ids: Sequence[int], offsets: Iterable[tuple[int, int]]) -> None:
        """Count one encoded text.

        Args:
            text: the text that was encoded.
            ids: its tokens; special tokens other than the unknown one are not counted.
            offsets: first character and end in `text` of each token, as `return_offsets_mapping` gives them.
        """
        scripts = self._scripts_of(text)
        spans = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        is_text = ~self._is_special[np.array(ids, dtype=np.int64)]
        tokens, firsts, ends = np.array(ids, dtype=np.int64)[is_text], spans[is_text, 0], spans[is_text, 1]
        # the first character at or after each place that is not "Common"; one more entry for the end
        places = np.where(scripts != _NUMBERS[COMMON], np.arange(len(scripts)), len(scripts))
        places = np.append(np.minimum.accumulate(places[::-1])[::-1], len(scripts))
        found = places[firsts]
        of_tokens = np.append(scripts, _NUMBERS[COMMON])[np.where(found < ends, found, len(scripts))]
        for counts, of in (
            (self.characters, scripts),
            (self.tokens, of_tokens),
            (self.unknown, of_tokens[tokens == self.unknown_id]),
            (self.byte_fallback, of_tokens[self._is_fallback[tokens]]),
        ):
            for number, count in enumerate(np.bincount(of, minlength=0).tolist()):
                if count:
                    counts[_NAMES[number]] += count

    def _scripts_of(self, text: str) -> np.ndarray:
        """Return the number in _NAMES of the script of each character."""
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
        for code in set(codes[self._number_of[codes] < 0].tolist()):
            self._number_of[code] = _NUMBERS[script_of(chr(code))]
        return self._number_of[codes]

    def table(self) -> dict[str, dict[str, float]]:
        """Return, per script and most frequent first: characters, characters_per_token (0 if no token was counted under
        the script), unknown_rate and byte_fallback_rate. JSON can hold it."""
        rows = {}
        for script, characters in sorted(self.characters.items(), key=lambda item: (-item[1], item[0])):
            tokens = self.tokens[script]
            rows[script] = {
                "characters": characters,
                "characters_per_token": characters / tokens if tokens else 0.0,
                "unknown_rate": self.unknown[script] / max(tokens, 1),
                "byte_fallback_rate": self.byte_fallback[script] / max(tokens, 1),
            }
        return rows

    def lines(self) -> list[str]:
        """Write the table for printing."""
        return table_lines(self.table())


def table_lines(table: dict[str, dict[str, float]]) -> list[str]:
    """Write the lines of a `ScriptReport.table` for printing."""
    lines = [f"{'script':12}{'characters':>15}{'per token':>12}{'unknown':>12}{'byte fallback':>15}"]
    for script, row in table.items():
        lines.append(
            f"{script:12}{row['characters']:>15,}{row['characters_per_token']:>12.2f}{row['unknown_rate']:>12.4%}"
            f"{row['byte_fallback_rate']:>15.4%}"
        )
    return lines


def byte_fallback_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Find the tokens that stand for no whole characters: `<0xNN>`, or, in byte-level BPE, bytes that are not UTF-8."""
    special = set(tokenizer.all_special_ids)
    vocabulary = {token: index for token, index in tokenizer.get_vocab().items() if index not in special}
    if "ByteLevel(" in repr(tokenizer.backend_tokenizer.decoder):
        to_byte = _byte_alphabet()
        return {index for token, index in vocabulary.items() if not _is_text(token, to_byte)}
    return {index for token, index in vocabulary.items() if _BYTE.fullmatch(token)}


def _byte_alphabet() -> dict[str, int]:
    """Map each of the 256 characters with which byte-level BPE writes bytes to its byte.

    Bytes that are printable in Latin-1 stand for themselves; the others, in order, are the characters from 256 on.
    """
    alphabet = set(ByteLevel.alphabet())
    moved = iter(sorted(character for character in alphabet if ord(character) > 255))
    return {chr(byte) if chr(byte) in alphabet else next(moved): byte for byte in range(256)}


def _is_text(token: str, to_byte: dict[str, int]) -> bool:
    try:
        bytes(to_byte[character] for character in token).decode()
    except UnicodeDecodeError:
        return False
    except KeyError:  # an added token, whose text is not written in bytes
        return True
    return True


def judge(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], characters: int) -> ScriptReport:
    """Count the tokens of a sample of at most this many characters, see `sample`."""
    return ScriptReport.of(tokenizer, sample(texts, characters))
