"""Places that cannot be written and disks without room: a sentence before the work, and whole checkpoints after it."""

import errno
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from helpers import finetuning as ft
from helpers import runs

from weft.recipes import convert, evaluate_lm, generate, prepare_data, train_tokenizer
from weft.recipes.common.errors import RecipeError, refusing_unwritable, run_command, unwritable
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.training import disk_space
from weft.recipes.training.run_folder import last_checkpoint

FIELDS = {"max_steps": 12, "save_steps": 4, "eval_steps": 12}
NO_SPACE = OSError(errno.ENOSPC, "No space left on device", "optimizer.pt")
ERRORS = [NO_SPACE, RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    runs.run_here(data=corpus, output_dir=folder, **FIELDS)
    return folder


@pytest.mark.parametrize("error", ERRORS, ids=["of the system", "of PyTorch"])
def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_one_before_and_the_run_goes_on_later(
    corpus, whole, tmp_path, monkeypatch, error
):
    save = torch.save

    def full(state, path, *args, **kwargs):
        save(state, path, *args, **kwargs)
        if "checkpoint-8" in str(path):
            raise error

    monkeypatch.setattr(torch, "save", full)
    message = runs.run_error(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert "the disk is full" in message and "checkpoint-4, the last whole checkpoint" in message
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-4")
    assert not list((tmp_path / "run").glob(".unfinished-*"))  # which would only take space
    monkeypatch.undo()
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    found, expected = runs.weights(tmp_path / "run"), runs.weights(whole)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_disk_that_is_full_at_the_end_leaves_no_half_of_a_finished_folder(corpus, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise NO_SPACE

    monkeypatch.setattr("weft.recipes.pretraining.report.plot_curve", full)
    assert "the disk is full" in runs.run_error(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    there = {path.name for path in (tmp_path / "run").iterdir()}
    assert not there & {"model.safetensors", ".finished.partial", "metrics.json"}
    monkeypatch.undo()
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert (tmp_path / "run" / "metrics.json").is_file()


def with_free(monkeypatch, number: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage(10**12, 0, number))


@pytest.mark.parametrize("fields", [{}, {"optimizer": "adamw"}, {"average_decay": 0.9}, {"optim": "sgd"}], ids=str)
def test_what_is_asked_of_the_disk_is_about_what_a_run_writes(corpus, tmp_path, monkeypatch, fields):
    fields = {"data": corpus, "output_dir": tmp_path / "run", **FIELDS, "save_total_limit": 5, **fields}
    asked = []
    monkeypatch.setattr(PretrainingTrainer, "state_bytes", noted(PretrainingTrainer.state_bytes, asked))
    runs.run_here(**fields)
    written = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoint-12").iterdir())
    code = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoint-12").glob("*.py"))
    weights = (tmp_path / "run" / "model.safetensors").stat().st_size
    assert asked[0] + weights < written
    if "optim" not in fields:
        assert asked[0] + weights > 0.6 * (written - code)


def noted(method, found):
    def call(trainer):
        found.append(method(trainer))
        return found[-1]

    return call


@pytest.mark.parametrize("limit", [1, 2])
def test_room_for_the_checkpoints_is_looked_for_before_the_first_step(corpus, tmp_path, monkeypatch, limit):
    one = 200_000  # bytes of a checkpoint, roughly
    fields = {"data": corpus, "output_dir": tmp_path / "run", "save_total_limit": limit, **FIELDS}
    with_free(monkeypatch, one)
    message = runs.run_error(**fields)
    assert "0.2 MB free" in message and f"{limit + 1} checkpoints of" in message and "save_total_limit" in message
    assert last_checkpoint(tmp_path / "run") is None
    assert ": 1 checkpoint of" in runs.run_error(**fields | {"save_steps": 12, "output_dir": tmp_path / "other"})
    with_free(monkeypatch, 30 * one)
    runs.run_here(**fields)


def test_checkpoints_that_are_there_count_as_room(corpus, whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "run")
    for name in ("metrics.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    with_free(monkeypatch, 2_000_000)
    message = runs.run_error(data=corpus, output_dir=tmp_path / "new", **FIELDS)
    assert "3 checkpoints" in message
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)


def test_fine_tuning_looks_for_room_too_and_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch):
    files = ft.write_files(tmp_path)
    with_free(monkeypatch, 1000)
    assert "MB free" in ft.run_error(**files, output_dir=tmp_path / "run")
    monkeypatch.undo()

    def full(*args, **kwargs):
        raise NO_SPACE

    monkeypatch.setattr("weft.recipes.finetuning.best_weights.save_file", full)
    message = ft.run_error(**files, output_dir=tmp_path / "run")
    assert "the disk is full" in message and "checkpoint-6, the last whole" in message
    monkeypatch.undo()
    ft.run_here(**files, output_dir=tmp_path / "run")
    assert ft.metrics(tmp_path / "run")["steps"] == 12


def read_only(monkeypatch) -> None:
    def refused(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(kwargs.get("dir")))

    monkeypatch.setattr("tempfile.TemporaryFile", refused)


def commands(corpus: Path, model: Path, text: Path, output: Path) -> dict:
    """Every command that writes, and its words."""
    trained = ["--train_files", str(text), "--vocab_size", "300", "--output_dir", str(output)]
    files = ft.write_files(text.parent)
    scored = ["--model", str(model), "--files", str(text), "--output_file", str(output / "a.json")]
    prompts = ["--model", str(model), "--prompt_file", str(text), "--output_file", str(output / "a.jsonl")]
    from weft.recipes import finetune_classification, pretrain_clm

    return {
        "prepare_data": (prepare_data.main, trained),
        "train_tokenizer": (train_tokenizer.main, trained),
        "pretrain_clm": (pretrain_clm.main, runs.command(data=corpus, output_dir=output)),
        "finetune": (finetune_classification.main, ft.command(**files, output_dir=output)),
        "convert": (convert.main, ["export", str(model), "qwen3", str(output / "a")]),
        "evaluate_lm": (evaluate_lm.main, scored),
        "generate": (generate.main, prompts),
    }


NAMES = ["prepare_data", "train_tokenizer", "pretrain_clm", "finetune", "convert", "evaluate_lm", "generate"]


@pytest.mark.parametrize("why", ["read-only", "a file in the way"])
@pytest.mark.parametrize("name", NAMES)
def test_every_command_says_at_once_that_its_output_cannot_be_written(
    corpus, whole, tmp_path, monkeypatch, capsys, name, why
):
    (tmp_path / "file").write_text("kept")
    output = tmp_path / "place" if why == "read-only" else tmp_path / "file" / "place"
    main, words = commands(corpus, whole, runs.write_text(tmp_path / "text.txt"), output)[name]
    if why == "read-only":
        read_only(monkeypatch)
    monkeypatch.setattr("sys.argv", [name, *words])
    with pytest.raises(SystemExit) as end:
        run_command(main)
    said = capsys.readouterr()
    assert end.value.code == 2
    assert ("read-only" if why == "read-only" else "a file stands where a folder is needed") in said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and "place" in said.err
    assert not output.exists() and (tmp_path / "file").read_text() == "kept"


def test_what_says_something_else_is_no_refusal():
    assert unwritable(ValueError("no such thing")) is None
    assert unwritable(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    said = unwritable(Exception("No space left on device (os error 28)"), "there")
    assert said.startswith("there cannot be written, because the disk is full")
    with pytest.raises(RecipeError, match="quota"), refusing_unwritable():
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "x")
