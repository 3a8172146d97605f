"""Many things told in a few words, for messages, plans, logs and cards."""

from collections.abc import Sequence

MOST_NAMED, NAMED_OF_MANY = 8, 3


def some_of(names: Sequence[str]) -> str:
    """Name some things: all of them if they are few, the first ones and the number of the others if not."""
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED_OF_MANY])} and {len(names) - NAMED_OF_MANY:,} more"
