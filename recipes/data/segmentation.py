"""Segmentation of text into words and sentences, in any script and under any tokenizer.

Whole-word masking and segments of pairs need it. Both are properties of the text. Tokens are only placed on it by their
characters, so WordPiece, byte-level BPE, Unigram and single characters get the same words.

A word is a run of letters, marks and digits with apostrophes inside. Scripts without blanks between words have no such
runs: there every character with its marks is a word, or every piece that a segmenter cuts a run into. Every other
visible character (punctuation, an emoji with all its modifiers) is a word of its own.
"""

import functools
import importlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import regex

from weft.recipes.common.errors import RecipeError, optional_package, refusing

Segmenter = Callable[[str], list[str]]
Offsets = Sequence[tuple[int, int]] | np.ndarray

# `regex`, not `re`: the \w of `re` knows no vowel signs, which would cut the words of Hindi in pieces.
_UNSPACED_SCRIPTS = ("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
_UNSPACED = "[[" + "".join(f"\\p{{scx={script}}}" for script in _UNSPACED_SCRIPTS) + r"]&&[\p{L}\p{N}]]"
_JOINERS = r"\u200C\u200D"  # zero-width ones, inside the words of Persian and of Indic scripts
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]"
_LETTERS = rf"{_LETTER}[{_LETTER}{_JOINERS}]*"
_APOSTROPHES = r"['\u2019\uFF07\u05F3\u05F4]"  # the last two are those of Hebrew
_WORD = rf"{_LETTERS}(?:{_APOSTROPHES}{_LETTERS})*"
_OTHER = r"(?=\S)\X"
_CHARACTERS = regex.compile(rf"{_WORD}|(?={_UNSPACED})\X\p{{M}}*|{_OTHER}", regex.V1)
_RUNS = regex.compile(rf"{_WORD}|(?P<run>{_UNSPACED}[{_UNSPACED}\p{{M}}{_JOINERS}]*)|{_OTHER}", regex.V1)

_UNSPACED_SIGN = regex.compile(_UNSPACED, regex.V1)
_SPACED_SIGN = regex.compile(rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}]", regex.V1)

_LINE_END = regex.compile(r"[\n\r\v\f\x85\u2028\u2029]+")
# Unicode's property lacks the ellipsis, Tibetan's shad and Greek's question mark, mostly written as a semicolon.
_TERMINATOR = r"\p{Sentence_Terminal}…\u0F0D\u037E"
_NEEDS_BLANK = r".!?…;\u037E"  # these stand inside numbers, names and addresses too
_CLOSERS = r"[\p{Close_Punctuation}\p{Final_Punctuation}'\"]*"
_SENTENCE_END = regex.compile(rf"(?P<marks>(?:[{_TERMINATOR}]|(?<=\p{{Greek}});)+){_CLOSERS}", regex.V1)
_ENDS_ANYWHERE = regex.compile(rf"[[{_TERMINATOR}]--[{_NEEDS_BLANK}]]", regex.V1)
_LOWER_CASE = regex.compile(r"\p{Ll}")
# No full stop ends a sentence after an initial (J.), a title without vowels (Mr., Dr., St.), the number of a list item.
_BEFORE_INNER_STOP = regex.compile(r"[^\p{L}\p{M}\p{N}]\p{Lu}[b-df-hj-np-tv-xz]{0,2}\Z|\n\p{Nd}{1,2}\Z")
_INNER_STOP_REACH = 4

_IS_BLANK = np.array([regex.match(r"\s", chr(code)) is not None for code in range(0x3001)])  # no white space above


def is_unspaced(texts: Iterable[str]) -> bool:
    """Tell whether most letters and digits of texts are of scripts without blanks between words."""
    spaced = unspaced = 0
    for text in texts:
        unspaced += len(_UNSPACED_SIGN.findall(text))
        spaced += len(_SPACED_SIGN.findall(text))
    return unspaced > spaced


def word_spans(text: str) -> np.ndarray:
    """Return the first character of each word and the one after its last, punctuation included: [words, 2] int64."""
    spans = [match.span() for match in _CHARACTERS.finditer(text)]
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def search_terms(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of what a text can be found by: words, and pairs of neighbours in scripts without blanks.

    Punctuation is passed over. A single character of such a script stands for itself.
    """
    for match in _RUNS.finditer(text):
        first, last = match.span()
        if match.lastgroup is not None:
            yield from ((place, min(place + 2, last)) for place in range(first, max(last - 1, first + 1)))
        elif text[first].isalnum():
            yield first, last


def word_starts(text: str, offsets: Offsets, segment: Segmenter | None = None) -> np.ndarray:
    """Flag the tokens that begin a word.

    A token belongs to the word of its first visible character. Tokens that share a character, as the bytes of one do,
    stay together whatever words they reach into. A token that is the one blank before a word begins that word, and
    the token after it continues it. Other tokens of white space are units of their own.

    Args:
        offsets: first character and the one after the last, for each token in order. An empty span stands for blanks
            that a tokenizer trims; they count as the token's own.
        segment: cuts a run of a script without blanks into words; None: each character is one.

    Returns:
        [tokens] bool.

    Raises:
        RecipeError: the pieces of `segment` do not join to the run that it was given.
    """
    place = _Placement(text, offsets)
    starts = np.zeros(len(text) + 1, dtype=np.int64)
    starts[np.fromiter(_word_positions(text, segment), dtype=np.int64)] = 1
    words = np.cumsum(starts)
    is_only_blank = (place.lasts - place.firsts == 1) & (place.codes[place.firsts] == ord(" "))
    is_only_blank |= place.firsts == place.lasts
    joins_next = is_only_blank & (place.next_visible[place.firsts] <= place.lasts) & (place.lasts < len(text))
    visible = place.next_visible[place.firsts]
    word_of = np.where((visible < place.lasts) | joins_next, words[np.minimum(visible, len(text))], -1)
    begins = np.ones(len(word_of), dtype=bool)
    begins[1:] = (word_of[1:] != word_of[:-1]) | (word_of[1:] == -1)
    return begins & ~place.shares_character


def sentence_starts(text: str, offsets: Offsets) -> np.ndarray:
    """Flag the tokens that begin a sentence: those with its first character, or the one blank before it.

    Sentences end at line ends, and after sentence-ending marks of any script with the quotes and brackets that close
    behind them. Marks that stand inside sentences too (. ! ? …) end one only before white space without a lower-case
    letter after it. A full stop ends none after an initial, a title or the number of a list item.

    Returns:
        [tokens] bool. A sentence that begins inside a character's bytes begins with the token after them.
    """
    place = _Placement(text, offsets)
    begins = np.zeros(len(place.firsts), dtype=bool)
    positions = place.next_visible[np.unique(np.fromiter(sentence_ends(text), dtype=np.int64))]
    positions = np.unique(positions[positions < len(text)])
    tokens = np.searchsorted(place.lasts, positions, side="right")
    has_token = tokens < len(begins)
    tokens, positions = tokens[has_token], positions[has_token]
    before = np.maximum(tokens - 1, 0)
    is_own_blank = (place.firsts[before] == positions - 1) & (place.lasts[before] == positions)
    is_own_blank &= (place.codes[place.firsts[before]] == ord(" ")) & (place.firsts[tokens] == positions)
    tokens = np.where(is_own_blank & (tokens > 0), before, tokens)
    whole = np.flatnonzero(~place.shares_character)
    tokens = np.searchsorted(whole, tokens)
    begins[whole[tokens[tokens < len(whole)]]] = True
    return begins


def get_segmenter(name: str) -> Segmenter | None:
    """Return the function that cuts runs of scripts without blanks into words.

    Args:
        name: "characters" (None: each character is a word), "jieba" (Chinese), or "module:function", a function of
            your own that takes a run and returns its pieces.

    Raises:
        RecipeError: an unknown name, a missing package, or no such function.
    """
    if name == "characters":
        return None
    if name == "jieba":
        return _load_jieba()
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise RecipeError(
            f"segmenter is {name!r}: choose characters or jieba, or name a function of yours as module:function."
        )
    advice = "the module must be installed, or its folder be in PYTHONPATH."
    with refusing(f"segmenter {name!r} cannot be loaded", ImportError, AttributeError, advice=advice):
        function = functools.reduce(getattr, function_name.split("."), importlib.import_module(module_name))
    if not callable(function):
        raise RecipeError(f"segmenter {name!r} is a {type(function).__name__}, where a function is needed.")
    return function


def _load_jieba() -> Segmenter:
    with warnings.catch_warnings():  # of its own source, in newer Pythons
        warnings.simplefilter("ignore")
        jieba = optional_package("jieba", "segmenter 'jieba'")
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    with tempfile.TemporaryDirectory() as folder:  # its cache lies where anyone may write, and outlives other versions
        tokenizer.tmp_dir = folder
        tokenizer.initialize()
    return tokenizer.lcut


class _Placement:
    """Places tokens on their text."""

    def __init__(self, text: str, offsets: Offsets) -> None:
        spans = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
        self.firsts, self.lasts = spans[:, 0].copy(), spans[:, 1]
        before = np.concatenate(([0], self.lasts[:-1])) if len(spans) else self.lasts
        trimmed = (self.firsts == self.lasts) & (before < self.firsts)
        self.firsts[trimmed] = before[trimmed]
        self.shares_character = self.firsts < before  # with the token before it
        self.codes = np.frombuffer((text + "\0").encode("utf-32-le"), dtype="<u4")  # one more: a place for the end
        is_visible = ~_IS_BLANK[np.minimum(self.codes, len(_IS_BLANK) - 1)] | (self.codes >= len(_IS_BLANK))
        is_visible[-1] = True
        places = np.where(is_visible, np.arange(len(is_visible)), len(text))
        self.next_visible = np.minimum.accumulate(places[::-1])[::-1]  # at or after each character [len(text) + 1]


def _word_positions(text: str, segment: Segmenter | None) -> Iterator[int]:
    """Yield the first character of each word of a text."""
    if segment is None:
        for match in _CHARACTERS.finditer(text):
            yield match.start()
        return
    for match in _RUNS.finditer(text):
        place = match.start()
        if match.lastgroup is None:
            yield place
            continue
        for piece in _pieces_of(match.group(), segment):
            yield place
            place += len(piece)


def _pieces_of(run: str, segment: Segmenter) -> list[str]:
    pieces = [piece for piece in segment(run) if piece]
    if "".join(pieces) != run:
        raise RecipeError(
            f"the segmenter cut {run[:40]!r} into {pieces[:8]!r}, which do not join to it: it must return every "
            "character once, in order."
        )
    return pieces


def sentence_ends(text: str) -> Iterator[int]:
    """Yield places; after each a sentence begins with the next visible character."""
    yield 0
    for match in _LINE_END.finditer(text):
        yield match.end()
    for match in _SENTENCE_END.finditer(text):
        if _ends_sentence(text, match):
            yield match.end()


def _ends_sentence(text: str, match: regex.Match) -> bool:
    marks, end = match["marks"], match.end()
    behind = text[end : end + 1]
    if _ENDS_ANYWHERE.search(marks):
        return not (marks == "\uff0e" and behind.isdecimal())  # a full-width full stop may be a decimal point
    if behind and not behind.isspace():
        return marks[-1] in "!?" and _UNSPACED_SIGN.match(behind) is not None
    while behind.isspace():
        end += 1
        behind = text[end : end + 1]
    if _LOWER_CASE.match(behind):
        return False
    if marks != ".":
        return True
    first = max(0, match.start() - _INNER_STOP_REACH)
    before = text[first : match.start()] if first else "\n" + text[: match.start()]
    return _BEFORE_INNER_STOP.search(before) is None
