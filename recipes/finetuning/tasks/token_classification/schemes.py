"""Schemes of tags for entities that stretch over several words: read in any of the usual ones, written as IOB2.

IOB2, IOB1: B- begins an entity, I- goes on with it; in IOB1 only where another one of the same type ends right before.
BIOES, BMES, BILOU: also E- (or L-) ends one and S- (or U-, W-) is one of a single word; M- is I-.
IO: the type alone (PER), so that neighbours of one type are one entity.
plain: every word has a tag of its own, such as its part of speech, and there are no entities.
"""

import re
from collections.abc import Iterable, Sequence

from weft.recipes.common.errors import RecipeError

OUTSIDE = "O"
PLAIN = "plain"
_LETTERS = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES", "BMES": "BMESW", "BILOU": "BILU"}
SCHEMES = (*_LETTERS, "IO", PLAIN)
_TAG = re.compile(r"([BIEMSLUW])[-_](.+)", re.DOTALL)
_MEANING = {"B": "B", "I": "I", "E": "E", "S": "S", "M": "I", "L": "E", "U": "S", "W": "S"}


class TagError(ValueError):
    """A tag that its scheme does not have; `word` is its place in the sequence."""

    def __init__(self, message: str, word: int) -> None:
        super().__init__(message)
        self.word = word


def split_tag(tag: str) -> tuple[str, str] | None:
    """The letter and the type of a tag such as B-PER or B_PER; None for O and for tags without a letter."""
    match = _TAG.fullmatch(tag)
    return (match[1], match[2]) if match else None


def detect_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme of all tags together: "plain" where not every tag but O has a letter before its type.

    IOB1 and IOB2 share their tags. IOB2 begins every entity with B-, IOB1 none that follows anything but its own type;
    data with mistakes are of the scheme that fewer tags contradict.

    Raises:
        RecipeError: the letters belong to no single scheme.
    """
    letters: set[str] = set()
    began_with_i = began_with_b = 0
    for tags in sentences:
        before: str | None = None
        for tag in tags:
            parts = split_tag(tag)
            if parts is None:
                if tag != OUTSIDE:
                    return PLAIN
                before = None
                continue
            letters.add(parts[0])
            if parts[1] != before:
                began_with_i += parts[0] != "B"
                began_with_b += parts[0] == "B"
            before = parts[1]
    if not letters:
        return PLAIN
    if letters <= {"B", "I"}:
        return "IOB1" if began_with_i > began_with_b else "IOB2"
    for scheme, allowed in _LETTERS.items():
        if letters <= set(allowed):
            return scheme
    raise RecipeError(
        f"the tags begin with {', '.join(sorted(letters))}, which no single scheme has: name one with --scheme "
        f"({', '.join(SCHEMES)}), or mend the tags."
    )


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
