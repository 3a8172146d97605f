"""TRL's trainers train a Weft checkpoint, with a config's `trust_remote_code` where they load it themselves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

STEPS = {
    **{"max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "report_to": "none", "use_cpu": True},
    **{"bf16": False, "save_strategy": "no", "logging_steps": 1, "gradient_checkpointing": False},
}
PACKINGS: dict[str, dict[str, Any]] = {
    "rows": {},
    "best fit": {"packing": True, "packing_strategy": "bfd"},
    "best fit, split": {"packing": True, "packing_strategy": "bfd_split"},
    "wrapped": {"packing": True, "packing_strategy": "wrapped"},
    "no padding": {"padding_free": True, "max_length": None},
}


def losses(trainer: Any) -> list[float]:
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def reloads(trainer: Any, auto: Any, folder: Path) -> None:
    """The saved folder gives the trained model's logits."""
    trainer.save_model(folder)
    ids = torch.randint(5, 200, (2, 9))
    loaded = auto.from_pretrained(folder)
    with torch.no_grad():
        expected = trainer.model.eval()(ids).logits
        torch.testing.assert_close(loaded.eval()(ids).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("packing", PACKINGS)
def test_sft_with_every_packing(packing: str, folders: dict[str, Path], texts: list[str], tmp_path: Path) -> None:
    options = {"max_length": 48, "model_init_kwargs": {"attn_implementation": "sdpa"}, **PACKINGS[packing]}
    config = SFTConfig(tmp_path / "run", **STEPS, trust_remote_code=True, **options)
    data = Dataset.from_dict({"text": texts})
    trainer = SFTTrainer(str(folders["causal"]), args=config, train_dataset=data)
    trainer.train()
    found = losses(trainer)
    assert len(found) == 6 and found[-1] < found[0] - 0.2, found
    reloads(trainer, AutoModelForCausalLM, tmp_path / "model")


def test_packed_rows_of_sft_do_not_see_each_other(folders: dict[str, Path], texts: list[str], tmp_path: Path) -> None:
    """The loss of packed rows is that of the rows one by one."""
    found = {}
    for packing in ("rows", "best fit"):
        options = {**STEPS, "max_steps": 1, "per_device_train_batch_size": 64, "max_length": 96, **PACKINGS[packing]}
        config = SFTConfig(tmp_path / packing, **options, trust_remote_code=True)
        data = Dataset.from_dict({"text": texts})
        trainer = SFTTrainer(str(folders["causal"]), args=config, train_dataset=data)
        trainer.train()
        found[packing] = losses(trainer)[0]
    assert abs(found["rows"] - found["best fit"]) < 2e-3, found


def preferences(texts: list[str]) -> Dataset:
    rows = {"prompt": [text[:20] for text in texts], "chosen": [text[20:] for text in texts]}
    return Dataset.from_dict(rows | {"rejected": [text[20:][::-1] for text in texts]})


def test_dpo(folders: dict[str, Path], texts: list[str], tmp_path: Path) -> None:
    config = DPOConfig(tmp_path / "run", **STEPS, max_length=64, trust_remote_code=True)
    trainer = DPOTrainer(str(folders["causal"]), args=config, train_dataset=preferences(texts))
    trainer.train()
    found = losses(trainer)
    assert found[-1] < found[0] - 0.1, found
    reloads(trainer, AutoModelForCausalLM, tmp_path / "model")


def test_kto(folders: dict[str, Path], texts: list[str], tokenizer: Any, tmp_path: Path) -> None:
    rows = {"prompt": [text[:20] for text in texts], "completion": [text[20:] for text in texts]}
    data = Dataset.from_dict(rows | {"label": [number % 2 == 0 for number in range(len(texts))]})
    config = KTOConfig(tmp_path / "run", **STEPS, max_length=64)
    model = AutoModelForCausalLM.from_pretrained(folders["causal"])
    trainer = KTOTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    found = losses(trainer)
    assert len(found) == 6 and all(torch.isfinite(torch.tensor(found))) and found[-1] != found[0]
    reloads(trainer, AutoModelForCausalLM, tmp_path / "model")


def test_reward(folders: dict[str, Path], texts: list[str], tokenizer: Any, tmp_path: Path) -> None:
    rows = {"chosen": texts, "rejected": [text[::-1] for text in texts]}
    config = RewardConfig(tmp_path / "run", **STEPS, max_length=64)
    model = AutoModelForSequenceClassification.from_pretrained(folders["causal"], num_labels=1)
    data = Dataset.from_dict(rows)
    trainer = RewardTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    found = losses(trainer)
    assert found[-1] < found[0] - 0.1, found
    reloads(trainer, AutoModelForSequenceClassification, tmp_path / "model")


def test_grpo(folders: dict[str, Path], texts: list[str], tmp_path: Path) -> None:
    """The reward is the share of one letter; its mean over the last steps is above that of the first."""

    def letters(completions: list[str], **_: Any) -> list[float]:
        return [text.count("e") / max(1, len(text)) for text in completions]

    options = {**STEPS, "max_steps": 12, "num_generations": 4, "max_completion_length": 8}
    config = GRPOConfig(tmp_path / "run", **options, trust_remote_code=True)
    data = Dataset.from_dict({"prompt": [text[:12] for text in texts]})
    trainer = GRPOTrainer(str(folders["causal"]), reward_funcs=letters, args=config, train_dataset=data)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert len(rewards) == 12 and all(0 <= reward <= 1 for reward in rewards)
    assert any(not torch.equal(before[name], weight) for name, weight in trainer.model.named_parameters())
    reloads(trainer, AutoModelForCausalLM, tmp_path / "model")
