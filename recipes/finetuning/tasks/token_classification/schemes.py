"""Schemes of tags for entities that stretch over several words: read in any of the usual ones, written as IOB2.

IOB2, IOB1: B- begins an entity, I- goes on with it; in IOB1 only where another one of the same type ends right before.
BIOES, BMES, BILOU: also E- (or L-) ends one and S- (or U-, W-) is one of a single word; M- is I-.
IO: the type alone (PER), so that neighbours of one type are one entity.
plain: every word has a tag of its own, such as its part of speech, and there are no entities.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from weft.recipes.common.errors import RecipeError

OUTSIDE = "O"
PLAIN = "plain"
_LETTERS = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES", "BMES": "BMESW", "BILOU": "BILU"}
SCHEMES = (*_LETTERS, "IO", PLAIN)
_TAG = re.compile(r"([BIEMSLUW])[-_](.+)", re.DOTALL)
_ALIKE = re.compile(r"([BIEMSLUW])[-_:./|+](.+)", re.DOTALL | re.IGNORECASE)  # as a tag is written by mistake
FEW = 0.1  # of all tags: so many may be mistakes
_MEANING = {"B": "B", "I": "I", "E": "E", "S": "S", "M": "I", "L": "E", "U": "S", "W": "S"}


class TagError(ValueError):
    """A tag that its scheme does not have; `word` is its place in the sequence."""

    def __init__(self, message: str, word: int) -> None:
        super().__init__(message)
        self.word = word


class StrayTagError(TagError):
    """A tag that is not of the scheme of nearly all others; `sentence` is the place of its sequence among all."""

    def __init__(self, message: str, sentence: int, word: int) -> None:
        super().__init__(message, word)
        self.sentence = sentence


def split_tag(tag: str) -> tuple[str, str] | None:
    """The letter and the type of a tag such as B-PER or B_PER; None for O and for tags without a letter."""
    match = _TAG.fullmatch(tag)
    return (match[1], match[2]) if match else None


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme of all tags together: "plain" where tags but O have no letter before a type.

    IOB1 and IOB2 share their tags. IOB2 begins every entity with B-, IOB1 none that follows anything but its own type;
    data with mistakes are of the scheme that fewer tags contradict.

    Raises:
        RecipeError: the letters belong to no single scheme.
        StrayTagError: nearly all tags are of one scheme, but this one is not.
    """
    sentences = list(sentences)
    times = Counter(tag for tags in sentences for tag in tags if tag != OUTSIDE)
    letters: Counter[str] = Counter()
    for tag, number in times.items():
        if match := _ALIKE.fullmatch(tag):
            letters[match[1].upper()] += number
    is_strict = all(split_tag(tag) for tag in times)
    if not times or not (is_strict or _are_strays(times, letters)):
        return PLAIN
    scheme = _scheme_of(letters)
    if scheme == "IOB2" and is_strict:
        scheme = _iob_of(sentences)
    for number, tags in enumerate(sentences):
        for word, tag in enumerate(tags):
            try:
                _read(tag, scheme, word)
            except TagError as error:
                raise StrayTagError(f"{error}, as nearly all tags are", number, word) from None
    return scheme


def _are_strays(times: Mapping[str, int], letters: Counter[str]) -> bool:
    """Whether tags that no scheme has are mistakes among those of one: few words have them, or they are few beside the
    different tags of the scheme (0 for every O). Tags that differ in case or sign only (b-per, B:PER) are its own."""
    odd = {tag: number for tag, number in times.items() if not _ALIKE.fullmatch(tag)}
    usual = {"B", "I"} & set(letters)
    if len(usual) < (1 if any(split_tag(tag) for tag in times) else 2):
        return False
    return sum(odd.values()) <= FEW * letters.total() or 2 * len(odd) <= len(times) - len(odd)


def _scheme_of(letters: Counter[str]) -> str:
    """The scheme that has all letters, or nearly all; IOB2 stands for IOB1 too."""
    if letters["E"] + letters["L"] <= FEW * letters["B"] and set(letters) <= set("BIEL"):
        return "IOB2"  # which has none of them: an entity of any other scheme is closed as often as it is opened
    lacking = {name: sum(n for letter, n in letters.items() if letter not in _LETTERS[name]) for name in _LETTERS}
    del lacking["IOB1"]
    scheme = min(lacking, key=lambda name: lacking[name])
    if lacking[scheme] > FEW * letters.total():
        raise RecipeError(
            f"the tags begin with {', '.join(sorted(letters))}, which no single scheme has: name one with --scheme "
            f"({', '.join(SCHEMES)}), or mend the tags."
        )
    return scheme


def _iob_of(sentences: Iterable[Sequence[str]]) -> str:
    """IOB1 or IOB2, whichever fewer tags contradict."""
    began = {"B": 0, "I": 0}
    for tags in sentences:
        before: str | None = None
        for tag in tags:
            letter, kind = split_tag(tag) or (OUTSIDE, None)
            if kind is not None and kind != before:
                began["B" if letter == "B" else "I"] += 1
            before = kind
    return "IOB1" if began["I"] > began["B"] else "IOB2"


def to_iob2(tags: Sequence[str], scheme: str) -> tuple[list[str], int]:
    """The same entities in IOB2; "plain" tags stay as they are.

    A sequence that the scheme forbids is read as the CoNLL script conlleval does: an entity begins with B or S, after
    O, after another type, and after E or S; it ends before whatever begins or is O.

    Returns:
        The tags, and how many of them broke the scheme.

    Raises:
        TagError: a tag that the scheme does not have.
    """
    if scheme == PLAIN:
        return list(tags), 0
    result: list[str] = []
    broken = 0
    before, before_letter = None, "O"
    for word, tag in enumerate((*tags, OUTSIDE)):
        letter, kind = _read(tag, scheme, word)
        begins = kind is not None and (letter in "BS" or kind != before or before_letter in "ES")
        if scheme == "IOB1":
            broken += letter == "B" and kind != before
        elif scheme != "IO":
            broken += begins and letter not in "BS"
            is_open = scheme != "IOB2" and before_letter in "BI"
            broken += is_open and (kind is None or begins)
        result.append(OUTSIDE if kind is None else f"{'B' if begins else 'I'}-{kind}")
        before, before_letter = kind, letter
    return result[:-1], broken


def _read(tag: str, scheme: str, word: int) -> tuple[str, str | None]:
    """What a tag means: B, I, E or S and the type; O and None outside."""
    if tag == OUTSIDE:
        return "O", None
    if scheme == "IO":
        return "I", tag
    parts = split_tag(tag)
    if parts is None or parts[0] not in _LETTERS[scheme]:
        known = ", ".join(f"{letter}-TYPE" for letter in _LETTERS[scheme])
        raise TagError(f"the tag {tag!r} is none of {scheme} ({known}, {OUTSIDE})", word)
    return _MEANING[parts[0]], parts[1]


def entity_labels(types: Iterable[str]) -> list[str]:
    """All labels of IOB2: O, then B- and I- of each type, sorted by type."""
    return [OUTSIDE, *(f"{letter}-{kind}" for kind in sorted(set(types)) for letter in "BI")]


def entities_of(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """First word, word after the last, and type of each entity of IOB2 tags, as conlleval reads them: an I- that goes
    on with nothing begins one."""
    entities: list[tuple[int, int, str]] = []
    before: str | None = None
    for place, tag in enumerate(tags):
        letter, _, kind = tag.partition("-")
        if tag == OUTSIDE:
            before = None
        elif letter == "I" and kind == before:
            entities[-1] = (entities[-1][0], place + 1, kind)
        else:
            entities.append((place, place + 1, kind))
            before = kind
    return entities
