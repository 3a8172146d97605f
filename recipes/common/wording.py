"""Numbers in sentences, and words in texts."""

import regex

# Scripts that write words without blanks between them, and the sign that lengthens vowels in both kana.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u30FC"
_SIGN = regex.compile(rf"[{UNSPACED}]\p{{M}}*", regex.VERSION1)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, as "1 example" and "2,000 examples"; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def count_words(text: str) -> int:
    """The words of a text: what blanks divide; of scripts without blanks between words, each sign is one."""
    rest, signs = _SIGN.subn(" ", text)
    if not signs:
        return len(text.split())
    return signs + sum(any(map(str.isalnum, piece)) for piece in rest.split())
