"""Rotary scaling and ALiBi let a model read four times as far as it was trained; positions in a table do not."""

import math
from typing import Any

import pytest
import torch

from weft import WeftConfig, WeftForCausalLM

TRAINED, LONG = 24, 96


def repeated(rows: int, length: int, seed: int) -> torch.Tensor:
    """Token ids [rows, length]: a few random tokens again and again, another period in each row. What comes next stands
    one period before, so it must be looked up at the right distance."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(rows):
        period = int(torch.randint(2, 7, (), generator=draw))
        unit = torch.randint(0, 12, (period,), generator=draw)
        found.append(unit.repeat(length // period + 1)[:length])
    return torch.stack(found)


def train(**fields: Any) -> WeftForCausalLM:
    """A model that has learnt to repeat, from rows of `TRAINED` tokens."""
    torch.manual_seed(0)
    config = WeftConfig(
        vocab_size=12,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TRAINED,
        **fields,
    )
    model = WeftForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for step in range(300):
        ids = repeated(32, TRAINED, seed=step)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def loss_at_the_end(model: WeftForCausalLM, length: int) -> float:
    """Of the last `TRAINED` / 2 tokens of rows of that length."""
    ids = repeated(64, length, seed=10_000)
    labels = ids.masked_fill(torch.arange(length) < length - TRAINED // 2, -100)
    return float(model(ids, labels=labels).loss)


def with_rope(model: WeftForCausalLM, **rope_parameters: Any) -> WeftForCausalLM:
    """The same weights under other rotary positions."""
    config = WeftConfig(**{**model.config.to_dict(), "rope_parameters": rope_parameters})
    other = WeftForCausalLM(config).eval()
    other.load_state_dict(model.state_dict())
    return other


GUESSING = math.log(12)


def test_alibi_reads_four_times_as_far() -> None:
    model = train(position_embedding_type="alibi")
    near = loss_at_the_end(model, TRAINED)
    assert near < 0.65 * GUESSING
    assert loss_at_the_end(model, LONG) < near + 0.1


def test_rotary_scaling_reads_four_times_as_far() -> None:
    model = train()
    near = loss_at_the_end(model, TRAINED)
    assert near < 0.65 * GUESSING
    assert loss_at_the_end(model, LONG) > near + 0.15  # so there is something to mend
    scaled = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": TRAINED}
    assert loss_at_the_end(with_rope(model, **scaled), LONG) < near + 0.1


def test_positions_in_a_table_end_with_a_sentence() -> None:
    shape = {"vocab_size": 12, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = WeftConfig(**shape, max_position_embeddings=TRAINED)
    for kind in ("learned", "sinusoidal"):
        config.position_embedding_type = kind
        model = WeftForCausalLM(config)
        with pytest.raises(ValueError, match=f"The input has {LONG} positions, but .* is {TRAINED}"):
            model(repeated(2, LONG, seed=0))
