"""What a run leaves behind, and when it is refused: nothing is overwritten, and nothing is done by halves."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
import torch
from helpers import runs
from helpers.cards import head_of, scores_of
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare
from weft.recipes.generation.generate_text import start_ids
from weft.recipes.training.run_folder import RunState, last_checkpoint, open_run, start_run

FIELDS = {"max_steps": 10, "save_steps": 5, "eval_steps": 5, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    runs.run_here(data=corpus, output_dir=folder, sample_prompt="The cat", **FIELDS)
    return folder


def continued(folder) -> dict:
    """Fields that train a finished run's model further: its shape is not given again."""
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    return {**dict.fromkeys(shape), **FIELDS, "model_name_or_path": folder}


def test_a_finished_run_loads_with_everything_it_needs(finished):
    config = AutoConfig.from_pretrained(finished)
    tokenizer = AutoTokenizer.from_pretrained(finished)
    assert config.use_cache and config.is_causal
    assert config.max_position_embeddings == tokenizer.model_max_length == 32
    assert config.vocab_size == 64 >= len(tokenizer)  # a multiple of 64, which multiplies faster
    assert (config.bos_token_id, config.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert GenerationConfig.from_pretrained(finished).eos_token_id in (tokenizer.eos_token_id, [tokenizer.eos_token_id])
    _, info = AutoModelForCausalLM.from_pretrained(finished, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


def test_the_run_and_every_checkpoint_load_in_a_process_without_weft(finished):
    folders = [finished, finished / "checkpoint-5", finished / "checkpoint-10"]
    done = subprocess.run(
        [sys.executable, "-c", runs.LOAD_WITHOUT_WEFT, *map(str, folders)],
        capture_output=True,
        text=True,
        cwd=finished,
        env={**os.environ, "HF_HOME": str(finished.parent / "hf")},
    )
    assert done.returncode == 0, done.stderr
    printed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("LOGITS")]
    tokenizer = AutoTokenizer.from_pretrained(finished)
    with torch.no_grad():
        here = [
            AutoModelForCausalLM.from_pretrained(folder).eval()(**tokenizer("the cat", return_tensors="pt")).logits
            for folder in folders
        ]
    assert printed == [logits.double().sum().item().hex() for logits in here]
    assert printed[0] == printed[2] != printed[1]


def test_metrics_curve_and_card_tell_what_was_done(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["steps"] == 10 and metrics["tokens"] == 2560
    assert metrics["eval_bits_per_byte"] > 0 and metrics["tokens_per_second"] > 0 and metrics["mfu"] > 0
    logged = [entry for entry in runs.history(finished) if "loss" in entry]
    assert [entry["tokens_seen"] for entry in logged] == [256 * step for step in range(1, 11)]
    assert logged[-1]["epoch"] == pytest.approx(metrics["epochs"], abs=1e-3)
    assert matplotlib.image.imread(finished / "curve.png").std() > 0
    card = (finished / "README.md").read_text()
    head = head_of(finished)
    assert (head.library_name, head.pipeline_tag, head.tags) == ("transformers", "text-generation", ["weft"])
    assert scores_of(head) == {("validation", "bits_per_byte")} and head.eval_results[0].dataset_name == "text.txt"
    for said in ("text.txt", "2,560 tokens", "AutoModelForCausalLM.from_pretrained", "learning_rate | 0.01", "The cat"):
        assert said in card
    assert f"{metrics['eval_bits_per_byte']:,.4f}" in card


def test_only_whole_files_of_the_run_are_left(finished):
    names = {path.name for path in finished.iterdir()}
    assert not [name for name in names if "partial" in name or "unfinished" in name]
    assert {"checkpoint-5", "checkpoint-10", "run.json", "metrics.json", "model.safetensors"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]


def test_the_same_command_again_changes_nothing(finished, corpus, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    runs.run_here(data=corpus, output_dir=finished, sample_prompt="The cat", **{**FIELDS, "cpu_threads": 2})
    assert "nothing to train" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}


def test_another_setting_is_refused_and_named(finished, corpus):
    message = runs.run_error(data=corpus, output_dir=finished, **{**FIELDS, "learning_rate": 0.02})
    assert "learning_rate was 0.01, now 0.02" in message
    message = runs.run_error(data=corpus, output_dir=finished, qk_norm="false", **FIELDS)
    assert "qk_norm was None, now False" in message


def test_a_run_of_before_a_field_existed_goes_on_where_the_field_is_at_its_default(finished, corpus, english, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "metrics.json").unlink()
    before = json.loads((folder / "run.json").read_text())
    given = {"data", "processes", *runs.SMALL_MODEL, *FIELDS}
    (folder / "run.json").write_text(json.dumps({name: before[name] for name in given}))
    assert "z_loss was 0.0, now 0.1" in runs.run_error(data=corpus, output_dir=folder, z_loss=0.1, **FIELDS)
    other = {"data": english, "objective": "masked", **FIELDS}
    assert "objective was None, now 'masked'" in runs.run_error(output_dir=folder, **other)
    runs.run_here(data=corpus, output_dir=folder, **FIELDS)
    assert (folder / "metrics.json").is_file()


def test_a_folder_with_other_files_is_refused(corpus, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    message = runs.run_error(data=corpus, output_dir=tmp_path, **FIELDS)
    assert "precious.txt" in message and "--output_dir" in message
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["precious.txt"]


def test_a_process_may_open_a_run_while_another_process_of_it_begins_it(tmp_path, monkeypatch):
    listed = Path.iterdir

    def begun_meanwhile(folder):
        yield from listed(folder)
        monkeypatch.undo()
        start_run(folder, {"seed": 1})
        yield from listed(folder)

    monkeypatch.setattr(Path, "iterdir", begun_meanwhile)
    assert open_run(tmp_path, {"seed": 1}, {}) is RunState.NEW
    assert (tmp_path / "run.json").is_file()


def test_two_processes_cannot_write_into_one_run(corpus, tmp_path):
    folder = tmp_path / "run"
    first = runs.start(data=corpus, output_dir=folder, **{**FIELDS, "max_steps": 100000})
    while not list(folder.glob("checkpoint-*")):
        assert first.poll() is None, first.stdout.read()
    code = (
        "import sys; from weft.recipes.common import files; from pathlib import Path\n"
        "from weft.recipes.common.errors import RecipeError\n"
        "try:\n    files.only_one_process(Path(sys.argv[1]), 'it', patience=0.5).__enter__()\n"
        "except RecipeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder / ".lock")], capture_output=True, text=True)
    os.killpg(first.pid, 9)
    first.communicate()
    assert "is writing it: wait until it ends" in done.stdout


def test_plan_prints_what_would_be_done_and_does_nothing(corpus, tmp_path, capsys):
    runs.run_here(data=corpus, output_dir=tmp_path / "run", plan="true", per_device_train_batch_size=2, **FIELDS)
    printed = capsys.readouterr().out
    for said in (
        "20,930 parameters",
        "10 steps, 2,560 tokens",
        "1 processes x 4 micro-batches x 2 rows",
        "sdpa",
        "float32",
    ):
        assert said in printed
    assert not (tmp_path / "run" / "run.json").exists()


def test_raw_text_is_prepared_inside_the_run_and_used_again(tmp_path, capsys):
    text = runs.write_text(tmp_path / "text.txt")
    fields = {"train_files": [text], "tokenizer_type": "char", "validation_fraction": 0.1, "plan": "true"}
    runs.run_here(output_dir=tmp_path / "run", **fields, **FIELDS)
    written = (tmp_path / "run" / "data" / "tokens.bin").stat().st_mtime_ns
    runs.run_here(output_dir=tmp_path / "run", **fields, **FIELDS)
    assert (tmp_path / "run" / "data" / "tokens.bin").stat().st_mtime_ns == written


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(corpus, tmp_path, monkeypatch):
    from weft.recipes.pretraining.trainer import PretrainingTrainer

    compute_loss = PretrainingTrainer.compute_loss

    def spoilt(self, model, inputs, *args, **kwargs):
        loss = compute_loss(self, model, inputs, *args, **kwargs)
        return loss * float("nan") if self.state.global_step == 7 else loss

    monkeypatch.setattr(PretrainingTrainer, "compute_loss", spoilt)
    message = runs.run_error(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert "not finite at step 8" in message
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-5")
    assert all(tensor.isfinite().all() for tensor in runs.weights(tmp_path / "run" / "checkpoint-5").values())
    monkeypatch.undo()
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_training_goes_on_from_an_existing_checkpoint(finished, corpus, tmp_path):
    runs.run_here(data=corpus, output_dir=tmp_path / "more", **continued(finished))
    assert runs.losses(tmp_path / "more")[0] < runs.losses(finished)[0] - 0.3
    fields = {**continued(finished), "hidden_size": 64}
    message = runs.run_error(data=corpus, output_dir=tmp_path / "other", **fields)
    assert "hidden_size cannot be changed" in message


def test_only_matrices_decay_and_no_embeddings(corpus, tmp_path):
    """With a learning rate so small that only a huge decay moves anything."""
    starts, ends = {}, {}
    fields = {"weight_decay": 1e5, "learning_rate": 1e-7, "warmup_steps": 0, "lr_scheduler_type": "constant"}
    for steps, found in ((1, starts), (3, ends)):
        folder = tmp_path / f"run-{steps}"
        runs.run_here(data=corpus, output_dir=folder, **{**FIELDS, **fields, "max_steps": steps, "save_steps": steps})
        found.update(runs.weights(folder))
    for name, value in starts.items():
        shrunk = (ends[name].norm() / value.norm()).item()
        is_spared = any(word in name for word in ("norm", "embed", "value_mix"))
        expected = 1.0 if is_spared else (1 - 1e-2) ** 2
        assert shrunk == pytest.approx(expected, abs=1e-3), name


def test_a_command_may_be_corrected_until_something_is_trained(corpus, tmp_path):
    message = runs.run_error(data=corpus, output_dir=tmp_path / "run", report_to="no_such_tool", **FIELDS)
    assert message.startswith("the run cannot be set up")
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **{**FIELDS, "learning_rate": 0.02})
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_resumed_run_saves_and_logs_as_often_as_it_is_asked_to_now(corpus, tmp_path, monkeypatch):
    from weft.recipes.pretraining.trainer import PretrainingTrainer

    training_step = PretrainingTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(PretrainingTrainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    monkeypatch.undo()
    often = {**FIELDS, "save_steps": 2, "logging_steps": 3, "save_total_limit": 10}
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **often)
    saved = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert saved == {"checkpoint-5", "checkpoint-6", "checkpoint-8", "checkpoint-10"}
    logged = [entry["step"] for entry in runs.history(tmp_path / "run") if "loss" in entry]
    assert logged == [1, 2, 3, 4, 5, 6, 9, 10]


def test_old_checkpoints_are_dropped_and_the_last_one_never(corpus, tmp_path):
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **{**FIELDS, "save_steps": 2, "save_total_limit": 1})
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-10"]
    message = runs.run_error(data=corpus, output_dir=tmp_path / "other", save_total_limit=-1)
    assert "save_total_limit is -1: give at least 1" in message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vocab_size": 300}, "vocab_size cannot be given together with data"),
        ({"decay_steps": 5, "lr_scheduler_type": "cosine"}, "decay_steps has no effect"),
        ({"hub_revisions": "true"}, "hub_revisions has no effect without push_to_hub"),
        ({"config_name": "x", "preset": "mini"}, "preset cannot be given together with config_name"),
        ({"max_position_embeddings": 16}, "sequence_length=32 is longer than the model's max_position_embeddings=16"),
        ({"weight_decay": -1}, "weight_decay is -1.0"),
        ({"adam_beta2": 1.5}, "adam_beta2 is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"save_only_model": "true"}, "save_only_model cannot be given"),
        ({"fp16": "true"}, "fp16 cannot be given"),
    ],
    ids=str,
)
def test_fields_that_contradict_or_do_nothing_are_refused(corpus, tmp_path, fields, said):
    assert said in runs.run_error(data=corpus, output_dir=tmp_path / "run", **fields)


def test_an_existing_model_is_checked_against_the_corpus(finished, tmp_path):
    text = runs.write_text(tmp_path / "text.txt")
    other = DataArguments(train_files=[str(text)], vocab_size=300, validation_fraction=0.1)
    prepare(other, tmp_path / "corpus", quiet=True)
    message = runs.run_error(data=tmp_path / "corpus", output_dir=tmp_path / "run", **continued(finished))
    assert "different tokenizers" in message and f"--tokenizer_name {finished}" in message


def test_what_is_changed_on_an_existing_model_is_checked_too(finished, corpus, tmp_path):
    for change in ({"hidden_dropout": 1.5}, {"max_position_embeddings": 16}):
        message = runs.run_error(data=corpus, output_dir=tmp_path / "run", **continued(finished), **change)
        assert next(iter(change)) in message


def test_text_without_start_tokens_makes_a_model_that_generates_without_them(tmp_path):
    text = runs.write_text(tmp_path / "text.txt")
    fields = {"train_files": [text], "tokenizer_type": "char", "document_tokens": "none", "validation_fraction": 0.1}
    runs.run_here(output_dir=tmp_path / "run", **fields, **FIELDS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    config = AutoConfig.from_pretrained(tmp_path / "run")
    assert (config.bos_token_id, config.eos_token_id, tokenizer.bos_token_id) == (None, None, None)
    assert tokenizer("the").input_ids == tokenizer("the", add_special_tokens=False).input_ids
    assert start_ids(tokenizer, "the") == tokenizer("the").input_ids
    assert len(start_ids(tokenizer, "")) == 1
