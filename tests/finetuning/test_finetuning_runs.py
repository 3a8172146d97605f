"""What a user may rely on in every fine-tuning run: its folder, its seeds, its best weights, and what it refuses."""

import csv
import json

import pytest
import torch
from helpers import finetuning as ft
from helpers.elsewhere import succeed
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel

from weft.recipes import finetune
from weft.recipes.common.errors import RecipeError
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ft.write_files(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """A run with two seeds that learns its little task."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    ft.run_here(**files, output_dir=folder, seeds=[1, 2], max_steps=60, evaluations=6)
    return folder


def test_the_task_is_learnt_and_the_folder_holds_what_is_promised(finished):
    found = ft.metrics(finished)
    assert found["eval_accuracy"] > 0.95
    names = {path.name for path in finished.iterdir()}
    assert {
        "README.md",
        "curve.png",
        "predictions.csv",
        "mistakes.csv",
        "confusion_matrix.png",
        "calibration.png",
    } < names
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_weft.py", "metrics.json"} < names
    assert not [name for name in names if "partial" in name or "checkpoint" in name]


def test_scores_of_all_seeds_are_reported_with_mean_and_deviation(finished):
    found = ft.metrics(finished)
    scores = [entry["accuracy"] for entry in found["seeds"]]
    assert [entry["seed"] for entry in found["seeds"]] == [1, 2]
    assert found["over_seeds"]["accuracy"]["mean"] == pytest.approx(sum(scores) / 2)
    assert found["over_seeds"]["accuracy"]["deviation"] == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    assert found["eval_accuracy"] == max(scores)
    assert "standard deviation" in (finished / "README.md").read_text()


def test_the_pipeline_says_what_predictions_csv_says_where_weft_cannot_be_imported(finished, tmp_path):
    with (finished / "predictions.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))[:12]
    texts = [row["text"] for row in rows]
    printed = succeed(
        f"""
        import json
        from transformers import pipeline
        classifier = pipeline("text-classification", model={str(finished)!r}, trust_remote_code=True)
        print("ANSWERS" + json.dumps([(answer["label"], answer["score"]) for answer in classifier({texts!r})]))
        """,
        tmp_path,
    )
    answers = json.loads(printed.split("ANSWERS")[1])
    assert [label for label, _ in answers] == [row["predicted"] for row in rows]
    for (label, score), row in zip(answers, rows):
        assert score == pytest.approx(float(row[f"probability of {label}"]), abs=1e-4)


def test_a_finished_run_is_left_alone_and_labels_new_data_when_asked(finished, files, tmp_path, capsys):
    before = (finished / "model.safetensors").stat().st_mtime_ns
    new = tmp_path / "new.csv"
    new.write_text("text\nthe lovely old house\nthe awful old house\n", encoding="utf-8")
    ft.run_here(**files, output_dir=finished, seeds=[1, 2], max_steps=60, evaluations=6, predict_file=new)
    assert "is finished" in capsys.readouterr().out
    assert (finished / "model.safetensors").stat().st_mtime_ns == before
    with (finished / "predicted.csv").open(encoding="utf-8", newline="") as handle:
        assert [row["predicted"] for row in csv.DictReader(handle)] == ["good", "bad"]


def test_other_settings_or_other_data_in_the_folder_of_a_run_are_refused(finished, files, tmp_path):
    common = {"output_dir": finished, "seeds": [1, 2], "max_steps": 60, "evaluations": 6}
    assert "learning_rate was 0.003, now 0.1" in ft.run_error(**files, **common, learning_rate=0.1)
    changed = {**files, "train_file": ft.write_examples(tmp_path / "train.csv", 100)}
    assert "other settings" in ft.run_error(**changed, **common)


def test_fine_tuning_goes_on_from_a_finished_model_with_its_head(finished, files, tmp_path):
    ft.run_here(
        **files,
        output_dir=tmp_path / "next",
        model_name_or_path=finished,
        max_steps=1,
        evaluations=1,
        learning_rate=1e-9,
    )
    assert ft.metrics(tmp_path / "next")["eval_accuracy"] == ft.metrics(finished)["eval_accuracy"]


def test_a_head_for_other_labels_starts_anew(finished, tmp_path):
    file = tmp_path / "other.csv"
    rows = [f"{text},{'yes' if label == 'good' else 'no'}" for text, label in ft.sentences(60)]
    file.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    ft.run_here(
        train_file=file,
        output_dir=tmp_path / "run",
        model_name_or_path=finished,
        max_steps=1,
        evaluations=1,
        learning_rate=1e-9,
    )
    old, new = (load_file(folder / "model.safetensors") for folder in (finished, tmp_path / "run"))
    assert torch.allclose(old["model.layers.0.mlp.up_proj.weight"], new["model.layers.0.mlp.up_proj.weight"], atol=1e-6)
    assert not torch.allclose(old["score.weight"], new["score.weight"], atol=1e-3)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").config.label2id == {"no": 0, "yes": 1}


def test_a_new_head_depends_on_the_seed_and_on_nothing_else(finished, tmp_path):
    heads = {name: _first_head(finished, tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))}
    assert torch.equal(heads["a"], heads["b"])
    assert not torch.equal(heads["a"], heads["c"])


def test_early_stopping_ends_a_run_that_does_not_improve(files, tmp_path, capsys):
    ft.run_here(**files, output_dir=tmp_path / "run", max_steps=60, evaluations=30, learning_rate=1e-9, patience=3)
    found = ft.metrics(tmp_path / "run")
    assert found["steps"] == 2 * 4  # the first evaluation is the best, three more follow
    assert "finished" in capsys.readouterr().out


def test_the_plan_is_printed_and_nothing_is_written(files, tmp_path, capsys):
    ft.run_here(**files, output_dir=tmp_path / "run", plan="true", seeds=None)
    printed = capsys.readouterr().out
    assert "train 200, validation 60" in printed
    assert "seeds       1, 2, 3, 4, 5" in printed  # few examples: five seeds unless told otherwise
    assert not (tmp_path / "run").exists()


def test_make_finetune_finds_the_recipe_of_every_known_task(capsys):
    for task in ("sst2", "conll2000", "squad", "swag"):
        with pytest.raises(SystemExit):
            finetune.main(["--task", task, "--help_all"])
    assert "stride" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="did you mean sst2"):
        finetune.main(["--task", "sst-3"])


def test_wrong_fields_are_refused_before_any_work(files, tmp_path):
    folder = tmp_path / "run"
    for fields, sentence in (
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"batching": "dense"}, "batching is 'dense'"),
        ({"seeds": [1, 1]}, "more than once"),
        ({"lora_rank": 4, "layer_decay": 0.5}, "lora_rank trains adapters only"),
        ({"lora_rank": 4}, "lora_rank adapts a trained model: give model_name_or_path"),
        ({"layer_decay": 0}, "layer_decay is 0"),
        ({"freeze_layers": 9}, "the model has 2 layers"),
        ({"search_trials": 2, "search_space": "colour=1,2"}, "'colour' cannot be searched"),
        ({"lora_alpha": 4}, "lora_alpha has no effect without lora_rank"),
        ({"seed": 3}, "give seeds"),
        ({"tokenizer_type": "unigram"}, "tokenizer_type is 'unigram'"),
        ({"attn_implementation": "flex_attention"}, "no backward pass on a CPU"),
        ({"max_steps": 5, "warmup_steps": 9}, "longer than the whole run"),
        ({"model_name_or_path": str(tmp_path / "nowhere")}, "there is no such folder"),
        ({"model_name_or_path": "nobody/nothing"}, "cannot be loaded"),
        ({"metric_for_best_model": "f1"}, "best validation score"),
    ):
        assert sentence in ft.run_error(**files, output_dir=folder, **fields), fields
        assert not (folder / "run.json").exists()


def _first_head(model, folder, seed):
    """The head that a run with three other labels begins with."""
    folder.mkdir()
    rows = [f"{text},{('x', 'y', 'z')[number % 3]}" for number, (text, _) in enumerate(ft.sentences(60))]
    (folder / "data.csv").write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    ft.run_here(
        train_file=folder / "data.csv",
        output_dir=folder / "run",
        model_name_or_path=model,
        seeds=[seed],
        max_steps=1,
        evaluations=1,
        warmup_steps=1,
        learning_rate=1e-9,
    )
    return load_file(folder / "run" / "model.safetensors")["score.weight"]


def test_the_task_may_stand_in_the_yaml_file(tmp_path):
    (tmp_path / "run.yaml").write_text("task: rte\n", encoding="utf-8")
    assert finetune.task_of([str(tmp_path / "run.yaml"), "--seeds", "1"]) == "rte"
    assert finetune.task_of([str(tmp_path / "run.yaml"), "--task", "mrpc"]) == "mrpc"


def test_a_search_goes_on_behind_a_trial_that_diverges(files, tmp_path):
    fields = {**files, "search_trials": 2, "search_space": "learning_rate=1e-2,1e30", "max_steps": 8}
    ft.run_here(**fields, output_dir=tmp_path / "run")
    trials = json.loads((tmp_path / "run" / "search" / "trials.json").read_text())
    assert len(trials) == 2 and ft.metrics(tmp_path / "run")["eval_accuracy"] > 0


def test_a_model_without_the_weights_of_its_body_is_refused_and_new_weights_are_named(files, tmp_path, capsys):
    tokenizer = for_role(train_tokenizer(["a b c"], "wordpiece", 300), "encoder")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=300, max_position_embeddings=64, **shape), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    common = {**files, "output_dir": tmp_path / "run", "model_name_or_path": tmp_path / "bert", "plan": "true"}
    ft.run_here(**common)
    assert "bert.pooler.dense.weight" in capsys.readouterr().out
    save_file({"other": torch.zeros(2)}, tmp_path / "bert" / "model.safetensors", metadata={"format": "pt"})
    assert "has no weights for bert.embeddings" in ft.run_error(**common)
