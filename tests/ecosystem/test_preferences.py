"""recipes/finetune_preferences.py by TRL: it learns, its losses are TRL's, and a run goes on bit for bit."""

import importlib.util
import json
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import finetuning as ft
from helpers.elsewhere import elsewhere
from helpers.models import make_model, tiny_config
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from weft.recipes import finetune_preferences
from weft.recipes.finetuning.prediction import predict
from weft.recipes.finetuning.seed_training import SeedRun
from weft.recipes.finetuning.tasks.preferences import trl_trainers
from weft.recipes.training.trainer import WeftTrainer
from weft.tokenizer.train import train_tokenizer

LOSSES = ("dpo", "kto", "orpo")
AT_START = {"dpo": math.log(2), "kto": 0.5}  # of a model that has no preference yet
EXAMPLES = Path(__file__).parents[2] / "examples"
NOT_GIVEN = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"))
SETTINGS = {
    **{"max_steps": 30, "evaluations": 3, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "beta": 0.5},
    **{"max_new_tokens": 6, "validation_fraction": 0.25},
}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def pairs(number: int = 64) -> list[dict[str, Any]]:
    """Prompts with a good word preferred to a bad one, as conversations."""
    rows = []
    for place, (text, _) in enumerate(ft.sentences(number, seed=7)):
        good, bad = ft.GOOD[place % 3], ft.BAD[place % 3]
        said = [{"role": "assistant", "content": f"{good} {text}"}], [{"role": "assistant", "content": bad}]
        rows.append({"prompt": f"{place} {text}", "chosen": said[0], "rejected": said[1]})
    return rows


def singles(number: int = 64) -> list[dict[str, Any]]:
    """The same words, one by one, as texts that are wanted or not."""
    words = [(ft.GOOD if place % 2 else ft.BAD)[place % 3] for place in range(number)]
    return [
        {"prompt": f"{place} {text} is", "completion": f" {word}", "label": bool(place % 2)}
        for place, ((text, _), word) in enumerate(zip(ft.sentences(number, seed=7), words))
    ]


@pytest.fixture(scope="module")
def chat_tokenizer() -> PreTrainedTokenizerBase:
    texts = [f"user: {row['prompt']}\nassistant: {row['chosen'][0]['content']}" for row in pairs()]
    found = train_tokenizer(iter([*texts, *ft.BAD]), "bpe", 320, model_max_length=128)
    found.chat_template = TEMPLATE
    return found


@pytest.fixture(scope="module")
def start(chat_tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes nonsense, with a chat template."""
    folder = tmp_path_factory.mktemp("start") / "model"
    ids = {name: getattr(chat_tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    make_model(tiny_config(vocab_size=len(chat_tokenizer), **ids)).save_pretrained(folder)
    chat_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever TRL's trainers would send is an error."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was sent")

    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", refuse)


def run(folder: Path, start: Path, rows: list[dict[str, Any]] | None = None, **fields: Any) -> Path:
    """Carry a run out in `folder`/NAME, where NAME is `output`."""
    path = folder / "train.jsonl"
    if not path.exists():
        ft.write_rows(path, rows or pairs())
    output = folder / fields.pop("output", "run")
    given = {**NOT_GIVEN, "train_file": path, "model_name_or_path": start, **SETTINGS, **fields, "output_dir": output}
    ft.run_here(finetune_preferences.main, **given)
    return output


def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainers that runs make from here on."""
    made, make = [], trl_trainers.make_trainer
    monkeypatch.setattr(trl_trainers, "make_trainer", lambda **given: made.append(make(**given)) or made[-1])
    return made


@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_learns_to_prefer_and_leaves_a_folder_that_loads_anywhere(
    loss: str, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(tmp_path, start, loss=loss)
    printed, metrics = capsys.readouterr().out, ft.metrics(folder)
    assert metrics["eval_accuracy"] > 0.9 and metrics["eval_margin"] > 0, metrics
    losses = [one["eval_loss"] for one in ft.seed_result(folder)["history"] if "eval_loss" in one]
    assert len(losses) == 3 and losses[-1] < AT_START.get(loss, losses[0]) - 0.05
    assert (
        "loads with AutoModelForCausalLM.from_pretrained; accuracy" in printed
        and f"loss        {loss.upper()}" in printed
    )
    card = (folder / "README.md").read_text()
    assert "written by this model" in card and "preferences.png" in card and "apply_chat_template" in card
    for name in (
        "model.safetensors",
        "chat_template.jinja",
        "curve.png",
        "preferences.png",
        "predictions.csv",
        "answers.csv",
    ):
        assert (folder / name).stat().st_size > 0, name
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))
    code = f"""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        model = AutoModelForCausalLM.from_pretrained({str(folder)!r}, trust_remote_code=True)
        tokenizer = AutoTokenizer.from_pretrained({str(folder)!r}, trust_remote_code=True)
        messages = [{{"role": "user", "content": "the house"}}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        print(len(model.generate(**inputs, max_new_tokens=3)[0]) > 3)
    """
    done = elsewhere(code, tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "True", done.stderr


def test_single_answers_are_learnt_by_kto(start: Path, tmp_path: Path) -> None:
    folder = run(tmp_path, start, singles(), loss="kto")
    metrics = ft.metrics(folder)
    assert metrics["eval_auc"] > 0.9 and metrics["eval_reward_wanted"] > metrics["eval_reward_unwanted"]
    assert "auc" in (folder / "README.md").read_text()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_validation_loss_is_the_one_that_trl_trains_with(
    loss: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch that is the whole split, by the trained model; of KTO of single answers, whose mismatched answers then
    are the same."""
    made = trainers(monkeypatch)
    rows = singles() if loss == "kto" else pairs()
    run(tmp_path, start, rows, loss=loss, max_steps=6, evaluations=1)
    trainer = made[0]
    task, items, model = trainer.evaluator.task, list(trainer.evaluator.rows), trainer.model.eval()
    results = predict(task, model, items, trainer.evaluator.collator, 8)
    found = task.score("validation", items, results)
    own = [type(item)(item.sequences[:1], item.example, item.target, info=item.info) for item in items]
    row_of = trl_trainers._kto_row(len(items), task.max_length) if loss == "kto" else trainer.train_dataset.row_of
    batch = trainer.data_collator([row_of(own if loss == "kto" else items, place) for place in range(len(items))])
    with torch.no_grad():
        theirs = trainer.compute_loss(model, trainer._prepare_inputs(batch)).item()
    assert found["loss"] == pytest.approx(theirs, abs=2e-5)
    if loss != "kto":
        rewards = trainer._metrics["eval"] if loss == "dpo" else trainer._stored_metrics["train"]
        assert rewards["rewards/accuracies"][-1] == pytest.approx(found["accuracy"], abs=1e-6)
        assert rewards["rewards/margins"][-1] == pytest.approx(found["margin"], abs=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(
    loss: str, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"loss": loss, "max_steps": 8, "evaluations": 4}
    whole = run(tmp_path, start, **fields, output="whole")

    class CutOff(Exception):
        pass

    def cut_off(trainer: Any, *_: Any, **__: Any) -> None:
        if trainer.state.global_step == 4:
            raise CutOff
        return evaluate(trainer)

    evaluate = WeftTrainer.evaluate
    with monkeypatch.context() as patch, pytest.raises(CutOff):
        patch.setattr(WeftTrainer, "evaluate", cut_off)
        run(tmp_path, start, **fields, output="cut")
    assert (tmp_path / "cut" / "seed-1" / "checkpoint-4").is_dir()
    cut = run(tmp_path, start, **fields, output="cut")
    assert ft.losses(cut) == ft.losses(whole)
    found, expected = (load_file(folder / "model.safetensors") for folder in (cut, whole))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert ft.metrics(cut)["eval_margin"] == ft.metrics(whole)["eval_margin"]


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_adapters_are_trained_and_merged(loss: str, start: Path, tmp_path: Path) -> None:
    folder = run(tmp_path, start, loss=loss, lora_rank=4, learning_rate=1e-2)
    assert ft.metrics(folder)["eval_accuracy"] > 0.8
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    merged, before = load_file(folder / "model.safetensors"), load_file(start / "model.safetensors")
    changed = {name for name, value in merged.items() if not torch.equal(value, before[name])}
    assert changed and not any("embed_tokens" in name for name in changed)


def test_a_head_that_trl_computes_otherwise_is_refused(chat_tokenizer: Any, tmp_path: Path) -> None:
    ids = {name: getattr(chat_tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    make_model(tiny_config(vocab_size=len(chat_tokenizer), lm_head_scale=0.5, **ids)).save_pretrained(
        tmp_path / "scaled"
    )
    chat_tokenizer.save_pretrained(tmp_path / "scaled")
    with pytest.raises(ft.RecipeError, match=r"trl 1\.\S+ computes other log-probabilities than the model itself"):
        run(tmp_path, tmp_path / "scaled")
    assert ft.metrics(run(tmp_path, tmp_path / "scaled", loss="orpo", output="orpo"))["eval_accuracy"] > 0.9


def test_a_finished_run_is_used_again_and_nothing_is_trained(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, start, max_steps=2, evaluations=1)
    monkeypatch.setattr(SeedRun, "train", None)
    run(tmp_path, start, max_steps=2, evaluations=1)
    assert "is finished: nothing to train" in capsys.readouterr().out


@pytest.fixture
def example() -> Iterator[Any]:
    """Loads a script of examples/."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in ("reward_model", "grpo_arithmetic"):
        sys.modules.pop(name, None)


def test_the_example_of_a_reward_model_learns(
    example: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **_: None)
    rows = [{name: row[name] if name == "prompt" else row[name][0]["content"] for name in row} for row in pairs()]
    path = ft.write_rows(tmp_path / "pairs.jsonl", rows)
    steps = ("--max_steps", "12", "--learning_rate", "1e-2", "--batch_size", "8", "--max_length", "96")
    accuracy = example("reward_model").main([str(folders["causal"]), str(path), str(tmp_path / "reward"), *steps])
    assert accuracy > 0.8
    config = json.loads((tmp_path / "reward" / "config.json").read_text())
    assert config["architectures"] == ["WeftForSequenceClassification"] and len(config["id2label"]) == 1


def test_the_example_of_grpo_rewards_what_is_right(
    example: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda **_: None)
    module = example("grpo_arithmetic")
    assert module.is_right([" 7", "7 ", "17", "8", "x"], result=[7] * 5) == [1, 1, 0, 0, 0]
    assert module.is_number([" 7", "7 apples", ""]) == [0.1, 0, 0]
    rows, held_out = module.problems(2000, seed=0)
    for row in (*rows, *held_out):
        assert eval(row["prompt"].rstrip(" =")) == row["result"] == int(row["completion"])
    asked = [{tuple(sorted(re.findall(r"\d", row["prompt"]))) for row in some} for some in (rows, held_out)]
    assert not asked[0] & asked[1] and len(asked[0] | asked[1]) == 55 and len(asked[1]) == 10
    steps = ("--warm_up_steps", "2", "--max_steps", "2", "--num_generations", "4", "--batch_size", "8")
    before, after = module.main([str(folders["causal"]), str(tmp_path / "sums"), *steps])
    assert 0 <= before <= 1 and 0 <= after <= 1
    AutoModelForCausalLM.from_pretrained(tmp_path / "sums")
