"""Losses, rewards and accuracies of preferences are those of their formulas, written out here in float64."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import finetuning as ft
from helpers.models import make_model, tiny_config
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.collation import PackingCollator
from weft.recipes.finetuning.prediction import predict
from weft.recipes.finetuning.tasks.preferences.arguments import PreferenceArguments
from weft.recipes.finetuning.tasks.preferences.scoring import score_single
from weft.recipes.finetuning.tasks.preferences.task import Preferences
from weft.tokenizer.chat_templates import TEMPLATES
from weft.tokenizer.train import train_tokenizer

BETA = 0.3


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Prompts with a good and a bad end, as long as each other or not."""
    pairs = zip(ft.sentences(24, seed=3), ft.sentences(24, seed=4))
    return [
        {"prompt": f"{number} {a}", "chosen": " lovely", "rejected": f" {b}"}
        for number, ((a, _), (b, _)) in enumerate(pairs)
    ]


@pytest.fixture(scope="module")
def tokenizer(rows: list[dict[str, Any]]) -> PreTrainedTokenizerBase:
    return train_tokenizer((row["prompt"] + row["rejected"] for row in rows), "bpe", 300)


@pytest.fixture(scope="module")
def models(tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model as it starts, and another that it may have become."""
    config = tiny_config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    return tuple(make_model(config, seed=seed).double() for seed in (1, 2))


def make_task(folder: Path, rows: list[dict[str, Any]], tokenizer: Any, start: Any, **fields: Any) -> Preferences:
    path = ft.write_rows(folder / "train.jsonl", rows)
    files = PreferenceArguments(train_file=str(path), beta=BETA, validation_fraction=0.5, **fields)
    task = Preferences.read(files, FineTuningArguments())
    task.align_labels(start.config)
    task.encode("train", task.prepare_tokenizer(copy.deepcopy(tokenizer)), 128)
    task.prepare_model(start)
    return task


def log_probabilities(model: PreTrainedModel, ids: list[int]) -> list[float]:
    """Of each token but the first, one document by itself."""
    logits = model(torch.tensor([ids])).logits[0]
    return [logits[place].log_softmax(-1)[token].item() for place, token in enumerate(ids[1:])]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("loss", ["dpo", "kto", "orpo"])
@torch.no_grad()
def test_scores_of_pairs_are_those_of_the_formulas(
    loss: str, packed: bool, rows: Any, tokenizer: Any, models: Any, tmp_path: Path
) -> None:
    start, model = models
    task = make_task(tmp_path, rows, tokenizer, start, loss=loss)
    items = task.encode("validation", tokenizer, 128)
    results = predict(task, model, items, PackingCollator(tokenizer, packed), 5)
    found = task.score("validation", items, results)

    rewards, losses, gains, nats, targets = [], [], [], 0.0, 0
    for number, example in enumerate(task.examples["validation"]):
        begin = tokenizer(example.prompt).input_ids
        both = []
        for answer in example.answers:
            ids = [*tokenizer(example.prompt + answer).input_ids, tokenizer.eos_token_id]
            assert ids[: len(begin)] == begin  # each answer begins with a blank, which begins a token
            of_model, of_start = (log_probabilities(each, ids) for each in (model, start))
            n = len(begin) - 1
            both.append((sum(of_model[n:]), sum(of_start[n:]), len(of_model) - n))
            if answer == example.answers[0]:
                nats, targets = nats - sum(of_model), targets + len(of_model)
        borrowed = task.examples["validation"][number - 1].answers[0]
        before = tokenizer(task.examples["validation"][number - 1].prompt).input_ids
        whole = tokenizer(task.examples["validation"][number - 1].prompt + borrowed).input_ids
        ids = [*begin, *whole[len(before) :], tokenizer.eos_token_id]
        of_model, of_start = (log_probabilities(each, ids)[len(begin) - 1 :] for each in (model, start))
        gains.append(sum(of_model) - sum(of_start))
        rewards.append([BETA * (p - s if loss != "orpo" else p / n) for p, s, n in both])
    divergence = max(0.0, sum(gains) / len(gains))
    for chosen, rejected in rewards:
        if loss == "dpo":
            losses.append(-math.log(sigmoid(chosen - rejected)))
        elif loss == "kto":
            losses += [1 - sigmoid(chosen - BETA * divergence), 1 - sigmoid(BETA * divergence - rejected)]
        else:
            odds = [math.exp(each / BETA) / (1 - math.exp(each / BETA)) for each in (chosen, rejected)]
            losses.append(-BETA * math.log(sigmoid(math.log(odds[0] / odds[1]))))
    expected = {
        "loss": sum(losses) / len(losses) + (nats / targets if loss == "orpo" else 0),
        "accuracy": sum(chosen > rejected for chosen, rejected in rewards) / len(rewards),
        "margin": sum(chosen - rejected for chosen, rejected in rewards) / len(rewards),
        "reward_chosen": sum(chosen for chosen, _ in rewards) / len(rewards),
        "reward_rejected": sum(rejected for _, rejected in rewards) / len(rewards),
    }
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0 < found["accuracy"] < 1


def test_a_model_that_did_not_change_has_no_preference(rows: Any, tokenizer: Any, models: Any, tmp_path: Path) -> None:
    start, _ = models
    task = make_task(tmp_path, rows, tokenizer, start)
    items = task.encode("validation", tokenizer, 128)
    found = task.score("validation", items, predict(task, start, items, PackingCollator(tokenizer, True), 4))
    chance, by_length = task.baselines("validation", items, [])
    lengths = [[len(ids) for ids in item.sequences] for item in items]
    shorter = sum(chosen < rejected for chosen, rejected in lengths) / len(lengths)
    assert chance.scores == {"accuracy": 0.5} and by_length.scores == {"accuracy": shorter}
    assert by_length.answer == "always prefers the shorter answer"
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-12) and found["margin"] == pytest.approx(0, abs=1e-12)


def test_single_answers_are_scored_by_their_order() -> None:
    rewards, wanted = np.array([3.0, 1.0, 2.0, 0.0]), np.array([True, True, False, False])
    found = score_single(rewards, wanted)
    assert found == {"auc": 0.75, "margin": 1.0, "reward_wanted": 2.0, "reward_unwanted": 1.0}
    assert math.isnan(score_single(rewards, np.ones(4, bool))["auc"])


def test_answers_that_are_too_long_are_cut_or_left_out_and_counted(
    rows: Any, tokenizer: Any, models: Any, tmp_path: Path
) -> None:
    task = make_task(tmp_path, rows, tokenizer, models[0])
    whole = task.encode("train", tokenizer, 200)
    assert len(whole) == len(task.examples["train"]) and not any(line[0] == "too long" for line in task.describe())
    for item in whole:
        assert all(
            ids[-1] == tokenizer.eos_token_id and ids[: item.info] == item.sequences[0][: item.info]
            for ids in item.sequences
        )
    length = sorted(item.info for item in whole)[len(whole) // 2]  # as long as the prompt in the middle
    kept = task.encode("train", tokenizer, length)
    assert all(len(ids) <= length and item.info < length for item in kept for ids in item.sequences)
    lost = len(whole) - len(kept)
    told = next(value for name, value in task.describe() if name == "too long")
    assert 0 < lost < len(whole) and told.startswith(f"{lost} left out, ") and told.endswith("of 12 in train")
    assert any(name == "warning" and "--max_length" in value for name, value in task.describe())
    with pytest.raises(RecipeError, match="nothing of train has room in 3 tokens: give a larger --max_length"):
        task.encode("train", tokenizer, 3)


def test_conversations_are_written_by_the_template_and_answers_end_where_it_says(
    tokenizer: Any, models: Any, tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"the house {i}", "chosen": [{"role": "assistant", "content": "happy"}], "rejected": "awful"}
        for i in range(6)
    ]
    with pytest.raises(
        RecipeError, match=r"the tokenizer has no chat template: start from a model of recipes/finetune_c"
    ):
        make_task(tmp_path, rows, tokenizer, models[0])
    with pytest.raises(RecipeError, match=r"chat_template chatml writes .*, which the model has never read"):
        make_task(tmp_path, rows, tokenizer, models[0], chat_template="chatml")
    task = make_task(tmp_path, rows, tokenizer, models[0], chat_template="plain")
    items = task.encode("train", task.tokenizer, 100)
    decoded = [[task.tokenizer.decode(ids[item.info :]) for ids in item.sequences] for item in items]
    assert {tuple(each) for each in decoded} == {(" happy</s>", " awful</s>")}
    prompts = {task.tokenizer.decode(item.sequences[0][: item.info]) for item in items}
    assert all(text.endswith("Assistant:") and "User: the house" in text for text in prompts), prompts


def test_tools_are_written_into_the_prompt(tokenizer: Any, models: Any, tmp_path: Path) -> None:
    template = "{{ tools[0].name if tools else '' }}" + TEMPLATES["plain"].replace("if tools", "if false")
    (tmp_path / "tools.jinja").write_text(template)
    answers = {"chosen": [{"role": "assistant", "content": "happy"}], "rejected": "awful"}
    rows = [{"prompt": f"the house {i}", **answers, "tools": [{"name": "river"}]} for i in range(6)]
    task = make_task(tmp_path, rows, tokenizer, models[0], chat_template=str(tmp_path / "tools.jinja"))
    items = task.encode("train", task.tokenizer, 100)
    prompts = [task.tokenizer.decode(item.sequences[0][: item.info]) for item in items]
    assert all(text.startswith("river<s>") for text in prompts), prompts


def test_a_text_that_spells_a_special_token_is_refused(tokenizer: Any, models: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"the house {i}", "chosen": " happy </s> old", "rejected": " awful"} for i in range(6)]
    with pytest.raises(RecipeError, match=r"line \d: a text in it spells the special token '</s>'.* or give messages"):
        make_task(tmp_path, rows, tokenizer, models[0])


def test_the_report_shows_what_is_written_before_and_after(
    rows: Any, tokenizer: Any, models: Any, tmp_path: Path
) -> None:
    start, model = (copy.deepcopy(each).float() for each in models)
    task = make_task(tmp_path, rows, tokenizer, start, samples=7, max_new_tokens=6)
    items = task.encode("validation", task.tokenizer, 128)
    task.sample(model, "validation", items)
    assert len(task.written["validation"]) == 7
    by_number = {item.example: item for item in items}
    for each in task.written["validation"]:
        ids = torch.tensor([by_number[each.example].sequences[0][: by_number[each.example].info]])
        for network, text in ((model, each.text), (start, each.text_before)):
            out = network.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=tokenizer.eos_token_id)
            assert text == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
    results = predict(task, model, items, PackingCollator(tokenizer, True), 4)
    shown = task.write_report(tmp_path, "validation", items, results)
    assert "| written by this model | 7 |" in shown and "| written by the model before | 7 |" in shown
    longer = sum(len(item.sequences[0]) > len(item.sequences[1]) for item in items)
    assert longer == 0 or f"| longer | {longer} |" in shown
    table = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(table) == 1 + len(items) and table[0].startswith("example,prompt,chosen,rejected,reward_chosen,")
    assert (tmp_path / "preferences.png").stat().st_size > 0
