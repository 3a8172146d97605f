"""What goes wrong in fine-tuning is said before training, and what interrupts or repeats it changes no number."""

import json

import pytest
import torch
from helpers import finetuning as ft
from transformers import BertConfig

from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.seed_training import SeedRun
from weft.recipes.finetuning.tasks.text_classification.task import TextClassification
from weft.recipes.finetuning.trainer import SeedResult
from weft.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ft.write_files(tmp_path_factory.mktemp("data"))


def test_a_file_to_predict_for_that_cannot_be_read_is_refused_before_training(tmp_path):
    wrong = ft.write_rows(tmp_path / "wrong.jsonl", [{"colour": "red"}])
    for recipe, main in ft.MAINS.items():
        common = {**ft.files_of(recipe, tmp_path / "data", train=40, validation=5), "output_dir": tmp_path / "run"}
        ft.run_here(main, **common, plan="true")
        assert str(wrong) in ft.run_error(main, **common, predict_file=wrong)
        missing = tmp_path / "missing.jsonl"
        assert f"{missing} is missing" in ft.run_error(main, **common, predict_file=missing)
        assert not (tmp_path / "run" / "run.json").exists()


def test_a_text_to_predict_for_that_does_not_fit_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(SeedRun, "train", None)
    files = ft.files_of("finetune_choice", tmp_path / "data", train=20, validation=5)
    long = {"question": "who", "choices": ["one", " ".join(["two"] * 60)]}
    fields = {**files, "predict_file": ft.write_rows(tmp_path / "long.jsonl", [long])}
    refused = ft.run_error(ft.MAINS["finetune_choice"], **fields, output_dir=tmp_path / "run", max_length=32)
    assert f"{tmp_path / 'long.jsonl'}, line 1" in refused and "nothing of the prompt is left" in refused


def test_numbers_that_no_run_can_have_are_refused(files, tmp_path):
    search = {"search_trials": 1}
    for fields, sentence in (
        ({"seeds": [-1]}, "seeds has -1"),
        ({"split_seed": 2**32}, "split_seed is 4294967296"),
        ({"max_steps": None, "num_train_epochs": "inf"}, "num_train_epochs is inf"),
        ({"weight_decay": "nan"}, "weight_decay is nan: give a finite number"),
        ({"cpu_threads": 0}, "cpu_threads is 0"),
        ({**search, "search_space": "learning_rate=0,1e-3"}, "learning_rate is 0.0"),
        ({**search, "search_space": "per_device_train_batch_size=0,8"}, "per_device_train_batch_size is 0"),
        ({**search, "search_space": "hidden_dropout=0.5:1.5"}, "hidden_dropout=1.5"),
        ({**search, "search_space": "num_train_epochs=1,2"}, "max_steps is given"),
    ):
        assert sentence in ft.run_error(**files, output_dir=tmp_path / "run", **fields), fields
    assert not (tmp_path / "run").exists()


def test_the_test_examples_are_scored_with_the_thresholds_of_the_published_model(tmp_path, monkeypatch):
    def write(name, number, seed):
        rows = [
            {"text": text, "labels": [label, *(["river"] if "river" in text else [])]}
            for text, label in ft.sentences(number, seed)
        ]
        return ft.write_rows(tmp_path / name, rows)

    used = []
    score = TextClassification.score

    def remember(task, split, items, results):
        scores = score(task, split, items, results)
        if split == "test":
            used.append(task.thresholds.tolist())
        return scores

    monkeypatch.setattr(TextClassification, "score", remember)
    fields = {"train_file": write("train.jsonl", 200, 1), "test_file": write("test.jsonl", 40, 3), "seeds": [1, 2]}
    # there is no validation_file: the examples that are held out come after the test examples
    ft.run_here(**fields, output_dir=tmp_path / "run", max_steps=20)
    tuned = json.loads((tmp_path / "run" / "thresholds.json").read_text())["thresholds"]
    of_model, of_baseline = (
        used[:-1],
        used[-1],
    )  # whole, without each twentieth of it for the interval, and the baseline's
    assert of_model == [list(tuned.values())] * 21 and of_baseline != list(tuned.values())


def test_a_run_that_is_killed_after_it_stopped_early_does_not_train_on(files, tmp_path, monkeypatch):
    fields = {**files, "max_steps": 60, "evaluations": 30, "learning_rate": 1e-9, "patience": 3}
    folder = tmp_path / "run"

    def die(*_):
        raise InterruptedError

    monkeypatch.setattr(SeedResult, "write", die)
    with pytest.raises(InterruptedError):
        ft.run_here(**fields, output_dir=folder)
    monkeypatch.undo()
    assert (folder / "seed-1" / "checkpoint-8").is_dir()
    ft.run_here(**fields, output_dir=folder)
    found = ft.metrics(folder)
    assert found["steps"] == 8
    assert found["epochs"] == pytest.approx(8 * 16 / 200)  # of the steps that were trained, not of those planned


def test_a_seed_whose_score_is_not_a_number_is_never_the_best():
    for greater in (True, False):
        best_metric = BestMetric("f1", greater)
        assert best_metric.is_better(0.1, float("nan"))
        assert not best_metric.is_better(float("nan"), 0.1)
        assert not best_metric.is_better(float("nan"), float("nan"))


def test_a_finished_model_predicts_with_other_threads_and_other_batches(files, tmp_path, capsys):
    folder = tmp_path / "run"
    ft.run_here(**files, output_dir=folder, max_steps=2)
    new = tmp_path / "new.csv"
    new.write_text("text\nthe lovely house\n", encoding="utf-8")
    fields = {"max_steps": 2, "per_device_train_batch_size": 4, "cpu_threads": 2, "predict_file": new}
    threads = torch.get_num_threads()
    try:
        ft.run_here(**files, output_dir=folder, **fields)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert f"predictions in {folder / 'predicted.csv'}" in capsys.readouterr().out


def test_how_often_a_run_is_evaluated_cannot_change_in_the_middle(files, tmp_path):
    folder = tmp_path / "run"
    ft.run_here(**files, output_dir=folder, max_steps=4)
    (folder / "metrics.json").unlink()
    assert "eval_steps was None, now 1" in ft.run_error(**files, output_dir=folder, max_steps=4, eval_steps=1)


def test_a_new_model_of_another_family_has_room_for_every_token_of_its_tokenizer(files, tmp_path):
    tokenizer = train_tokenizer([text for text, _ in ft.sentences(200)], "bpe", 300)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertConfig(vocab_size=20, max_position_embeddings=64, **shape).save_pretrained(tmp_path / "shape")
    given = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"))
    given |= {"config_name": tmp_path / "shape", "tokenizer_name": tmp_path / "tokenizer", "max_steps": 1}
    ft.run_here(**files, **given, output_dir=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["vocab_size"] == len(tokenizer)
