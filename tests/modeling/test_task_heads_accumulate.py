"""A step of the stock Trainer gives the same weights however many parts its batch is cut into, for every head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import TASKS, make_task, random_ids
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

EXAMPLES = 16  # two steps of eight
NAN = float("nan")


class Rows(Dataset):
    """Examples as a list of dicts."""

    def __init__(self, columns: dict[str, torch.Tensor]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def columns_of(task: str, kind: str) -> dict[str, torch.Tensor]:
    """Padded rows with labels, some of them no targets, not as many in every part of a batch."""
    choices = (3,) if task == "choice" else ()
    ids, mask = random_ids(EXAMPLES, *choices, 9), torch.ones(EXAMPLES, *choices, 9).long()
    mask[1::3, ..., 6:], mask[2::3, ..., :2] = 0, 0
    columns = {"input_ids": ids, "attention_mask": mask}
    if task == "question":
        start = torch.arange(EXAMPLES) % 3 + 2
        return columns | {"start_positions": start, "end_positions": start + 1}
    if task == "token":
        return columns | {"labels": (ids % 3).masked_fill((mask == 0) | (ids % 5 == 0), -100)}
    labels = torch.arange(EXAMPLES) * 7 % 3
    if kind == "many classes":
        labels = torch.nn.functional.one_hot(labels, 3).double()
        labels[4:7, 1] = -100
    elif kind == "numbers":
        labels = torch.randn(EXAMPLES, 3, generator=torch.Generator().manual_seed(0)).double()
    else:
        labels[[0, 1, 6, 9]] = -100
    return columns | {"labels": labels}


def train(task: str, kind: str, accumulation: int, folder: Path) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights after two steps of plain gradient descent, and the losses that were logged."""
    problem_type = {"many classes": "multi_label_classification", "numbers": "regression"}.get(kind)
    model = make_task(task, problem_type=problem_type)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=2,
        learning_rate=0.3,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=Rows(columns_of(task, kind)))
    assert not trainer._loss_shifts_labels, "the labels stand where their logits do"
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}, losses


CASES: list[tuple[str, str]] = [
    ("sequence", "one class"),
    ("sequence", "many classes"),
    ("sequence", "numbers"),
    *((task, "one class") for task in TASKS if task != "sequence"),
]


@pytest.mark.parametrize(("task", "kind"), CASES)
def test_accumulating_changes_nothing(task: str, kind: str, tmp_path: Path) -> None:
    start = dict(make_task(task).named_parameters())
    expected, losses = train(task, kind, 1, tmp_path)
    moved = max((expected[name] - weight).abs().max().item() for name, weight in start.items())
    assert moved > 1e-3
    for accumulation in (2, 4):
        found, found_losses = train(task, kind, accumulation, tmp_path)
        assert found_losses == pytest.approx(losses, rel=1e-6)
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-10, atol=1e-12)


def test_the_step_is_the_one_by_hand(tmp_path: Path) -> None:
    """Weights minus learning rate times the gradient of the mean over all targets of the step."""
    model, columns = make_task("sequence"), columns_of("sequence", "one class")
    for part in (slice(0, 8), slice(8, 16)):
        model.zero_grad()
        batch = {name: column[part] for name, column in columns.items()}
        logits, labels = model(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"]
        torch.nn.functional.cross_entropy(logits, labels).backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.3 * weight.grad
    found, _ = train("sequence", "one class", 4, tmp_path)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("task", list(TASKS))
def test_the_losses_options_reach_the_loss(task: str) -> None:
    """What is given to the forward pass beside the labels counts, and harms nothing where a loss does not know it."""
    model, columns = make_task(task), columns_of(task, "one class")
    options: dict[str, Any] = {"class_weights": torch.tensor([1.0, 5.0, 2.0]), "label_smoothing": 0.1}
    with torch.no_grad():
        plain, halved = (model(**columns, num_items_in_batch=items).loss for items in (8, torch.tensor(16)))
        assert torch.equal(model(**columns, num_items_in_batch=8, **options).loss, plain) == (task == "question")
    torch.testing.assert_close(plain, 2 * halved, rtol=1e-12, atol=0)
