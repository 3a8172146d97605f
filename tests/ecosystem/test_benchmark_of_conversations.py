"""Benchmark subject chat: Weft's packed steps beside SFTTrainer's compute the same loss, or nothing is timed."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import finetuning as ft

from weft.recipes import benchmark
from weft.recipes.benchmarks import conversations
from weft.recipes.common.errors import RecipeError

SIDES = {"weft", "SFTTrainer, padded", "SFTTrainer, packed"}


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, **fields: Any) -> dict[str, Any]:
    path = ft.write_rows(folder / "talks.jsonl", ft.rows_of("finetune_chat", 30))
    given = {"subject": "chat", "train_files": path, "cpu_threads": 1, "steps": 1, "rounds": 2, "batch_size": 6}
    given |= {"output_file": folder / "result.json", **fields}
    monkeypatch.setattr(conversations, "BATCHES", 3)
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *words])
    benchmark.main()
    return json.loads((folder / "result.json").read_text())


@pytest.fixture
def tokenizer_name(tokenizer: Any, tmp_path: Path) -> Path:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def test_both_are_measured_at_the_same_loss(tokenizer_name: Path, tmp_path: Path, monkeypatch) -> None:
    found = run(monkeypatch, tmp_path, tokenizer_name=tokenizer_name)
    assert found["seconds"].keys() == SIDES and found["ratios"].keys() == SIDES - {"weft"}
    assert all(len(seconds) == 2 for seconds in found["seconds"].values())


def test_sides_that_learn_other_tokens_are_refused(tokenizer_name: Path, tmp_path: Path, monkeypatch) -> None:
    targets = conversations.ChatTask.targets

    def the_first_half(task: Any, layout: Any) -> dict[str, Any]:
        found = targets(task, layout)
        found["labels"][:, found["labels"].shape[1] // 2 :] = -100
        return {**found, "learnt": (found["labels"] != -100).sum(dim=1)}

    monkeypatch.setattr(conversations.ChatTask, "targets", the_first_half)
    with pytest.raises(RecipeError, match=r"weft starts with a loss of .*, SFTTrainer, padded with .*: they differ"):
        run(monkeypatch, tmp_path, tokenizer_name=tokenizer_name)


def test_too_few_conversations_are_refused(tokenizer_name: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(RecipeError, match=r"there are \d+ conversations: the benchmark needs a batch of 64 or more"):
        run(monkeypatch, tmp_path, tokenizer_name=tokenizer_name, batch_size=64)
