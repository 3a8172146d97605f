"""The language of a text, as far as its script says it, and whether that has blanks between words."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import regex

from weft.tokenizer.pre_tokenizers import UNSPACED
from weft.tokenizer.script_statistics import script_of

SAMPLE_TEXTS, SAMPLE_CHARACTERS = 1000, 500  # texts that are looked at, and characters of each
MOST = 0.5  # of the letters: the script of a text has so many at least
KANA_OF_JAPANESE = 0.1  # share of the letters; Chinese texts hold a few too
# Scripts that one living language writes, or one by far the most; Latin, Cyrillic, Arabic, Devanagari and others write
# many, and say nothing.
LANGUAGES = {
    **{"Greek": "el", "Armenian": "hy", "Georgian": "ka", "Thaana": "dv", "Hangul": "ko"},
    **{"Thai": "th", "Lao": "lo", "Khmer": "km", "Sinhala": "si", "Cherokee": "chr", "Nko": "nqo", "Yi": "ii"},
    **{"Gujarati": "gu", "Gurmukhi": "pa", "Oriya": "or"},
    **{"Tamil": "ta", "Telugu": "te", "Kannada": "kn", "Malayalam": "ml"},
}
_LETTER, _HAN = regex.compile(r"\p{L}"), regex.compile(r"\p{Han}")
_KANA, _UNSPACED = regex.compile(r"[\p{Hiragana}\p{Katakana}]"), regex.compile(rf"(?V1)[[{UNSPACED}]&&\p{{L}}]")


def unspaced_script(text: str, share: float) -> str | None:
    """Tell whether a text is of scripts without blanks between words: "zh" Chinese, "unspaced" any other, or None.

    Args:
        share: of the letters, from which on it is.
    """
    letters, han, kana, unspaced = (len(kind.findall(text)) for kind in (_LETTER, _HAN, _KANA, _UNSPACED))
    if not letters or unspaced < share * letters:
        return None
    return "zh" if han >= share * letters and kana < KANA_OF_JAPANESE * letters else "unspaced"


def language_of_script(texts: Iterable[str]) -> str | None:
    """The ISO 639 code of the language whose script most letters of some texts belong to.

    Han characters are Chinese, or Japanese beside a tenth of kana.

    Returns:
        None where several languages write the script, or no script has most of the letters.
    """
    counts: Counter[str] = Counter()
    for text in islice(texts, SAMPLE_TEXTS):
        counts.update(script_of(character) for character in text[:SAMPLE_CHARACTERS] if character.isalpha())
    letters = sum(counts.values())
    kana = counts["Hiragana"] + counts["Katakana"]
    if letters and counts["Han"] + kana >= MOST * letters:
        return "ja" if kana >= KANA_OF_JAPANESE * letters else "zh"
    script, number = max(counts.items(), key=lambda entry: entry[1], default=("", 0))
    return LANGUAGES.get(script) if letters and number >= MOST * letters else None
