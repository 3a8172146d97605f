"""chrF of texts against one or more reference texts each, as sacreBLEU computes it."""

import itertools
from typing import Any

import datasets
import evaluate
from sacrebleu.metrics import CHRF

_DESCRIPTION = """
chrF of a whole set of texts: the F score of character n-grams, in which recall counts beta times as much as precision.
It asks for no tokenizer, so that it is the same for languages with and without blanks between words; with word_order 2
it is chrF++.
"""
_CITATION = "https://aclanthology.org/W15-3049 and https://aclanthology.org/W18-6319"
_INPUTS = """
Args:
    predictions (list of str): the texts.
    references (list of lists of str): the references of each, one or more; empty ones are passed over, and the one that
        a text is likest to counts.
    char_order, word_order (int): the longest n-grams of characters and of words.
    beta (int): what recall counts against precision.
    lowercase (bool): case does not matter.

Returns:
    chrf (float): between 0 and 100.
    signature (str): of the computation, to be given with the number.
    undefined (list of str): only without examples; chrf is then 0.0.

Raises:
    ValueError: a text without reference, or an order or beta that is not possible.
"""


class Chrf(evaluate.Metric):
    """Equal to the library sacrebleu."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.List(text)})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(
        self,
        predictions: list[str],
        references: list[list[str]],
        char_order: int = 6,
        word_order: int = 0,
        beta: int = 2,
        lowercase: bool = False,
    ) -> dict[str, Any]:
        if char_order < 1 or word_order < 0 or beta < 1:
            raise ValueError(
                f"char_order, word_order and beta are {char_order}, {word_order} and {beta}: give at least 1, 0 and 1."
            )
        for number, texts in enumerate(references):
            if not any(texts):
                raise ValueError(f"text {number} has no reference, or empty ones only: give one or more.")
        if not predictions:
            return {"chrf": 0.0, "undefined": ["chrf: no examples were given"]}
        # the library takes lists of first, second ... references; only None is passed over, not an empty text
        streams = [[text or None for text in texts] for texts in itertools.zip_longest(*references)]
        chrf = CHRF(char_order=char_order, word_order=word_order, beta=beta, lowercase=lowercase)
        score = chrf.corpus_score(predictions, streams)
        return {"chrf": score.score, "signature": str(chrf.get_signature())}
