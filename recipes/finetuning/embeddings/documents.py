"""What documents teach without labels: their title belongs to their rest, and their ruins to themselves."""

import random
from collections.abc import Iterable

from weft.recipes.data.segmentation import is_unspaced, sentence_ends

DAMAGE = 0.6  # share of the words that are left out (TSDAE, https://huggingface.co/papers/2104.06979)


def title_and_rest(document: str) -> tuple[str, str] | None:
    """Part a document into its first line or, where it has one line only, its first sentence, and what follows.

    Returns:
        None where nothing follows.
    """
    text = document.strip()
    for end in sorted(set(sentence_ends(text))):
        title, rest = text[:end].strip(), text[end:].strip()
        if title and any(map(str.isalnum, title)):
            return (title, rest) if any(map(str.isalnum, rest)) else None
    return None


def without_words(text: str, draw: random.Random, share: float = DAMAGE) -> str:
    """Leave out a share of a text's words, or of its characters in scripts without blanks; at least one stays."""
    between = "" if is_unspaced([text]) else " "
    words = text.split() if between else list(text)
    kept = [word for word in words if draw.random() >= share]
    return between.join(kept or [draw.choice(words)])


def damaged(texts: Iterable[str], passes: int, seed: int) -> list[tuple[str, str]]:
    """The ruins of each text, others for each pass over them, and the text: a function of seed, pass and place."""
    texts = list(texts)
    return [
        (without_words(text, random.Random(f"{seed} {number} {place}")), text)
        for number in range(passes)
        for place, text in enumerate(texts)
    ]
