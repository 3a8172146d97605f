"""A classifier that a stock Trainer trained says of what kind its labels were, so that pipelines read its logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.elsewhere import make_folder
from helpers.models import make_task, random_ids
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    pipeline,
)

from weft import WeftForMaskedLM, WeftForSequenceClassification

# kind -> how many labels, those of eight rows, and what a pipeline makes of the logits
KINDS: dict[str, tuple[int, list[Any], Any]] = {
    "regression": (1, [0.5, -2.0, 3.0, 7.0] * 2, lambda logits: logits),
    "single_label_classification": (3, [0, 2, 1, 1] * 2, lambda logits: logits.softmax(-1)),
    "multi_label_classification": (3, [[1.0, 0.0, 1.0], [0.0] * 3, [1.0] * 3, [0.0, 1.0, 0.0]] * 2, torch.sigmoid),
}


def train(model: PreTrainedModel, labels: list[Any], folder: Path) -> None:
    """Two steps under the Trainer, which saves the model."""
    rows = [{"input_ids": ids, "labels": label} for ids, label in zip(random_ids(8, 7, vocab_size=30).tolist(), labels)]
    batch = {"per_device_train_batch_size": 4, "max_steps": 2, "report_to": "none", "use_cpu": True}
    trainer = Trainer(model, TrainingArguments(folder / "run", save_strategy="no", **batch), train_dataset=rows)
    trainer.train()
    trainer.save_model(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainer_saves_the_problem_type_and_pipelines_follow_it(kind: str, tmp_path: Path) -> None:
    number, labels, read = KINDS[kind]
    make_folder(tmp_path / "base", model_class=WeftForMaskedLM)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=number)
    assert model.config.problem_type is None
    train(model, labels, tmp_path / "weft")
    stock = BertForSequenceClassification(
        BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=number)
    )
    train(stock, labels, tmp_path / "stock")
    loaded = WeftForSequenceClassification.from_pretrained(tmp_path / "weft")
    saved = BertConfig.from_pretrained(tmp_path / "stock")
    assert loaded.config.problem_type == saved.problem_type == kind

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    found = pipeline("text-classification", model=loaded, tokenizer=tokenizer)("a b c", top_k=None)
    with torch.no_grad():
        expected = read(loaded(**tokenizer("a b c", return_tensors="pt")).logits[0])
    scores = {one["label"]: one["score"] for one in found}
    torch.testing.assert_close(torch.tensor([scores[f"LABEL_{index}"] for index in range(number)]), expected)


def test_what_the_config_says_is_not_changed(tmp_path: Path) -> None:
    """Nor is anything said by a batch that is refused."""
    model = make_task("sequence", num_labels=1, problem_type="multi_label_classification")
    model(random_ids(2, 5), labels=torch.tensor([[1.0], [0.0]]).double())
    assert model.config.problem_type == "multi_label_classification"
    model = make_task("sequence")
    with pytest.raises(ValueError, match="give one for each document"):
        model(random_ids(2, 5), labels=torch.tensor([[1, 0, 0], [0, 1, 1]]))
    assert model.config.problem_type is None
    model(random_ids(2, 5), labels=torch.tensor([2, 1]))
    assert model.config.problem_type == "single_label_classification"


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_remembers_too(kind: str) -> None:
    torch._dynamo.reset()
    number, labels, _ = KINDS[kind]
    model = make_task("sequence", num_labels=number, num_hidden_layers=1)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    given = {"input_ids": random_ids(8, 5), "labels": torch.tensor(labels)}
    first = compiled(**given).loss
    assert model.config.problem_type == kind
    torch.testing.assert_close(compiled(**given).loss, first)
    torch.testing.assert_close(model(**given).loss, first)
