"""Tagged examples as texts: words joined as they stand in running text, and texts cut into words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import regex

from weft.tokenizer.pre_tokenizers import UNSPACED

# Signs of East Asian scripts: their punctuation and the wide forms of others.
_WIDE = regex.compile(rf"[{UNSPACED}\p{{M}}\u3000-\u303F\uFF01-\uFFEF]")
NEARLY_ALL = 0.95
_NUMBERED, _HAN = regex.compile(r".\d"), regex.compile(r"\p{Han}")
_UNSPACED_SIGN = regex.compile(rf"[{UNSPACED}]")
_WORD = regex.compile(
    rf"(?V1)[{UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}_\u200C\u200D]--[{UNSPACED}]]+|[^\s\p{{L}}\p{{M}}\p{{N}}_]"
)


class EntitySpan(NamedTuple):
    """A stretch of a text, from its first character to the one after its last, and what it is."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Sentence:
    """Words one by one.

    Attributes:
        tags: one for each word; None without labels.
        where: its place, such as "train.txt, line 12".
        lines: for files with a word a line, the line of each.
        blanks: whether a blank follows each word, where the file says so.
    """

    words: list[str]
    tags: list[str] | None
    where: str
    lines: list[int] | None = None
    blanks: list[bool] | None = None

    def place(self, word: int) -> str:
        """Where a word stands, for messages."""
        if self.lines is None:
            return f"{self.where}, word {word + 1}"
        return f"{self.where.rpartition(', line ')[0]}, line {self.lines[word]}"


@dataclass(frozen=True)
class SpanText:
    """A text with entities that were given by their characters, sorted, none over another; None without labels."""

    text: str
    spans: list[EntitySpan] | None
    where: str


@dataclass(frozen=True)
class Passage:
    """An example as it is worked with.

    Attributes:
        words: first character and end in `text` of each word.
        tags: of each word, in IOB2 or plain; None for texts whose entities were given by characters.
        spans: entities by characters; None for plain tags.
        labelled: whether it has tags or spans.
    """

    text: str
    words: list[tuple[int, int]]
    tags: list[str] | None
    spans: list[EntitySpan] | None
    where: str

    @property
    def labelled(self) -> bool:
        return self.tags is not None or self.spans is not None


class Joiner:
    """Puts words together to the text that a user would type, which the tokenizer is then given whole."""

    def __init__(self, joiner: str | None, by_character: bool) -> None:
        """Args:
        joiner: what to put between any two words; None: a blank, but nothing between signs of scripts that are written
            without blanks (Chinese, Japanese, Thai ...).
        by_character: the words are single characters of such a script: nothing stands between them.
        """
        self.joiner, self.by_character = joiner, by_character

    def join(self, sentence: Sentence) -> tuple[str, list[tuple[int, int]]]:
        """The text, and where each word stands in it."""
        words, spans, parts, length = sentence.words, [], [], 0
        for number, word in enumerate(words):
            spans.append((length, length + len(word)))
            gap = "" if number + 1 == len(words) else self._between(sentence, number)
            parts += [word, gap]
            length += len(word) + len(gap)
        return "".join(parts), spans

    def _between(self, sentence: Sentence, number: int) -> str:
        left, words = sentence.words[number], sentence.words
        # an empty word takes no place
        right = next((words[place] for place in range(number + 1, len(words)) if words[place]), "")
        if self.joiner is not None:
            return self.joiner
        if sentence.blanks is not None:
            return " " if sentence.blanks[number] else ""
        if not left or not right:
            return ""
        letters = left[-1].isalnum() and right[0].isalnum()
        if self.by_character:
            foreign = min(len(left), len(right)) > 1 and letters
            return " " if foreign and not _WIDE.match(left[-1]) and not _WIDE.match(right[0]) else ""
        wide = bool(_WIDE.match(left[-1])), bool(_WIDE.match(right[0]))
        return "" if all(wide) or (any(wide) and not letters) else " "

    def line(self) -> str:
        """What is done, in words."""
        if self.joiner is not None:
            return f"words joined with {self.joiner!r}"
        return "characters, joined without blanks" if self.by_character else "words joined with blanks"


def is_by_character(sentences: Iterable[Sentence]) -> bool:
    """Whether the words are single characters of a script without blanks: nearly all that hold any such sign, which
    are a good part of all words."""
    words = unspaced = single = 0
    for sentence in sentences:
        for word in sentence.words:
            words += 1
            if _UNSPACED_SIGN.search(word):
                unspaced += 1
                single += len(word) == 1
    return unspaced > 0.3 * words and single > 0.9 * unspaced


def without_places(sentences: Sequence[Sentence]) -> tuple[list[Sentence], bool]:
    """Sentences of Chinese signs that bear their place in a word, as in the files of Weibo NER (口0 腔1), without it;
    and whether they were such."""
    words = [word for sentence in sentences for word in sentence.words]
    numbered = sum(_NUMBERED.fullmatch(word) is not None for word in words)
    if numbered <= NEARLY_ALL * len(words) or 2 * sum(bool(_HAN.match(word)) for word in words) <= len(words):
        return list(sentences), False
    return [
        replace(sentence, words=[word[0] if _NUMBERED.fullmatch(word) else word for word in sentence.words])
        for sentence in sentences
    ], True


def words_in(text: str) -> list[tuple[int, int]]:
    """The words of a running text: runs of letters and digits, single signs of scripts without blanks, and any other
    sign by itself."""
    return [match.span() for match in _WORD.finditer(text)]


def spans_of_words(
    text: str, words: Sequence[tuple[int, int]], entities: Iterable[tuple[int, int, str]]
) -> list[EntitySpan]:
    """Entities by words as entities by characters, without blanks at their ends; words may be empty, or blank."""
    spans = []
    for first, end, label in entities:
        start, stop = words[first][0], words[end - 1][1]
        inside = text[start:stop]
        if inside.strip():
            spans.append(EntitySpan(start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip()), label))
    return spans
