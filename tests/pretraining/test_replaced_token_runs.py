"""Runs of replaced-token detection learn, go on exactly, and make a folder that says what was replaced and is tuned."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from helpers import finetuning as ft
from helpers import runs
from helpers.cards import head_of, scores_of
from helpers.elsewhere import succeed
from helpers.launched import as_stopped, run_together
from helpers.replaced import SHARING
from safetensors.torch import load_file
from transformers import AutoConfig

from weft import WeftForTokenClassification
from weft.recipes.training import hub
from weft.recipes.training.checkpoint_folders import TRAINING_ONLY
from weft.recipes.training.weight_average import FILE as AVERAGE

FIELDS = {"objective": "replaced-tokens", "max_steps": 9, "save_steps": 3, "eval_steps": 3, "learning_rate": 0.01}
PARTS = ("loss_generator", "loss_discriminator")

USE_ELSEWHERE = """
import json
import transformers
from transformers import AutoTokenizer, pipeline

folder, found = {folder!r}, {{"classes": {{}}}}
heads = ("TokenClassification", "SequenceClassification", "MaskedLM")
for name in ("AutoModel", *(f"AutoModelFor{{head}}" for head in heads)):
    model, info = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    found["classes"][name] = [sorted(info["missing_keys"]), sorted(info["unexpected_keys"])]
    found[name] = type(model).__name__
tag = pipeline("token-classification", model=folder, trust_remote_code=True)
found["tags"] = [[tag["word"], tag["entity"], float(tag["score"])] for tag in tag("The cat sees the dog.")]
found["tokens"] = AutoTokenizer.from_pretrained(folder)("The cat sees the dog.").tokens()
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def finished(english, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "replaced"
    runs.run_here(data=english, output_dir=folder, **FIELDS, average_decay=0.9)
    return folder


def logged(folder, name):
    return [entry[name] for entry in runs.history(folder) if "loss" in entry]


def test_both_models_learn_and_the_loss_weighs_them(finished):
    generator, discriminator = (logged(finished, name) for name in PARTS)
    assert generator[-1] < generator[0] - 0.3 and discriminator[-1] < discriminator[0] - 0.1
    for loss, *parts in zip(logged(finished, "loss"), generator, discriminator):
        assert loss == pytest.approx(parts[0] + 50 * parts[1], rel=1e-4)


def test_metrics_curve_and_card_tell_of_both_and_show_what_was_called_replaced(finished):
    metrics, card = json.loads((finished / "metrics.json").read_text()), (finished / "README.md").read_text()
    weighed = metrics["eval_generator_loss"] + 50 * metrics["eval_discriminator_loss"]
    assert metrics["eval_loss"] == pytest.approx(weighed)
    for name in ("detection_accuracy", "replaced_share", "replaced_recall", "replaced_f1"):
        assert 0 <= metrics[f"eval_{name}"] <= 1
    assert metrics["eval_replaced_share"] > 0.05
    config = AutoConfig.from_pretrained(finished)
    published = sum(weight.numel() for weight in runs.weights(finished).values())
    assert metrics["parameters"] == published and config.num_hidden_layers == 2
    head = head_of(finished)
    assert (head.library_name, head.pipeline_tag) == ("transformers", "token-classification")
    assert {("validation", "mcfadden_r2"), ("validation", "replaced_f1")} <= scores_of(head)
    said = ['AutoModelForTokenClassification.from_pretrained("', "| embedding_sharing | gradient_disentangled |"]
    said += ["| generator_depth | 0.5 |", "| masking | token |", "replaced f1", "generator loss", "## Samples"]
    for words in said:
        assert words in card, words
    text, replaced = (re.search(rf"^{name}: (.+)$", card, re.MULTILINE)[1] for name in ("text", "replaced"))
    assert "[[" not in text and "[[" in replaced and re.search(r"^called replaced: .+$", card, re.MULTILINE)
    kept = re.split(r"\[\[.*?\]\]", replaced)
    assert all(part in text for part in (kept[0], kept[-1]))  # all else is as it was


def test_the_folder_loads_in_every_role_and_says_what_was_replaced_without_the_package(finished, tmp_path):
    found = json.loads(succeed(USE_ELSEWHERE.format(folder=str(finished)), tmp_path).split("FOUND ", 1)[1])
    classes = found["classes"]
    for name in ("AutoModel", "AutoModelForTokenClassification", "AutoModelForMaskedLM"):
        assert classes[name] == [[], []], name
    assert classes["AutoModelForSequenceClassification"] == [["score.bias", "score.weight"], []]
    assert found["AutoModelForTokenClassification"] == "WeftForTokenClassification"
    assert {entity for _, entity, _ in found["tags"]} <= {"ORIGINAL", "REPLACED"}
    assert [word for word, *_ in found["tags"]] == found["tokens"][1:-1]  # without start and end
    assert all(0.5 <= score <= 1 for *_, score in found["tags"])


def test_fine_tuning_goes_on_from_it(finished, tmp_path):
    files = ft.write_files(tmp_path / "data")
    ft.run_here(**files, model_name_or_path=finished, max_steps=3, output_dir=tmp_path / "run")
    assert ft.metrics(tmp_path / "run")["eval_loss"] > 0
    config = AutoConfig.from_pretrained(tmp_path / "run")
    assert sorted(config.label2id) == ["bad", "good"]
    before, after = runs.weights(finished), runs.weights(tmp_path / "run")
    assert "score.weight" in after and "classifier.weight" not in after
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"):
        assert 0 < (after[name] - before[name]).norm() < 0.5 * before[name].norm(), name


def test_tagging_and_masked_training_go_on_from_it_too(english, finished, tmp_path):
    main, files = ft.MAINS["finetune_tokens"], ft.files_of("finetune_tokens", tmp_path / "data", 40, 20)
    ft.run_here(main, **files, model_name_or_path=finished, max_steps=2, evaluations=1, output_dir=tmp_path / "tags")
    assert "REPLACED" not in AutoConfig.from_pretrained(tmp_path / "tags").label2id
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    fields = {**dict.fromkeys(shape), "max_steps": 2, "save_steps": 2, "eval_steps": 2, "objective": "masked"}
    runs.run_here(data=english, output_dir=tmp_path / "masked", model_name_or_path=finished, **fields)


def test_a_checkpoint_is_a_folder_as_the_finished_one_with_a_file_beside_that_is_not_published(english, tmp_path):
    folder, fields = tmp_path / "run", {**FIELDS, "max_steps": 3}
    runs.run_here(data=english, output_dir=folder, **fields)
    last = folder / "checkpoint-3"
    assert all(torch.equal(value, runs.weights(last)[name]) for name, value in runs.weights(folder).items())
    _, info = WeftForTokenClassification.from_pretrained(last, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (last / TRAINING_ONLY).is_file() and not (folder / TRAINING_ONLY).exists()
    sent = {}
    hub._upload(SimpleNamespace(upload_folder=lambda **fields: sent.update(fields)), last, "me/model", None, "")
    assert "model.safetensors" in sent["allow_patterns"] and TRAINING_ONLY not in sent["allow_patterns"]


@pytest.mark.parametrize("sharing", SHARING)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(english, tmp_path, sharing):
    """With dropout, averaged weights and the generator's, and whatever was published meanwhile."""
    fields = {**FIELDS, "embedding_sharing": sharing, "hidden_dropout": 0.1, "average_decay": 0.9, "max_steps": 6}
    runs.run_here(data=english, output_dir=tmp_path / "whole", **fields)
    stopped = as_stopped(tmp_path / "whole", tmp_path / "stopped", 3)
    runs.run_here(data=english, output_dir=stopped, **fields)
    for place in ("model.safetensors", *(f"checkpoint-6/{name}" for name in (TRAINING_ONLY, AVERAGE))):
        found, expected = (load_file(path / place) for path in (stopped, tmp_path / "whole"))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items()), place
    generator = {name for name in expected if name.startswith("generator.")}
    assert len(generator) > 10 and any(name.startswith("discriminator.") for name in expected)
    optimizers = [
        torch.load(path / "checkpoint-6" / "optimizer.pt", weights_only=True) for path in (stopped, tmp_path / "whole")
    ]
    assert len(optimizers[0]["state"]) == len(expected)
    for place, state in optimizers[1]["state"].items():
        assert all(torch.equal(optimizers[0]["state"][place][name], value) for name, value in state.items())


@pytest.mark.parametrize("changes", [{"per_device_train_batch_size": 1}, {"gradient_checkpointing": "true"}], ids=str)
def test_how_a_step_is_computed_changes_nothing(english, finished, tmp_path, changes):
    runs.run_here(data=english, output_dir=tmp_path / "run", **FIELDS, average_decay=0.9, **changes)
    assert_equal_runs(tmp_path / "run", finished)


def test_two_processes_follow_the_curve_of_one(english, finished, tmp_path, capfd):
    capfd.readouterr()
    fields = {"data": english, **FIELDS, "average_decay": 0.9, "per_device_train_batch_size": 2}
    run_together("cpu_2.yaml", runs.run_here, output_dir=tmp_path / "run", **fields)
    assert "2 processes x 2 micro-batches x 2 rows" in capfd.readouterr().out
    assert_equal_runs(tmp_path / "run", finished)


def assert_equal_runs(folder, reference):
    for name in ("loss", *PARTS):
        assert logged(folder, name) == pytest.approx(logged(reference, name), rel=2e-5), name
    runs.assert_equal_ends(folder, reference)


def test_the_plan_tells_of_the_generator(english, tmp_path, capsys):
    fields = {**FIELDS, "generator_depth": 0.25, "embedding_sharing": "shared", "mask_rate": 0.15}
    runs.run_here(data=english, output_dir=tmp_path / "run", plan="true", **fields)
    said = ["masking     token, 15% of the tokens", "generator   0.25 times the layers, embeddings shared"]
    said += ["loss        the generator's and 50 times the discriminator's, which is the model"]
    runs.assert_only_planned(tmp_path / "run", capsys.readouterr().out, said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"generator_depth": 0}, "generator_depth is 0.0: give a number above 0 and at most 1"),
        ({"generator_depth": 2}, "generator_depth is 2.0: give a number above 0 and at most 1"),
        (
            {"embedding_sharing": "share"},
            "embedding_sharing is 'share' (did you mean shared?): choose one of gradient_",
        ),
        ({"discriminator_weight": 0}, "discriminator_weight is 0.0: give a number above 0"),
        ({"mask_rate": 1.5}, "mask_rate is 1.5"),
        ({"objective": "masked", "generator_depth": 0.5}, "has no effect without --objective replaced-tokens"),
        ({"causal_share": 0.5}, "causal_share has no effect without --objective hybrid"),
        ({"validation_rates": 4}, "validation_rates has no effect without --objective diffusion"),
        ({"teacher": "me/model"}, "this objective has no teacher: leave teacher out"),
    ],
    ids=str,
)
def test_fields_that_make_no_sense_are_refused(english, tmp_path, fields, said):
    assert said in runs.run_error(data=english, output_dir=tmp_path / "run", **{**FIELDS, **fields})
    assert not (tmp_path / "run").exists()


def test_an_existing_model_and_sharded_weights_are_refused(english, finished, tmp_path, monkeypatch):
    fields = {"data": english, "output_dir": tmp_path / "run", **FIELDS}
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    message = runs.run_error(**fields, **dict.fromkeys(shape), model_name_or_path=finished)
    assert message.startswith("model_name_or_path cannot be given with objective replaced-tokens")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert "trains two models as one, which is not sharded: launch with ddp.yaml" in runs.run_error(**fields)
    assert not (tmp_path / "run").exists()


def test_a_stream_and_files_of_validation_are_taken(tmp_path):
    text = runs.write_text(tmp_path / "text.txt")
    held_out = [
        runs.write_text(tmp_path / f"{name}.txt", 20, seed=seed) for seed, name in enumerate(("news", "law"), 1)
    ]
    stream = {"train_files": [text], "validation_files": held_out, "tokenizer_type": "char", "stream": "true"}
    runs.run_here(output_dir=tmp_path / "run", block_size=4000, **stream, **{**FIELDS, "max_steps": 30})
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {"eval_replaced_f1_on_news", "eval_loss_on_law", "eval_generator_loss_on_law"} <= metrics.keys()


def test_a_text_of_ones_own_is_judged_in_the_card(english, tmp_path):
    fields = {**FIELDS, "max_steps": 1, "sample_prompt": "The cat sees a dog and a bird."}
    runs.run_here(data=english, output_dir=tmp_path / "run", **fields)
    samples = (tmp_path / "run" / "README.md").read_text().split("## Samples")[1]
    assert "text: The cat sees a dog and a bird." in samples and "\nreplaced: " not in samples
    called = re.search(r"^called replaced: (.+)$", samples, re.MULTILINE)[1]
    assert re.sub(r"\[\[|\]\]", "", called) == "The cat sees a dog and a bird."
