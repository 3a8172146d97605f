"""How many operations a token takes in training, by hand."""

from types import SimpleNamespace

import pytest
from helpers.models import tiny_config

from weft import WeftForCausalLM, WeftForConditionalGeneration
from weft.recipes.training import throughput
from weft.recipes.training.console import Console
from weft.recipes.training.metric_format import speed_of
from weft.recipes.training.model_setup import ParameterCounts, count_parameters
from weft.recipes.training.throughput import Throughput, training_flops_per_token

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


def test_a_state_costs_what_is_read_and_corrected_of_it() -> None:
    """3 heads of 5 x 7 numbers, each read, corrected and read, 2 operations each, and twice that on the way back."""
    sizes = {"linear_num_key_heads": 3, "linear_key_head_dim": 5, "linear_value_head_dim": 7}
    config = tiny_config(layer_types=["linear_attention", "recurrent"], **sizes)
    expected = 6 * 700 + 3 * 3 * 2 * 3 * 5 * 7
    assert training_flops_per_token(config, COUNTS, ROW, head_share=0.0) == pytest.approx(expected)
    assert training_flops_per_token(config, COUNTS, 100 * ROW, head_share=0.0) == pytest.approx(expected)


def test_what_is_multiplied_is_counted_once_and_embeddings_are_not() -> None:
    """Attention 2 x 32 x 32, grouped keys and values 2 x 32 x 16, feed-forward 3 x 32 x 48, norms; a tied head."""
    counts = count_parameters(tiny_config(tie_word_embeddings=True, qk_norm=False), WeftForCausalLM)
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    assert counts == ParameterCounts(total=2 * layer + 32 + 61 * 32, body=2 * layer + 32, head=61 * 32)


def test_an_encoder_decoder_is_counted_side_by_side() -> None:
    """Of 10 tokens an encoder of two layers reads 9 in both directions, and a decoder of one layer writes 2."""
    config = tiny_config(is_encoder_decoder=True, decoder_start_token_id=1, num_decoder_layers=1, head_dim=6)
    counts = ParameterCounts(total=900, body=700, head=100, decoder=300)
    seen = 0.9 * 2 * 9 + 0.2 * (2 / 2 + 9)
    expected = 6 * (0.9 * 400 + 0.2 * 300 + 0.2 * 100) + 12 * 4 * 6 * seen
    assert training_flops_per_token(config, counts, ROW, 0.2, (0.9, 0.2)) == pytest.approx(expected)
    fields = {"is_encoder_decoder": True, "tie_word_embeddings": True, "qk_norm": False, "num_decoder_layers": 1}
    counts = count_parameters(tiny_config(**fields), WeftForConditionalGeneration)
    attention = 2 * 32 * 32 + 2 * 32 * 16
    decoder = 2 * attention + 3 * 32 * 48 + 3 * 32 + 32  # one layer with three norms, and the last norm
    encoder = 2 * (attention + 3 * 32 * 48 + 2 * 32) + 32
    assert (counts.body, counts.decoder, counts.head) == (encoder + decoder, decoder, 61 * 32)


def rates_at(monkeypatch, speed: float, peak: float, again: float | None) -> list[dict[str, float]]:
    """Rates of two logs, of `speed` tokens a second with one operation each, on a device said to make `peak`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock.now)

    def measure() -> float:
        clock.now += 5.0  # which are not those of training
        return again

    measured = Throughput(lambda step: speed * step, 1.0, peak, measure_again=again and measure)
    found = []
    for step in range(3):
        found.append(measured.rates(step, 0.0))
        clock.now += 1.0
    return found[1:]


def test_a_reference_that_was_measured_in_a_slow_moment_is_measured_again_and_no_share_is_above_one(monkeypatch):
    assert [one["mfu"] for one in rates_at(monkeypatch, 50.0, 100.0, 1.0)] == [0.5, 0.5]
    assert [one["mfu"] for one in rates_at(monkeypatch, 50.0, 40.0, 200.0)] == [0.25, 0.25]
    for again in (45.0, None):
        assert ["mfu" in one for one in rates_at(monkeypatch, 50.0, 40.0, again)] == [False, False]
        assert rates_at(monkeypatch, 50.0, 40.0, again)[0]["tokens_per_second"] == 50.0


def test_what_is_slow_is_not_shown_as_nothing(monkeypatch, capsys):
    assert rates_at(monkeypatch, 0.0123, 1.0, None)[0]["tokens_per_second"] == 0.0123
    assert [speed_of(value) for value in (0.0123, 3.21, 12.3, 4567.8)] == ["0.012", "3.2", "12", "4,568"]
    state = SimpleNamespace(is_world_process_zero=True, global_step=1, max_steps=2)
    logs = {"loss": 1.0, "learning_rate": 0.1, "examples_per_second": 0.31}
    Console(True, has_epochs=False).on_log(None, state, None, logs)
    assert "| 0.31 examples/s" in capsys.readouterr().out
