"""Made-up documents of token ids, and blocks of them as models of tokens read them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

START, END = 0, 1


def make_documents(number: int = 80, vocabulary: int = 10, seed: int = 0, marked: bool = True) -> list[list[int]]:
    """Documents of a few tokens, of which small ids are frequent and each leans towards the one after it."""
    draw = np.random.default_rng(seed)
    shares = 1 / np.arange(1, vocabulary - 1)
    documents = []
    for length in draw.integers(1, 12, number):
        text = draw.choice(np.arange(2, vocabulary), length, p=shares / shares.sum()).tolist()
        text = [token if place % 3 else min(token + 1, vocabulary - 1) for place, token in enumerate(text)]
        documents.append([START, *text, END] if marked else [*text, 2])
    return documents


def joined(documents: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens one after another and where each document begins."""
    return np.concatenate([np.array(each) for each in documents]), np.cumsum([0, *map(len, documents)])


def blocks(documents: Sequence[Sequence[int]], size: int = 1000) -> Callable[[], Iterator[tuple]]:
    """What yields blocks of `size` documents."""
    return lambda: (joined(documents[first : first + size]) for first in range(0, len(documents), size))
