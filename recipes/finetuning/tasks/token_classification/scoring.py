"""How well predicted tags and entities agree with the right ones."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from weft.recipes.metrics import load_metric

Entity = tuple[int, int, str]


def score_tags(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Entities of IOB2 tags, as conlleval and seqeval count them: precision, recall, f1, accuracy (of tags), and the
    same with support for each of the `types`."""
    scores = load_metric("seqeval").compute(
        predictions=[list(tags) for tags in predicted], references=[list(tags) for tags in gold]
    )
    return {name: scores[name] for name in ("precision", "recall", "f1", "accuracy", "types")}


def score_spans(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> dict[str, Any]:
    """Entities by their characters: one is right if its type and both its ends are. 0 where there is nothing to divide
    by, as in seqeval."""
    right, found, there = Counter(), Counter(), Counter()
    for of_gold, of_predicted in zip(gold, predicted, strict=True):
        there.update(label for *_, label in of_gold)
        found.update(label for *_, label in of_predicted)
        right.update(label for *_, label in set(of_gold) & set(of_predicted))
    types = {name: _rates(right[name], found[name], there[name]) for name in sorted({*found, *there})}
    total = _rates(right.total(), found.total(), there.total())
    return {**{name: total[name] for name in ("precision", "recall", "f1")}, "types": types}


def score_plain(gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str]) -> dict[str, Any]:
    """Plain tags by their numbers (-1: none was predicted): accuracy, f1_macro over the tags that occur, and precision,
    recall, f1 and support of each, as `types`."""
    present = sorted({*gold, *predicted} - {-1})
    accuracy = load_metric("accuracy").compute(predictions=list(predicted), references=list(gold))["accuracy"]
    macro = load_metric("f1").compute(
        predictions=list(predicted), references=list(gold), average="macro", labels=present
    )["f1"]
    found, there = Counter(predicted), Counter(gold)
    right = Counter(one for one, other in zip(gold, predicted) if one == other)
    types = {labels[number]: _rates(right[number], found[number], there[number]) for number in present}
    return {"accuracy": float(accuracy), "f1_macro": float(macro), "types": types}


def _rates(right: int, found: int, there: int) -> dict[str, float | int]:
    precision, recall = right / found if found else 0.0, right / there if there else 0.0
    f1 = 2 * right / (found + there) if found + there else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": there}
