"""Numbers and lists of things in sentences: for messages, plans, logs and cards."""

from collections.abc import Sequence

MOST_NAMED, NAMED_OF_MANY = 8, 3


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, as "1 example" and "2,000 examples"; `plural` where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def some_of(names: Sequence[str]) -> str:
    """Name some things: all of them if they are few, the first ones and the number of the others if not."""
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED_OF_MANY])} and {len(names) - NAMED_OF_MANY:,} more"
