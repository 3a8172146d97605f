"""BLEU of texts against one or more reference texts each, as sacreBLEU computes it."""

import itertools
from typing import Any

import datasets
import evaluate
from sacrebleu.metrics import BLEU

_DESCRIPTION = """
BLEU of a whole set of texts: the geometric mean of the shares of n-grams (n from 1 to 4) that a reference holds too,
lowered where the texts are shorter than the references. It says something about sets, and little about single texts.
"""
_CITATION = "https://aclanthology.org/P02-1040 and https://aclanthology.org/W18-6319"
_TOKENIZERS = ("13a", "intl", "zh", "char", "none")  # those that need no download
_INPUTS = """
Args:
    predictions (list of str): the texts.
    references (list of lists of str): the references of each, one or more; empty ones are passed over.
    tokenize (str): what n-grams are made of: "13a" (the usual one, for text with blanks between words), "intl", "zh"
        (each Chinese character by itself), "char" (each character) or "none" (the text is split at blanks).
    lowercase (bool): case does not matter.

Returns:
    bleu (float): between 0 and 100.
    precisions (list of float): of n-grams, n from 1 to 4, in percent.
    brevity_penalty (float): what their mean is multiplied by.
    prediction_length, reference_length (int): in tokens.
    signature (str): of the computation, to be given with the number.
    undefined (list of str): only without examples, or where no prediction has a token; bleu is then 0.0.

Raises:
    ValueError: a text without reference, or an unknown tokenize.
"""


class Bleu(evaluate.Metric):
    """Equal to the library sacrebleu."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": datasets.List(text)})
        return evaluate.MetricInfo(_DESCRIPTION, _CITATION, features, _INPUTS)

    def _compute(
        self, predictions: list[str], references: list[list[str]], tokenize: str = "13a", lowercase: bool = False
    ) -> dict[str, Any]:
        if tokenize not in _TOKENIZERS:
            raise ValueError(f"tokenize is {tokenize!r}: choose one of {', '.join(_TOKENIZERS)}.")
        for number, texts in enumerate(references):
            if not any(texts):
                raise ValueError(f"text {number} has no reference, or empty ones only: give one or more.")
        if not predictions:
            return {"bleu": 0.0, "undefined": ["bleu: no examples were given"]}
        # the library takes lists of first, second ... references; only None is passed over, not an empty text
        streams = [[text or None for text in texts] for texts in itertools.zip_longest(*references)]
        bleu = BLEU(tokenize=tokenize, lowercase=lowercase, force=True)  # which keeps it from advising
        score = bleu.corpus_score(predictions, streams)
        result = {
            "bleu": score.score,
            "precisions": score.precisions,
            "brevity_penalty": score.bp,
            "prediction_length": score.sys_len,
            "reference_length": score.ref_len,
            "signature": str(bleu.get_signature()),
        }
        return result | ({} if score.sys_len else {"undefined": ["precisions: no prediction has a token"]})
