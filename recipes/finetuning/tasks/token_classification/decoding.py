"""From labels of tokens to what they say of a text: entities as a pipeline cuts them out, and tags of words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from weft.recipes.finetuning.tasks.token_classification.encoding import NOTHING, begins_word, first_tokens, mark, reach
from weft.recipes.finetuning.tasks.token_classification.passages import Passage
from weft.recipes.finetuning.tasks.token_classification.schemes import OUTSIDE


class Tokens(NamedTuple):
    """All tokens of an example with what was predicted: where they stand in the text without blanks before them
    (offsets [tokens, 2]), and as a pipeline shows it (shown [tokens, 2]), label names, probabilities [tokens]."""

    offsets: np.ndarray
    shown: np.ndarray
    labels: list[str]
    probabilities: np.ndarray


class Prediction(NamedTuple):
    """An entity that was predicted, and the mean probability of its tokens' labels."""

    start: int
    end: int
    label: str
    score: float


def group(offsets: np.ndarray, labels: Sequence[str], probabilities: np.ndarray) -> list[Prediction]:
    """The entities that tokens' labels say, grouped as the pipeline's aggregation_strategy="simple" groups them: B-
    begins one; I- goes on with one of its type, and begins one elsewhere."""
    found: list[list[int]] = []
    types: list[str] = []
    before: str | None = None
    for token, label in enumerate(labels):
        if label == OUTSIDE:
            before = None
            continue
        letter, _, kind = label.partition("-")
        if letter == "I" and kind == before:
            found[-1].append(token)
        else:
            found.append([token])
            types.append(kind)
        before = kind
    return [
        Prediction(int(offsets[tokens[0], 0]), int(offsets[tokens[-1], 1]), kind, float(probabilities[tokens].mean()))
        for tokens, kind in zip(found, types)
    ]


def entities(passage: Passage, tokens: Tokens, all_pieces: bool) -> list[Prediction]:
    """The predicted entities of a text.

    Args:
        all_pieces: all pieces of words were learnt; otherwise those behind the first follow it.
    """
    if all_pieces:
        return group(tokens.shown, tokens.labels, tokens.probabilities)
    reached = reach(mark(len(passage.text), passage.words), tokens.offsets)
    begins = begins_word(reached)
    kept = np.flatnonzero(reached[:, 0] != NOTHING).tolist()
    labels: list[str] = []
    for token in kept:
        before = labels[-1] if labels else OUTSIDE
        labels.append(tokens.labels[token] if begins[token] else before.replace("B-", "I-", 1))
    return group(tokens.shown[kept], labels, tokens.probabilities[kept])


def word_tags(passage: Passage, tokens: Tokens, plain: bool) -> tuple[list[str], list[float]]:
    """Tag and probability of each word: those of its first token.

    Words that share a token are one entity where it begins one. A word without any token is inside where the entity
    before it goes on behind it, and outside elsewhere; its plain tag is "".
    """
    reached = reach(mark(len(passage.text), passage.words), tokens.offsets)
    firsts = first_tokens(reached, len(passage.words)).tolist()
    tags: list[str] = []
    for word, token in enumerate(firsts):
        if token != NOTHING:
            shared = not plain and word > 0 and token == firsts[word - 1]
            tags.append(tokens.labels[token].replace("B-", "I-", 1) if shared else tokens.labels[token])
        elif plain:
            tags.append("")
        else:
            following = next((tokens.labels[other] for other in firsts[word + 1 :] if other != NOTHING), OUTSIDE)
            goes_on = bool(tags) and tags[-1] != OUTSIDE and following == f"I-{tags[-1][2:]}"
            tags.append(following if goes_on else OUTSIDE)
    return tags, [0.0 if token == NOTHING else float(tokens.probabilities[token]) for token in firsts]
