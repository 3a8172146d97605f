"""Loss, perplexity and bits per byte, from nats that somebody else measured."""

import math
import sys
from typing import Any

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
The mean negative log-likelihood of tokens in nats (loss), its exponential (perplexity), and the same information per
UTF-8 byte in bits, which models with different tokenizers can be compared by. It runs no model.
"""
_INPUTS = """
Args:
    predictions (list of float, or list of lists of float): the nats of each text's tokens, summed; or of each token.
    references (list of int, or list of lists of int): with sums, the number of tokens in each sum; with lists, the
        label of each token, where -100 says that the token does not count.
    byte_count (int, optional): UTF-8 bytes of all that the nats describe.

Returns:
    loss (float): nats per token; a mean over all tokens, not over texts.
    perplexity (float): exp(loss).
    bits_per_byte (float): all nats / ln 2 / byte_count; only if byte_count is given.
    tokens (int): how many counted.
    undefined (list of str): only if a score is undefined: no token, no byte, nats that are not finite, or a perplexity
        beyond the range of floats. It is then the largest float, the worst there is.
"""
_WORST = sys.float_info.max


class Perplexity(evaluate.Metric):
    """exp of the token-weighted mean of nats."""

    def _info(self) -> evaluate.MetricInfo:
        number, count = datasets.Value("float64"), datasets.Value("int64")
        features = [
            datasets.Features({"predictions": number, "references": count}),
            datasets.Features({"predictions": datasets.List(number), "references": datasets.List(count)}),
        ]
        return evaluate.MetricInfo(_DESCRIPTION, "", features, _INPUTS)

    def _infer_feature_from_batch(self, batch: dict[str, Any]) -> datasets.Features:
        """evaluate looks at the first example to choose between the two forms, and an empty batch has none."""
        return super()._infer_feature_from_batch(batch) if len(batch["predictions"]) else self.features[0]

    def _compute(
        self, predictions: list[Any], references: list[Any], byte_count: int | None = None
    ) -> dict[str, float | int | list[str]]:
        if predictions and isinstance(predictions[0], list):
            nats, tokens = _sum_of_tokens(predictions, references)
        else:
            nats, tokens = math.fsum(predictions), sum(references)
            if any(count < 0 for count in references):
                raise ValueError("references are numbers of tokens where predictions are sums: none may be negative.")
        undefined = []
        loss = bits_per_byte = perplexity = _WORST
        if not math.isfinite(nats):
            undefined.append("loss, perplexity and bits_per_byte: the nats are not finite numbers")
        else:
            if tokens:
                loss = nats / tokens
                perplexity = math.exp(min(loss, math.log(_WORST)))
                if loss > math.log(_WORST):
                    perplexity = _WORST
                    undefined.append("perplexity: larger than the largest float")
            else:
                undefined.append("loss and perplexity: no tokens were given")
            if byte_count:
                bits_per_byte = nats / math.log(2) / byte_count
            elif byte_count is not None:
                undefined.append("bits_per_byte: byte_count is 0")
        result: dict[str, float | int | list[str]] = {"loss": loss, "perplexity": perplexity}
        if byte_count is not None:
            result["bits_per_byte"] = bits_per_byte
        result["tokens"] = tokens
        return result | ({"undefined": undefined} if undefined else {})


def _sum_of_tokens(nats: list[list[float]], labels: list[list[int]]) -> tuple[float, int]:
    """Nats and number of the tokens that count."""
    for i, (numbers, names) in enumerate(zip(nats, labels)):
        if len(numbers) != len(names):
            raise ValueError(f"text {i} has {len(numbers)} predictions and {len(names)} references: give as many.")
    flat = np.array([number for numbers in nats for number in numbers], dtype=np.float64)
    counts = np.array([label != -100 for names in labels for label in names], dtype=bool)
    return math.fsum(flat[counts]), int(counts.sum())
