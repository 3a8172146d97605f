"""What the plan says of a split's tokens and tags, and what of them no model could find."""

from collections import Counter
from collections.abc import Iterator, Sequence

from weft.recipes.finetuning.out_of_reach import TOKENIZER_HELPS, warn_of
from weft.recipes.finetuning.tasks.token_classification.passages import Passage
from weft.recipes.finetuning.tasks.token_classification.windows import SHARED, SILENT, UNREACHABLE


def lines_of_split(split: str, passages: Sequence[Passage], counts: Counter[str]) -> Iterator[tuple[str, str]]:
    """Lines of the plan.

    Args:
        counts: of what could not be given a tag as it is, by what it is (`WindowMaker.counts`).
    """
    entities = sum(len(passage.spans or ()) for passage in passages)
    words = sum(len(passage.words) for passage in passages)
    found = [
        f"{number:,} of {entities:,} {name}" if name == UNREACHABLE else f"{name}: {number:,}"
        for name, number in counts.items()
        if number
    ]
    if found:
        yield split, "; ".join(found)
    ends = f"the entities of {split} begin or end within a token, and cannot be found exactly"
    yield from warn_of(counts[UNREACHABLE], entities, ends, TOKENIZER_HELPS)
    yield from warn_of(counts[SILENT], words, f"the words of {split} have no token", TOKENIZER_HELPS)
    shared = f"the words of {split} share a token with another word of another tag"
    yield from warn_of(counts[SHARED], words, shared, TOKENIZER_HELPS)
