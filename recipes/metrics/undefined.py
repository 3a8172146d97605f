"""Sentences for scores that had nothing to divide by: what f1, multilabel and seqeval share."""

from collections.abc import Iterable


def nothing_to_divide_by(groups: Iterable[tuple[str, int, int]]) -> list[str]:
    """Name the scores of groups that are undefined.

    Args:
        groups: name, how often predicted and how often present.
    """
    sentences = []
    for name, predicted, present in groups:
        if not predicted and not present:
            sentences.append(f"f1, precision and recall of {name}: never predicted nor present")
        elif not predicted:
            sentences.append(f"precision of {name}: never predicted")
        elif not present:
            sentences.append(f"recall of {name}: never present")
    return sentences
