"""A head compiles to one graph, exports with open sizes, and takes low-rank adapters."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import EXPORTED, TASKS, make_role, make_task, random_ids
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from weft import WeftModel

EXACT = {"rtol": 0.0, "atol": 1e-11}
HEADS = {"sequence": "score", "token": "classifier", "question": "qa_outputs", "choice": "choice_score"}
# Each head once, and both ways of pooling: compiling takes seconds.
CASES = pytest.mark.parametrize(
    ("task", "is_causal"),
    [("sequence", True), ("sequence", False), ("token", True), ("question", False), ("choice", False)],
)


def batch_of(task: str, batch: int = 2, length: int = 9) -> dict[str, torch.Tensor]:
    """Rows (of three choices each, where the task has such), the first of them padded on the left."""
    shape = (batch, 3, length) if task == "choice" else (batch, length)
    mask = torch.ones(shape).long()
    mask[0, ..., :2] = 0
    return {"input_ids": random_ids(*shape, seed=length), "attention_mask": mask}


def labels_of(task: str, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Targets for two rows."""
    if task == "token":
        return {"labels": (inputs["input_ids"] % 3).masked_fill(inputs["attention_mask"] == 0, -100)}
    if task == "question":
        return {"start_positions": torch.tensor([4, 5]), "end_positions": torch.tensor([4, 7])}
    return {"labels": torch.tensor([1, 2])}


@CASES
def test_compiled_training_equals_uncompiled(task: str, is_causal: bool) -> None:
    """One graph without breaks, for padded rows and rows without a mask."""
    torch._dynamo.reset()
    model = make_task(task, is_causal=is_causal, pad_token_id=0, num_hidden_layers=1).train()
    graph = torch.compile(model, backend="eager", fullgraph=True)
    for with_mask in (True, False):
        inputs = batch_of(task) if with_mask else {"input_ids": batch_of(task)["input_ids"]}
        labels = labels_of(task, batch_of(task))
        results = []
        for each in (model, graph):
            model.zero_grad()
            output = each(**inputs, **labels)
            output.loss.backward()
            results.append(([*output.values()], [parameter.grad.clone() for parameter in model.parameters()]))
        torch.testing.assert_close(results[1], results[0], **EXACT)


class LogitsOf(torch.nn.Module):
    """A signature of tensors only, as an exported program has."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model(input_ids=input_ids, attention_mask=attention_mask).values())


@CASES
def test_an_exported_program_equals_the_model(task: str, is_causal: bool) -> None:
    """Exported once, with batch size and length left open."""
    if EXPORTED and task == "choice":  # nor of stock BERT
        pytest.skip("PyTorch 2.11 does not export it")
    model = LogitsOf(make_task(task, is_causal=is_causal, num_hidden_layers=1, **EXPORTED))
    example = tuple(batch_of(task).values())
    sizes = {
        0: torch.export.Dim("batch", min=1, max=64),
        example[0].ndim - 1: torch.export.Dim("length", min=3, max=128),
    }
    program = torch.export.export(model, example, dynamic_shapes=(sizes, sizes), strict=False).module()
    for batch, length in ((2, 9), (3, 9), (5, 30), (1, 17)):
        inputs = tuple(batch_of(task, batch, length).values())
        with torch.no_grad():
            torch.testing.assert_close(program(*inputs), model(*inputs), **EXACT)


@pytest.mark.parametrize("name", [*TASKS, "pretraining head"])
def test_an_exported_program_sorts_nothing(name: str) -> None:
    """Converters to other formats know no sort that is stable. Padding on the left is passed over all the same."""
    task = name if name in TASKS else "sequence"
    made = make_task(name) if name in TASKS else make_role(name).double()
    model, example = LogitsOf(made), tuple(batch_of(task).values())
    sizes = {0: torch.export.Dim("batch"), example[0].ndim - 1: torch.export.Dim("length", min=3, max=128)}
    exported = torch.export.export(model, example, dynamic_shapes=(sizes, sizes), strict=False)
    operations = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert operations and not [one for one in operations if "sort" in one]
    inputs = tuple(batch_of(task, 3, 17).values())
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(*inputs), model(*inputs), **EXACT)


@pytest.mark.parametrize("task", list(TASKS))
def test_adapters_train_and_come_back(task: str, tmp_path: Path) -> None:
    """They go to the modules that the class names; the head is trained as a whole and saved with them."""
    model: Any = make_task(task)
    make_task(task).model.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=list(model.lora_target_modules), modules_to_save=[HEADS[task]])
    adapted = get_peft_model(model, config)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert sum("lora_A" in name for name in trained) == 7 * model.config.num_hidden_layers
    assert {name.split(".")[-1] for name in trained if "lora" not in name} == {"weight", "bias"}
    inputs = batch_of(task)
    optimizer = torch.optim.SGD(adapted.parameters(), lr=1.0)
    adapted(**inputs, **labels_of(task, inputs)).loss.backward()
    optimizer.step()
    adapted.save_pretrained(tmp_path / "adapter")
    fresh = make_task(task)
    fresh.model = WeftModel.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    adapted.eval()
    with torch.no_grad():
        expected = list(adapted(**inputs).values())
        torch.testing.assert_close(list(loaded.eval()(**inputs).values()), expected, **EXACT)
        before = list(make_task(task)(**inputs).values())
        assert (expected[0] - before[0])[expected[0] > -1e9].abs().max() > 1e-3
