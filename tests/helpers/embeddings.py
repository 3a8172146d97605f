"""Rows of texts that belong together, which a tiny model learns in seconds: questions and sentences about a thing."""

import itertools
import random

from weft.recipes import finetune_embeddings

COLOURS = ("red", "blue", "green", "grey", "white", "black", "brown", "pale")
THINGS = ("house", "river", "stone", "tree", "bird", "road", "boat", "bridge", "tower", "field")
PLACES = ("by the lake", "in the north", "near a wood", "under a hill", "over the sea")
main = finetune_embeddings.main


def pairs(seed: int = 0) -> list[dict[str, str]]:
    """A question for each colour of each thing, and the sentence that answers it."""
    draw = random.Random(seed)
    return [
        {"query": f"where is the {colour} {thing}", "passage": f"the {colour} {thing} is {draw.choice(PLACES)} now"}
        for colour, thing in itertools.product(COLOURS, THINGS)
    ]


def triplets() -> list[dict[str, str]]:
    """The same with a sentence about another thing."""
    rows = pairs()
    return [{**row, "negative": rows[(place + 7) % len(rows)]["passage"]} for place, row in enumerate(rows)]


def scored() -> list[dict[str, str | float]]:
    """Sentences with how many of two words they share."""
    draw = random.Random(1)
    rows = []
    for colour, thing in itertools.product(COLOURS, THINGS):
        others = draw.choice(COLOURS), draw.choice(THINGS)
        score = float((others[0] == colour) + (others[1] == thing))
        texts = f"a {colour} {thing} is here", f"here we see a {others[0]} {others[1]}"
        rows.append({"sentence1": texts[0], "sentence2": texts[1], "score": score})
        rows.append({"sentence1": texts[0], "sentence2": f"here we see a {colour} {thing}", "score": 2.0})
    return rows


def labelled() -> list[dict[str, str]]:
    """Sentences with the thing they are about."""
    return [{"text": row["passage"], "label": row["passage"].split()[2]} for row in pairs()]


def documents() -> str:
    """Text files' paragraphs, each of a title and a sentence."""
    return "\n\n".join(f"The {row['query'].removeprefix('where is the ')}\n{row['passage']}." for row in pairs())
