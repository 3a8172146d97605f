"""Padding on either side changes nothing about the real tokens, and rows of nothing but padding give no NaN."""

from typing import Any

import pytest
import torch
from helpers.models import FULL, ROLES, SLIDING, make_model, make_role, random_ids, tiny_config

ROUNDING = {"rtol": 0.0, "atol": 2e-5}
LENGTHS = (12, 5, 1)
LAYERS: dict[str, dict[str, Any]] = {
    "full": {},
    "sliding": {"sliding_window": 4},
    "mixed": {"sliding_window": 4, "layer_types": [SLIDING, FULL]},
}


def padded_batch(side: str, lengths: tuple[int, ...] = LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [rows, longest] with padding 0 on one side, and the mask of real tokens."""
    longest = max(lengths) + 2
    ids, mask = torch.zeros(len(lengths), longest, dtype=torch.long), torch.zeros(len(lengths), longest).long()
    for row, length in enumerate(lengths):
        here = slice(0, length) if side == "right" else slice(longest - length, longest)
        ids[row, here] = random_ids(length, seed=row)
        mask[row, here] = 1
    return ids, mask


def positions_for(kind: str, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions as callers write them: left out, or counted over the mask with padding at 0, at 1 or going on."""
    counted = mask.cumsum(-1) - 1
    return {
        "none": {},
        "padding at 0": {"position_ids": counted.masked_fill(mask == 0, 0)},
        "padding at 1": {"position_ids": counted.masked_fill(mask == 0, 1)},
        "cumulative": {"position_ids": counted},
    }[kind]


@pytest.mark.parametrize("positions", ["none", "padding at 0", "padding at 1", "cumulative"])
@pytest.mark.parametrize("role", list(ROLES))
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("layers", list(LAYERS))
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_real_tokens_are_as_without_padding(backend: str, layers: str, side: str, role: str, positions: str) -> None:
    model = make_role(role, backend, **LAYERS[layers])
    ids, mask = padded_batch(side)
    arguments = {"attention_mask": mask, **positions_for(positions, mask)}
    with torch.no_grad():
        padded = model(input_ids=ids, **arguments)[0]
        other_content = model(input_ids=ids + 11 * (1 - mask), **arguments)[0]
        for row, length in enumerate(LENGTHS):
            real = mask[row].bool()
            alone = model(input_ids=random_ids(1, length, seed=row))[0][0]
            torch.testing.assert_close(padded[row, real], alone, **ROUNDING)
            assert torch.equal(padded[row, real], other_content[row, real])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_takes_no_positions(side: str) -> None:
    """Rotary scores only depend on distances; a scaling that looks at the length shows what was counted."""
    rope_parameters = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 50.0}
    model = make_model(tiny_config(max_position_embeddings=max(LENGTHS), rope_parameters=rope_parameters))
    ids, mask = padded_batch(side)
    with torch.no_grad():
        padded = model(ids, attention_mask=mask).logits
        for row, length in enumerate(LENGTHS):
            alone = model(random_ids(1, length, seed=row)).logits[0]
            torch.testing.assert_close(padded[row, mask[row].bool()], alone, **ROUNDING)
        too_far = model(ids, attention_mask=mask, position_ids=torch.arange(ids.shape[1])[None]).logits
    assert (too_far - padded)[mask.bool()].abs().max() > 1e-2


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_loss_and_gradients_are_as_without_padding(backend: str, side: str) -> None:
    """With the labels of padding at -100, a padded batch trains as its rows one by one do."""
    model = make_model(tiny_config(), backend).double()
    ids, mask = padded_batch(side)
    items = sum(length - 1 for length in LENGTHS)
    labels = ids.masked_fill(mask == 0, -100)
    if side == "left":
        # the first real token is predicted by padding: it is no target of the unpadded row either
        labels = labels.masked_fill(mask.cumsum(-1) == 1, -100)
    loss = model(ids, attention_mask=mask, labels=labels, num_items_in_batch=items).loss
    loss.backward()
    padded = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    losses = []
    for row, length in enumerate(LENGTHS):
        tokens = random_ids(1, length, seed=row)
        losses.append(model(tokens, labels=tokens, num_items_in_batch=items).loss)
        losses[-1].backward()
    torch.testing.assert_close(loss, sum(losses), rtol=1e-6, atol=0)
    for name, parameter in model.named_parameters():
        scale = parameter.grad.abs().max().item()
        torch.testing.assert_close(padded[name], parameter.grad, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("role", list(ROLES))
@pytest.mark.parametrize("layers", list(LAYERS))
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_rows_of_only_padding_give_no_nan(
    backend: str, layers: str, role: str, packed: bool, dtype: torch.dtype
) -> None:
    """Forward and backward, also where the padding's own outputs take part in the loss."""
    model = make_role(role, backend, **LAYERS[layers]).to(dtype)
    ids, mask = padded_batch("left", (9, 4))
    ids, mask = torch.cat((ids, ids[:1])), torch.cat((mask, torch.zeros_like(mask[:1])))
    arguments = {"attention_mask": mask}
    if packed:
        arguments["position_ids"] = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]])
    output = model(input_ids=ids, **arguments)[0]
    output.float().pow(2).mean().backward()
    assert output.isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
