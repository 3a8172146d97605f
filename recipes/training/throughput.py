"""Tokens per second, and which share of the hardware's matrix-product rate a run uses."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from weft import WeftConfig
from weft.recipes.training.model_setup import ParameterCounts


@cache
def measure_matmul_flops(
    device: torch.device, dtype: torch.dtype, threads: int, seconds: float = 0.5, attempt: int = 0
) -> float:
    """Floating-point operations per second of a square matrix product on this device with so many threads (those that
    PyTorch has now), the best within `seconds`; of at least one, however slow (bfloat16 is on many processors).
    Measured once in a process for each `attempt`, whatever number of runs it makes, and with random numbers of its own,
    which leave those of the run as they are."""
    size = 4096 if device.type == "cuda" else 1024
    draw = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(size, size, generator=draw, device=device).to(dtype) for _ in range(2))

    def run(count: int) -> float:
        synchronize(device)
        began = time.perf_counter()
        for _ in range(count):
            left @ right
        synchronize(device)
        return (time.perf_counter() - began) / count

    if device.type == "cuda":
        run(3)  # libraries are loaded and the clock goes up
    ends = time.perf_counter() + seconds
    best = run(1)
    count = max(1, int(seconds / 10 / best))
    while time.perf_counter() < ends:
        best = min(best, run(count))
    return 2 * size**3 / best


def training_flops_per_token(
    config: WeftConfig,
    parameters: ParameterCounts,
    sequence_length: int,
    head_share: float = 1.0,
    side_shares: tuple[float, float] = (1.0, 0.0),
) -> float:
    """Operations of forward and backward for one token (PaLM, https://huggingface.co/papers/2204.02311, appendix B):
    6 for each parameter it is multiplied with, and for the scores of each layer 12 x heads x head_dim x tokens seen,
    where a causal token sees half the row on average, and one of a sliding layer its window. In linear attention a
    token reads, corrects and reads the state of each head: 18 x its size. Recurrent networks have parameters only.

    Args:
        head_share: share of the tokens that the head is computed for.
        side_shares: of an encoder-decoder, how many tokens the encoder and the decoder compute for one of a row.
    """
    multiplied = parameters.body + head_share * parameters.head
    mixing, of_one = _mixing_flops(config, sequence_length), _flops_of_one_seen(config)
    if config.is_encoder_decoder:
        encoder, decoder = (config.of_stack(is_decoder) for is_decoder in (False, True))
        read, written = side_shares
        multiplied = read * (parameters.body - parameters.decoder) + written * parameters.decoder
        multiplied += head_share * parameters.head
        of_source = of_one * decoder.num_hidden_layers * read * sequence_length
        mixing = read * _mixing_flops(encoder, read * sequence_length)
        mixing += written * (_mixing_flops(decoder, written * sequence_length) + of_source)
    return 6 * multiplied + mixing


def _flops_of_one_seen(config: WeftConfig) -> int:
    return 12 * config.num_attention_heads * config.head_dim


def _mixing_flops(config: WeftConfig, length: float) -> float:
    """Operations of a token with others of its row, beside those with parameters, added up over the layers."""
    total = 0.0
    for layer_type in config.layer_types:
        if layer_type == "linear_attention":
            total += 18 * config.linear_num_value_heads * config.linear_key_head_dim * config.linear_value_head_dim
        elif layer_type != "recurrent":
            window = min(config.sliding_window if layer_type == "sliding_attention" else length, length)
            to_one_side = window - window**2 / (2 * length)  # less at the end of a row
            total += _flops_of_one_seen(config) * (to_one_side if config.is_causal else 2 * to_one_side)
    return total


class Throughput:
    """Rates between two calls, without the time spent on evaluating and saving."""

    def __init__(
        self,
        seen_before: Callable[[int], float],
        flops_per_token: float | Callable[[int, int], float] | None = None,
        peak_flops: float = 1.0,
        unit: str = "tokens",
        measure_again: Callable[[], float] | None = None,
    ) -> None:
        """Args:
        seen_before: how many tokens so many steps take, or examples, as `unit` says.
        flops_per_token: the same for all, or of the steps behind so many up to so many; None: mfu is not told.
        peak_flops: matrix-product rate of all processes' devices together.
        measure_again: measures that once more, where training is faster: it was measured in a slow moment.
        """
        self.seen_before, self.unit = seen_before, unit
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self.measure_again, self.measuring = measure_again, 0.0  # seconds that it took just now
        self.last: tuple[int, float] | None = None

    def start(self) -> None:
        """Forget what was before: the next call of `rates` only starts the clock."""
        self.last = None

    def rates(self, step: int, idle_seconds: float) -> dict[str, float]:
        """tokens_seen so far, and tokens_per_second and mfu since the last call; an mfu above 1 is left out."""
        now, seen = time.perf_counter() - idle_seconds, self.seen_before(step)
        rates: dict[str, float] = {f"{self.unit}_seen": round(seen)}
        if self.last is not None and step > self.last[0]:
            speed = (seen - self.seen_before(self.last[0])) / (now - self.last[1])
            rates[f"{self.unit}_per_second"] = round(speed, 1) if speed >= 10 else float(f"{speed:.3g}")
            if self.flops_per_token is not None:
                each = self.flops_per_token
                rates |= self._use(speed * (each(self.last[0], step) if callable(each) else each))
        self.last = (step, now + self.measuring)
        return rates

    def _use(self, flops: float) -> dict[str, float]:
        self.measuring = 0.0
        if flops > self.peak_flops and self.measure_again is not None:
            began = time.perf_counter()
            self.peak_flops, self.measure_again = max(self.peak_flops, self.measure_again()), None
            self.measuring = time.perf_counter() - began
        return {"mfu": round(flops / self.peak_flops, 4)} if flops <= self.peak_flops else {}


def seconds_of(times: int, call: Callable[[], Any]) -> float:
    """The seconds that so many calls take."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
