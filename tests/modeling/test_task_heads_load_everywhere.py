"""Any Weft checkpoint loads into any fine-tuning head, which alone is new, and works where there is no package."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.elsewhere import make_folder, succeed
from helpers.models import TASKS, make_model, random_ids, tiny_config
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from weft import WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining, WeftModel, WeftPreTrainedModel

AUTO_CLASSES = dict(
    zip(
        TASKS,
        (
            AutoModelForSequenceClassification,
            AutoModelForTokenClassification,
            AutoModelForQuestionAnswering,
            AutoModelForMultipleChoice,
        ),
    )
)
HEADS = {"sequence": "score", "token": "classifier", "question": "qa_outputs", "choice": "choice_score"}
OTHERS = (WeftModel, WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining)
WHOLE_HEAD = {"lm_head_transform": True, "lm_head_bias": True, "tie_word_embeddings": False, "num_labels": 3}


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """By the name that they have in the base model, or in the head."""
    return {name.removeprefix("model."): weight for name, weight in model.named_parameters()}


@pytest.fixture
def warnings() -> list[str]:
    """What transformers warns of."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, logger = Keep(logging.WARNING), logging.getLogger("transformers")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@pytest.mark.parametrize("saver", [*OTHERS, *TASKS.values()])
def test_only_the_output_matrix_of_a_task_is_new(saver: type, tmp_path: Path, warnings: list[str]) -> None:
    """The report names it, and nothing that is left over; loading what the same class saved is silent."""
    saved = make_model(tiny_config(**WHOLE_HEAD), model_class=saver)
    saved.save_pretrained(tmp_path)
    for task, auto_class in AUTO_CLASSES.items():
        warnings.clear()
        loaded, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is TASKS[task]
        new = set() if saver is TASKS[task] else {f"{HEADS[task]}.weight", f"{HEADS[task]}.bias"}
        assert set(report["missing_keys"]) == new
        assert not report["unexpected_keys"] and not report["mismatched_keys"]
        assert "UNEXPECTED" not in "".join(warnings) and bool(warnings) == bool(new)
        expected = weights_of(saved)
        for name, weight in weights_of(loaded).items():
            assert name in new or torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("task", list(TASKS))
def test_a_fine_tuned_checkpoint_loads_as_anything_else(task: str, tmp_path: Path) -> None:
    """What the other class has and the task had not is missing; the task's own weights are passed over."""
    saved = make_model(tiny_config(**WHOLE_HEAD), model_class=TASKS[task])
    saved.save_pretrained(tmp_path)
    expected = weights_of(saved)
    for other in OTHERS:
        loaded, report = other.from_pretrained(tmp_path, output_loading_info=True)
        found = weights_of(loaded)
        assert set(report["missing_keys"]) == found.keys() - expected.keys()
        assert not report["unexpected_keys"]
        assert all(torch.equal(weight, expected[name]) for name, weight in found.items() if name in expected)


@pytest.mark.parametrize("task", list(TASKS))
def test_new_weights_start_as_those_of_any_model(task: str, tmp_path: Path) -> None:
    make_model(tiny_config(hidden_size=256), model_class=WeftForMaskedLM).save_pretrained(tmp_path)
    head = getattr(AUTO_CLASSES[task].from_pretrained(tmp_path, num_labels=5), HEADS[task])
    assert head.out_features == {"sequence": 5, "token": 5, "question": 2, "choice": 1}[task]
    assert (head.bias == 0).all() and 0.015 < head.weight.std().item() < 0.025


def test_the_modules_that_adapters_go_to() -> None:
    """All linear maps of the layers, and no other module of any class."""
    for model_class in (WeftPreTrainedModel, *OTHERS, *TASKS.values()):
        assert model_class.lora_target_modules == WeftPreTrainedModel.lora_target_modules
    model = make_model(model_class=TASKS["sequence"])
    linear = [name for name, module in model.model.named_modules() if isinstance(module, torch.nn.Linear)]
    assert {name.split(".")[-1] for name in linear} == set(WeftPreTrainedModel.lora_target_modules)


# Run where the package cannot be imported. transformers 5 has no pipeline for question answering or multiple choice.
USE_EVERY_HEAD = """
    from pathlib import Path

    import torch
    import transformers
    from transformers import AutoTokenizer, pipeline

    HEADS = {
        "sequence": "AutoModelForSequenceClassification",
        "token": "AutoModelForTokenClassification",
        "question": "AutoModelForQuestionAnswering",
        "choice": "AutoModelForMultipleChoice",
    }
    ids, choices = torch.load("ids.pt")
    texts = ["a b c d e", "f g", "h"]

    def use(task, folder):
        model, report = getattr(transformers, HEADS[task]).from_pretrained(
            folder, trust_remote_code=True, output_loading_info=True
        )
        assert not report["missing_keys"] and not report["unexpected_keys"], report
        with torch.no_grad():
            output = model(choices if task == "choice" else ids)
        torch.save(list(output.values()), folder / "results.pt")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if task == "sequence":
            classify = pipeline("text-classification", model=str(folder), tokenizer=tokenizer, trust_remote_code=True)
            alone = [classify(text, top_k=None) for text in texts]
            together = classify(texts, batch_size=3, top_k=None)
            for one, other in zip(alone, together):
                assert [each["label"] for each in one] == [each["label"] for each in other]
                assert sorted(each["label"] for each in one) == ["bad", "good", "so so"]
                assert all(abs(a["score"] - b["score"]) < 1e-5 for a, b in zip(one, other))
        if task == "token":
            find = pipeline("token-classification", model=str(folder), tokenizer=tokenizer, trust_remote_code=True)
            entities = find("a b c d e", ignore_labels=[])
            assert [entity["word"] for entity in entities] == list("abcde")
            assert [(entity["start"], entity["end"]) for entity in entities] == [(2 * i, 2 * i + 1) for i in range(5)]
        return model

    for name in NAMES:
        task, again = name.split("-")[0], Path(name, "again").resolve()
        use(task, Path(name, "model").resolve()).save_pretrained(again)
        AutoTokenizer.from_pretrained(Path(name, "model")).save_pretrained(again)
        use(task, again)
    for task, auto_class in HEADS.items():
        _, report = getattr(transformers, auto_class).from_pretrained(
            "base", trust_remote_code=True, output_loading_info=True
        )
        assert len(report["missing_keys"]) == 2 and not report["unexpected_keys"], report
"""


def test_a_process_without_the_package_uses_every_head(tmp_path: Path) -> None:
    """Direct calls and pipelines, also of what such a process saved; a masked model loads into all.

    The same bits, but where one number comes out: the order in which a dot product is summed depends on where in memory
    its weights lie.
    """
    ids, choices = random_ids(3, 12, vocab_size=30), random_ids(2, 3, 8, vocab_size=30)
    torch.save((ids, choices), tmp_path / "ids.pt")
    names = dict(enumerate(("bad", "good", "so so")))
    expected: dict[str, Any] = {}
    for task in TASKS:
        for direction, is_causal in (("causal", True), ("bidirectional", False)):
            changes = {"is_causal": is_causal, "id2label": names, "label2id": {name: i for i, name in names.items()}}
            folder = tmp_path / f"{task}-{direction}" / "model"
            model, _ = make_folder(folder, model_class=TASKS[task], **changes)
            with torch.no_grad():
                expected[f"{task}-{direction}"] = list(model(choices if task == "choice" else ids).values())
    make_folder(tmp_path / "base", model_class=WeftForMaskedLM, lm_head_transform=True)
    succeed(USE_EVERY_HEAD.replace("NAMES", str(tuple(expected))), tmp_path)
    for name, results in expected.items():
        for folder in ("model", "again"):
            found = torch.load(tmp_path / name / folder / "results.pt")
            tolerance = 1e-6 if name.startswith("choice") else 0
            torch.testing.assert_close(found, results, rtol=tolerance, atol=tolerance)
