"""The arithmetic of masked diffusion: how many tokens of a text are masked, what each counts, and how sure a bound is.

A text of n tokens is masked at the rate k/n, with k uniform on 1 ... n and k of its tokens at random; each masked token
counts n/k. The expected sum of the weighted nats is the negative evidence lower bound of a model that predicts masked
tokens from all others. MDLM (https://huggingface.co/papers/2406.07524) and LLaDA
(https://huggingface.co/papers/2502.09992) write it as an integral over rates t: every token is masked by itself with
probability t, and counts 1/t. Here that is integrated as far as it can be, for Binomial(k; n, t) / t integrates to 1/k.
So no rate is left out at the lower end, the weights of a text always sum to n, and the estimate varies less.

The bound is also the mean, over all orders in which tokens can be written one by one, of the nats of the text
(https://huggingface.co/papers/2110.02037).
"""

import numpy as np


def masked_counts(points: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """How many tokens of texts are masked, [...] int64: 1 to the size of each, 0 of an empty text.

    Args:
        points: [...] in [0, 1); uniform ones make all numbers of tokens as likely.
        sizes: [...], tokens of each text.
    """
    return np.minimum((points * sizes).astype(np.int64), sizes - 1) + 1


def stratified(draws: np.ndarray) -> np.ndarray:
    """Points [rates, ...] in [0, 1), one in each of as many equal parts, from draws [rates, ...] in [0, 1)."""
    rates = len(draws)
    return (np.arange(rates).reshape(-1, *[1] * (draws.ndim - 1)) + draws) / rates


def bound_variance(totals: np.ndarray) -> np.ndarray:
    """The variance [...] of the mean of totals [rates, ...] (an array or a tensor), an even number, each of which was
    drawn in its own part as `stratified` has them.

    Neighbouring parts are taken as one ("collapsed strata", Cochran 1977, "Sampling Techniques", 5A.12): the variance
    is never told too small in the mean, and a little too large where neighbours differ in their expectation.
    """
    return ((totals[::2] - totals[1::2]) ** 2).sum(0) / len(totals) ** 2
