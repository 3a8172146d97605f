"""Text of any size out of a small one, to see how time and memory grow: every document is another, with new words."""

import itertools
from pathlib import Path

from weft.recipes.data.text_files import read_text

NEW_WORD_EVERY = 25  # words of a document that comes again; so many are new in text of a hundred million words


def write_growing_text(source: Path, path: Path, megabytes: int) -> None:
    """Write documents of `source` again and again, until there are so many million bytes.

    The documents are those that blank lines separate. Each begins with its number, and each NEW_WORD_EVERY-th word of
    it ends in that number.
    """
    written, numbers = 0, itertools.count(1)
    with path.open("wb") as handle:
        while True:
            for text in read_text(source, "blank-line"):
                number = next(numbers)
                words = text.split(" ")
                words[::NEW_WORD_EVERY] = [f"{word}{number}" for word in words[::NEW_WORD_EVERY]]
                written += handle.write(f"{number} {' '.join(words)}\n\n".encode())
                if written >= megabytes * 1_000_000:
                    return
