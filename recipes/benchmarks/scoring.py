"""The log-probabilities of long texts, as evaluate_lm.py computes them, by Weft beside a stock class."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from weft.interop import find_family
from weft.interop.convert import import_model
from weft.recipes.benchmarks.batches import FIRST, plain_tokenizer
from weft.recipes.benchmarks.stock_models import TOLERANCE, Shape, make_stock
from weft.recipes.benchmarks.whole_rows import MASK, in_whole_rows
from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation.likelihood import ScoredText, Scorer, TokenSpan
from weft.recipes.training.throughput import seconds_of


def score_sides(shape: Shape, device: str, steps: int) -> dict[str, Callable[[], float]]:
    """All texts of a batch scored, `steps` times, by Weft, by Weft with whole rows where it cuts them, and by the stock
    class, in batches of as many tokens as evaluate_lm.py takes, or of one text where that is longer.

    Raises:
        RecipeError: two of them do not give the same log-probability to a token, in the mean.
    """
    stock = make_stock(shape).to(device).eval()
    model, _ = import_model(stock, find_family(shape.family), shape.head)
    models = {"weft": model.to(device).eval()}
    models |= {MASK: copy.deepcopy(model)} if shape.may_be_cut else {}
    models[shape.family] = stock
    tokenizer, spans = plain_tokenizer(shape.vocabulary), _random_texts(shape)
    calls = {}
    for name, each in models.items():
        scorer = Scorer(each, tokenizer, "causal", window=shape.length, quiet=True)
        calls[name] = in_whole_rows(name, partial(scorer.score, spans))
    means = {name: np.concatenate([found.log_probs for found in call()]).mean() for name, call in calls.items()}
    if not max(means.values()) - min(means.values()) <= TOLERANCE:
        told = ", ".join(f"{name} {mean:.6f}" for name, mean in means.items())
        raise RecipeError(f"the sides score the same tokens differently, so their times would say nothing: {told}.")
    return {name: partial(seconds_of, steps, call) for name, call in calls.items()}


def _random_texts(shape: Shape) -> list[TokenSpan]:
    """Texts of random tokens, of the shape's lengths."""
    draw, nothing = torch.Generator().manual_seed(0), np.empty(0, dtype=np.int32)
    texts = []
    for tokens in shape.text_lengths():
        ids = torch.randint(FIRST, shape.vocabulary, (tokens,), generator=draw, dtype=torch.int32).numpy()
        texts.append(ScoredText("", ids, np.zeros((tokens, 2), dtype=np.int32), nothing, nothing))
    return [TokenSpan(text, 0, len(text.ids)) for text in texts]
