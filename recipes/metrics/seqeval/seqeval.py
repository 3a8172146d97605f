"""Precision, recall and F1 of named entities (or chunks) in tagged sentences."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import datasets
import evaluate
import seqeval.metrics.sequence_labeling as as_conlleval
import seqeval.metrics.v1 as by_scheme
import seqeval.scheme

from .undefined import nothing_to_divide_by

_DESCRIPTION = """
An entity is right if its type and both its ends are. Tags are read as the CoNLL script conlleval does, which takes an
entity that begins with I- for one, or strictly by a scheme, where only well-formed entities count.
"""
_CITATION = "https://aclanthology.org/W03-0419 and https://github.com/chakki-works/seqeval"
_INPUTS = """
Args:
    predictions (list of lists of str): the tags of each sentence, such as B-PER, I-PER, O.
    references (list of lists of str): its right tags, as many.
    mode (str or None): None, as conlleval reads tags (IOB2, IOB1, IOBES alike); "strict", by `scheme`.
    scheme (str): in strict mode, one of IOB1, IOB2, IOE1, IOE2, IOBES, BILOU.
    suffix (bool): tags are PER-B instead of B-PER.
    zero_division (int): 0 or 1, the value of undefined scores.

Returns:
    precision, recall, f1 (float): of all entities together (micro average), between 0 and 1.
    support (int): how many entities the references hold.
    accuracy (float): the share of tags that are right.
    types (dict): for each type of entity, its precision, recall, f1 and support.
    undefined (list of str): which scores had nothing to divide by; only if there are any. They are `zero_division`;
        accuracy without tags is 0.0.

Raises:
    ValueError: sentences of unequal length, a tag that is none, an unknown mode or scheme.
"""
_SCHEMES = {"IOB1": "BI", "IOB2": "BI", "IOE1": "IE", "IOE2": "IE", "IOBES": "BIES", "BILOU": "BILU"}  # and prefixes
_LENIENT = "BIES"


class Seqeval(evaluate.Metric):
    """Equal to the library seqeval."""

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.List(datasets.Value("string"))
        features = datasets.Features({"predictions": tags, "references": tags})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        mode: str | None = None,
        scheme: str = "IOB2",
        suffix: bool = False,
        zero_division: int = 0,
    ) -> dict[str, Any]:
        if mode not in (None, "strict"):
            raise ValueError(f'mode is {mode!r}: choose None or "strict".')
        if scheme not in _SCHEMES:
            raise ValueError(f"scheme is {scheme!r}: choose one of {', '.join(_SCHEMES)}.")
        if zero_division not in (0, 1):
            raise ValueError(f"zero_division is {zero_division!r}: choose 0 or 1.")
        _check_tags(predictions, references, _SCHEMES[scheme] if mode else _LENIENT, suffix)
        if not references:  # the library wants a sentence
            predictions, references = [[]], [[]]
        options: dict[str, Any] = {"suffix": suffix, "zero_division": zero_division}
        if mode == "strict":
            options["scheme"] = getattr(seqeval.scheme, scheme)
            score = by_scheme.precision_recall_fscore_support
        else:
            score = as_conlleval.precision_recall_fscore_support
        predicted, present = (_count_types(tags, **options) for tags in (predictions, references))
        names = sorted({*predicted, *present})

        overall = score(references, predictions, average="micro", **options)
        each = score(references, predictions, average=None, **options)
        tags = sum(map(len, references))
        right = sum(guess == tag for pair in zip(predictions, references) for guess, tag in zip(*pair))
        result = {
            **_named(overall),
            "accuracy": right / tags if tags else 0.0,
            "types": {name: _named(scores) for name, scores in zip(names, zip(*each))},
        }
        groups = [("all entities", predicted.total(), present.total())]
        groups += [(f"type {name}", predicted[name], present[name]) for name in names]
        undefined = nothing_to_divide_by(groups) + ([] if tags else ["accuracy: no tags were given"])
        return result | ({"undefined": undefined} if undefined else {})


def _check_tags(predictions: list[list[str]], references: list[list[str]], prefixes: str, suffix: bool) -> None:
    for i, (guess, tags) in enumerate(zip(predictions, references)):
        if len(guess) != len(tags):
            raise ValueError(f"sentence {i} has {len(guess)} predictions and {len(tags)} references: give as many.")
    marks = {"-" + prefix if suffix else prefix + "-" for prefix in prefixes}
    for tag in sorted({tag for sentences in (predictions, references) for sentence in sentences for tag in sentence}):
        if tag not in {"O", *prefixes} and (tag[-2:] if suffix else tag[:2]) not in marks:
            raise ValueError(
                f"the tag {tag!r} is none: tags are O or {'end' if suffix else 'begin'} with one of "
                f"{', '.join(prefixes)} and a hyphen; check suffix, mode and scheme."
            )


def _count_types(sentences: list[list[str]], suffix: bool, scheme: type | None = None, **_: Any) -> Counter[str]:
    """How many entities of each type there are."""
    if scheme is None:
        return Counter(name for name, _, _ in as_conlleval.get_entities(sentences, suffix))
    entities = seqeval.scheme.Entities(sentences, scheme, suffix).entities
    return Counter(entity.tag for sentence in entities for entity in sentence)


def _named(scores: Iterable[Any]) -> dict[str, float | int]:
    precision, recall, f1, support = scores
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
