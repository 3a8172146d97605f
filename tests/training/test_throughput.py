"""How many operations a token takes in training, by hand."""

import pytest
from helpers.models import tiny_config

from weft import WeftForCausalLM
from weft.recipes.training.model_setup import ParameterCounts, count_parameters
from weft.recipes.training.throughput import training_flops_per_token

COUNTS = ParameterCounts(total=900, body=700, head=100)
ROW = 10


def seen_by_hand(causal: bool, window: int) -> float:
    """Tokens within a window of a row's tokens, counted from 0 tokens before the first: the mean over the row."""
    places = [(query, key) for query in range(10 * ROW) for key in range(10 * ROW)]  # tenths of tokens
    inside = [
        0 <= query - key < 10 * window or (not causal and 0 <= key - query < 10 * window) for query, key in places
    ]
    return sum(inside) / 10 / (10 * ROW)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [3, 10, 40])
def test_scores_are_counted_for_the_tokens_that_each_layer_sees(causal: bool, window: int) -> None:
    config = tiny_config(
        is_causal=causal, sliding_window=window, layer_types=["sliding_attention", "full_attention"], head_dim=6
    )
    seen = seen_by_hand(causal, window) + seen_by_hand(causal, ROW)
    expected = 6 * (700 + 0.5 * 100) + 12 * 4 * 6 * seen
    assert training_flops_per_token(config, COUNTS, ROW, head_share=0.5) == pytest.approx(expected, rel=0.03)


def test_what_is_multiplied_is_counted_once_and_embeddings_are_not() -> None:
    """Attention 2 x 32 x 32, grouped keys and values 2 x 32 x 16, feed-forward 3 x 32 x 48, norms; a tied head."""
    counts = count_parameters(tiny_config(tie_word_embeddings=True, qk_norm=False), WeftForCausalLM)
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    assert counts == ParameterCounts(total=2 * layer + 32 + 61 * 32, body=2 * layer + 32, head=61 * 32)
