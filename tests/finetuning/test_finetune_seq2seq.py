"""The command learns to write a text for a text, and its folder writes the same where the package is not."""

import csv
import json

import pytest
import torch
from helpers import finetuning as ft
from helpers import sequences as seq
from helpers.cards import head_of, scores_of, usage_of
from helpers.elsewhere import succeed
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, T5ForConditionalGeneration

from weft.recipes import finetune

LEARNT = {"max_steps": 250}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return seq.write_files(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """A run that learns its little language, with a test split of two references each."""
    root = tmp_path_factory.mktemp("runs")
    tests = seq.write_lines(root, "test", seq.pairs(20, 3))
    seq.run(**files, **tests, **LEARNT, output_dir=root / "run")
    return root / "run"


def rows(path):
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_small_language_is_learnt_from_nothing(finished):
    found = ft.metrics(finished)
    assert found["eval_bleu"] > 80 and found["eval_chrf"] > 90 and found["eval_rougeL"] > 0.95
    assert found["test_chrf"] > 90 and found["eval_loss"] < 0.3


def test_the_folder_holds_what_was_written_and_how(finished):
    written = rows(finished / "predictions.csv")
    assert len(written) == 30 and list(written[0]) == ["example", "source", "target", "output", "chrf"]
    assert sum(row["target"] == row["output"] for row in written) > 20
    lines = (finished / "predictions.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [row["output"] for row in written]
    assert len(rows(finished / "test" / "predictions.csv")) == 20
    generation = json.loads((finished / "generation_config.json").read_text())
    longest = max(len(text.split()) for _, text in seq.pairs(400, 1))
    assert generation["num_beams"] == 1 and generation["max_new_tokens"] >= longest + 1
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert "tok:13a|smooth:exp" in card and "| worst |" in card and "| best |" in card


def test_elsewhere_the_folder_writes_the_same_as_the_finished_run(files, finished, tmp_path, capsys):
    """The card's own lines, in a process that has transformers only; lines and a column say the same."""
    source = seq.pairs(400, 1)[0][0]
    lines = tmp_path / "new.txt"
    lines.write_text(f"{source}\nbird house\n", encoding="utf-8")
    table = seq.write_rows(tmp_path / "new.jsonl", [{"source": source}, {"source": "bird house"}])
    written = []
    tests = {f"test_{side}": finished.parent / f"test.{side}" for side in ("source", "target")}
    for path in (lines, table):
        seq.run(**files, **tests, **LEARNT, output_dir=finished, predict_file=path)
        assert "is finished: nothing to train" in capsys.readouterr().out
        written.append([row["output"] for row in rows(finished / "predicted.csv")])
        assert (finished / "predicted.txt").read_text(encoding="utf-8").splitlines() == written[-1]
    assert written[0] == written[1]
    usage = usage_of(finished)
    assert json.dumps(source) in usage
    assert succeed(usage, tmp_path).splitlines() == written[0][:1]


def test_a_killed_run_continues_bit_for_bit(files, tmp_path):
    fields = seq.small(**files, max_steps=24, evaluations=8, hidden_dropout=0.1)
    seq.run(**fields, output_dir=tmp_path / "whole")
    process = ft.start("finetune_seq2seq", **fields, output_dir=tmp_path / "killed")
    ft.kill_once_saved(process, tmp_path / "killed")
    seq.run(**fields, output_dir=tmp_path / "killed")
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert ft.seed_result(tmp_path / "whole")["metrics"] == ft.seed_result(tmp_path / "killed")["metrics"]


@pytest.mark.parametrize("batching", ["grouped", "padded"])
def test_how_pairs_are_laid_out_changes_little(batching, files, finished, tmp_path):
    """Padded batches hold the same pairs as packed ones, and train the same model but for rounding."""
    fields = {**files, "max_steps": 6, "evaluations": 1, "learning_rate": 1e-3}
    for name in ("packed", batching):
        seq.run(**fields, output_dir=tmp_path / name, batching=name)
    packed, other = (ft.losses(tmp_path / name) for name in ("packed", batching))
    assert other == pytest.approx(packed, rel=1e-3 if batching == "padded" else 0.2)
    assert ft.metrics(tmp_path / batching)["eval_loss"] == pytest.approx(
        ft.metrics(tmp_path / "packed")["eval_loss"], rel=0.05
    )


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_stock_models_go_through_the_same_command(family, files, tmp_path):
    """With weights of their own, a prefix and beams; and then with adapters only."""
    stock = seq.stock_folder(family, tmp_path / "stock")
    fields = {**files, "model_name_or_path": stock, "max_steps": 8, "evaluations": 1, "num_beams": 2}
    seq.run(**fields, output_dir=tmp_path / "run", source_prefix="say: ", metric="chrf")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    assert model.config.model_type == family and model.generation_config.num_beams == 2
    before = AutoModelForSeq2SeqLM.from_pretrained(stock).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert '"say: ' in usage_of(tmp_path / "run")
    seq.run(**fields, output_dir=tmp_path / "adapters", lora_rank=2)
    after = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "adapters").state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed and not any("shared" in name or "embed" in name or "lm_head" in name for name in changed)


def test_the_shape_of_a_stock_model_gets_the_ids_of_a_new_tokenizer(files, tmp_path):
    """T5's end token is 1 and its decoder begins with padding; here the end token is 2."""
    seq.stock_folder("t5", tmp_path / "stock")
    config = json.loads((tmp_path / "stock" / "config.json").read_text())
    (tmp_path / "stock" / "config.json").write_text(json.dumps({**config, "eos_token_id": 1}))
    fields = {"config_name": tmp_path / "stock", "max_steps": 2, "evaluations": 1}
    seq.run(**files, **fields, output_dir=tmp_path / "run")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    assert isinstance(model, T5ForConditionalGeneration)
    for config in (model.config, model.generation_config):
        assert (config.eos_token_id, config.decoder_start_token_id, config.pad_token_id) == (2, 0, 0)


def test_a_finished_model_can_be_trained_further(files, finished, tmp_path):
    seq.run(**files, model_name_or_path=finished, output_dir=tmp_path / "more", max_steps=1, learning_rate=1e-6)
    assert ft.metrics(tmp_path / "more")["eval_chrf"] > 85


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"freeze_embeddings": "true"}, ("model.encoder.embed_tokens.",)),
        ({"freeze_layers": 1}, ("model.encoder.embed_tokens.", "model.encoder.layers.0.", "model.decoder.layers.0.")),
        ({"lora_rank": 2}, ("model.encoder.embed_tokens.", "model.encoder.norm.", "model.decoder.norm.")),
    ],
)
def test_what_is_frozen_keeps_its_weights_and_the_rest_does_not(fields, kept, files, finished, tmp_path):
    fields = {**files, **fields, "model_name_or_path": finished, "max_steps": 3, "evaluations": 1}
    seq.run(**fields, output_dir=tmp_path / "run")
    before, after = (load_file(folder / "model.safetensors") for folder in (finished, tmp_path / "run"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed
    assert not {name for name in changed if name.startswith(kept)}


def test_several_references_are_all_learnt_and_all_count(tmp_path, capsys):
    examples = [{"source": source, "target": [target, f"das ist {target}"]} for source, target in seq.pairs(60, 4)]
    path = seq.write_rows(tmp_path / "two.jsonl", examples)
    seq.run(train_file=path, validation_file=path, output_dir=tmp_path / "run", max_steps=3, evaluations=1)
    printed = capsys.readouterr().out
    assert "examples    train 60, validation 60" in printed and "; 120 references" in printed
    first = rows(tmp_path / "run" / "predictions.csv")[0]
    assert [first["target"], first["target_2"]] == examples[0]["target"]


def test_what_is_cut_is_said_and_scores_know_the_whole_text(files, tmp_path, capsys):
    """Characters are tokens here: a source has two more around it, and a target one behind it."""
    fields = {**files, "max_source_length": 17, "max_target_length": 16, "max_steps": 1, "evaluations": 1}
    seq.run(**fields, tokenizer_type="char", output_dir=tmp_path / "run")
    printed = capsys.readouterr().out
    for side, name in enumerate(("source", "target")):
        cut = [sum(len(pair[side]) > 15 for pair in seq.pairs(*split)) for split in ((400, 1), (30, 2))]
        assert all(cut) and f"the end of {name}s: {cut[0]} in train, {cut[1]} in validation" in printed
    assert "at most 17; packed" in printed and "output      at most 16 tokens" in printed
    targets = [row["target"] for row in rows(tmp_path / "run" / "predictions.csv")]
    assert targets == [target for _, target in seq.pairs(30, 2)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"causal": "true"}, "causal is given: the encoder reads in both directions"),
        ({"max_length": 9}, "give max_source_length and max_target_length"),
        ({"train_target": None}, "train_source is given without train_target: give both files"),
        ({"train_source": None, "train_target": None}, "validation_source is given without train_source"),
        ({"task": "multi30k"}, "train_source and task are given: give one source of examples"),
        ({"source_column": "a"}, "source_column is given without train_file or dataset_name"),
        ({"metric": "meteor"}, "choose one of bleu, chrf, rouge1, rouge2, rougeL, loss"),
        ({"num_beams": 0}, "num_beams is 0: give at least 1"),
        ({"label_smoothing_factor": 1.0}, "give at least 0 and below 1"),
        ({"predict_file": "nowhere.txt"}, "nowhere.txt is missing"),
        ({"num_decoder_layers": 0}, "num_decoder_layers"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(fields, words, files, tmp_path):
    message = seq.error(**{**files, "output_dir": tmp_path / "run", **fields})
    assert words in message and "\n" not in message
    assert not (tmp_path / "run" / "run.json").exists()


def test_models_that_do_not_fit_are_refused(files, tmp_path):
    bart = seq.stock_folder("bart", tmp_path / "bart")
    fields = {**files, "output_dir": tmp_path / "run"}
    message = seq.error(**fields, model_name_or_path=bart, max_new_tokens=65)
    assert message == "max_new_tokens is 65, but the model takes 64 tokens at most: give less."
    state = load_file(bart / "model.safetensors")
    del state["model.decoder.layers.0.fc1.weight"]
    save_file(state, bart / "model.safetensors", {"format": "pt"})
    message = seq.error(**fields, model_name_or_path=bart)
    assert "has no weights for model.decoder.layers.0.fc1.weight" in message
    ft.run_here(**ft.write_files(tmp_path / "labels"), output_dir=tmp_path / "classifier", max_steps=1, evaluations=1)
    message = seq.error(**fields, model_name_or_path=tmp_path / "classifier")
    assert "the model is a single stack ('weft' with is_encoder_decoder false)" in message


def test_a_task_is_found_by_its_name(tmp_path):
    folder = tmp_path / "multi30k"
    for split, number in (("train", 40), ("val", 8), ("test_2016_flickr", 6)):
        for path in seq.write_lines(folder, split, seq.pairs(number, number)).values():
            path.rename(path.with_suffix({".source": ".en", ".target": ".de"}[path.suffix]))
    ft.run_here(
        finetune.main,
        **seq.small(task="multi30k", data=folder, output_dir=tmp_path / "run", max_steps=1, evaluations=1),
    )
    assert {"eval_bleu", "test_bleu"} <= ft.metrics(tmp_path / "run").keys()
    head = head_of(tmp_path / "run")
    assert head.pipeline_tag == "translation"
    assert {("validation", "bleu"), ("test", "bleu")} <= scores_of(head)
