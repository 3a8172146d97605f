"""Numbers, lists and texts of others in sentences: for messages, plans, logs and cards."""

import re
from collections.abc import Sequence

MOST_NAMED, NAMED_OF_MANY = 8, 3
# Control characters, ends of lines that few know, what turns the direction of all that follows, and halves of surrogate
# pairs, which cannot be written. Blanks of any width and joiners (Persian, Hindi, emoji) are text.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, as "1 example" and "2,000 examples"; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def some_of(names: Sequence[str]) -> str:
    """Name some things: all of them if they are few, the first ones and the number of the others if not."""
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED_OF_MANY])} and {len(names) - NAMED_OF_MANY:,} more"


def printable(text: str) -> str:
    """A text with escapes in the place of what a terminal would obey, but for line ends and tabs."""
    return _OBEYED.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)
