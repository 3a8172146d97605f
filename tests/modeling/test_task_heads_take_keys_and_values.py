"""Fine-tuning heads take keys and values that stand before each row, as prefix tuning learns them."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import InnerFloat64, make_pair
from helpers.models import TASKS, make_task, random_ids
from peft import PeftModel, PrefixTuningConfig, TaskType, get_peft_model
from transformers import DynamicCache

VIRTUAL, TOKENS, ROWS = 4, 9, 3
IN_PEFT = {"sequence": TaskType.SEQ_CLS, "token": TaskType.TOKEN_CLS, "question": TaskType.QUESTION_ANS}


def virtual_tokens(layers: int, heads: int, width: int, rows: int = ROWS) -> DynamicCache:
    """Keys and values of virtual tokens for each layer."""
    shape, generator = (layers, 2, rows, heads, VIRTUAL, width), torch.Generator().manual_seed(7)
    return DynamicCache([tuple(pair) for pair in torch.randn(shape, generator=generator, dtype=torch.float64)])


@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize(("case", "head"), [("llama", "sequence"), ("llama", "tokens"), ("bert", "base")])
def test_they_stand_where_stock_classes_have_them(case: str, head: str, is_padded: bool) -> None:
    """Under a mask that is longer by the virtual tokens, or none. Of BERT the base model takes them."""
    _, stock, model = make_pair(case, head)
    config = model.config
    given = {"input_ids": random_ids(ROWS, TOKENS, vocab_size=90)}
    is_token = torch.ones(ROWS, TOKENS).bool()
    if is_padded:
        is_token[1, -3:] = False
        given["attention_mask"] = torch.cat((torch.ones(ROWS, VIRTUAL), is_token), dim=1).long()
        given["input_ids"] = given["input_ids"] * is_token
    found = []
    with torch.no_grad(), InnerFloat64():
        for each in (stock.double(), model.double()):
            cache = virtual_tokens(config.num_hidden_layers, config.num_key_value_heads, config.head_dim)
            outputs = each(**given, past_key_values=cache)
            first = next(value for name, value in outputs.items() if "logits" in name or "last" in name)
            found.append(first if head == "sequence" else first[is_token])
        if is_padded:
            given["attention_mask"] = is_token.long()
        without = model(**given)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-10 * max(1, found[0].abs().max().item()))
    without = next(iter(without.values()))
    assert (without[slice(None) if head == "sequence" else is_token] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("layers", [{}, {"sliding_window": 5}])
@pytest.mark.parametrize("task", TASKS)
def test_they_are_those_of_a_row_that_begins_earlier(task: str, layers: dict[str, int]) -> None:
    """Of a causal model, whose first tokens see none of the later ones."""
    model = make_task(task, is_causal=True, pad_token_id=0, **layers)
    shape = (2, 3) if task == "choice" else (ROWS,)
    ids = random_ids(*shape, VIRTUAL + TOKENS)
    mask = torch.ones_like(ids)
    mask[1, ..., -2:] = 0
    with torch.no_grad():
        whole = model(ids, attention_mask=mask)
        cache = DynamicCache()
        model.model(ids[..., :VIRTUAL].flatten(0, -2), past_key_values=cache, use_cache=True)
        parts = model(ids[..., VIRTUAL:], attention_mask=mask, past_key_values=cache)
    for name, expected in whole.items():
        if task in ("token", "question"):
            expected = expected[:, VIRTUAL:]
        torch.testing.assert_close(parts[name], expected, rtol=0, atol=1e-11)
    assert "past_key_values" not in parts


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("task", IN_PEFT)
def test_prefix_tuning_trains_and_comes_back(task: str, is_causal: bool, tmp_path: Path) -> None:
    """Of every task that PEFT knows and Weft has, with grouped queries and padded rows."""
    model = make_task(task, is_causal=is_causal, pad_token_id=0).float()
    mask = torch.ones(ROWS, TOKENS).long()
    mask[1, -3:] = 0
    given: dict[str, Any] = {"input_ids": random_ids(ROWS, TOKENS) * mask, "attention_mask": mask}
    labels = {"labels": torch.tensor([0, 2, 1])}
    if task == "token":
        labels = {"labels": (given["input_ids"] % 3).masked_fill(mask == 0, -100)}
    if task == "question":
        labels = {"start_positions": torch.tensor([1, 2, 3]), "end_positions": torch.tensor([1, 4, 8])}
    config = PrefixTuningConfig(task_type=IN_PEFT[task], num_virtual_tokens=VIRTUAL)
    adapted = get_peft_model(copy.deepcopy(model), config)
    optimizer = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], lr=0.1)
    losses = []
    for _ in range(6):
        loss = adapted(**given, **labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    with torch.no_grad():
        expected = adapted.eval()(**given)
        torch.testing.assert_close(list(loaded(**given).values()), list(expected.values()))
