"""Runs on a stream: killed anywhere they end with the same weights, and what goes wrong behind them stops them."""

import gzip
import json
import os
import signal
import threading
import time

import pytest
import torch
from helpers import runs

STREAM = {"stream": "true", "block_size": 4000, "tokenizer_type": "char", "save_steps": 10, "eval_steps": 1000}
FIELDS = {**STREAM, "objective": "hybrid", "masking": "word", "max_steps": 120}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three files of different formats, which the runs pass over more than once."""
    folder = tmp_path_factory.mktemp("text")
    paths = [runs.write_text(folder / "a.txt", 40, seed=1), runs.write_text(folder / "b.txt", 50, seed=2)]
    texts = runs.write_text(folder / "c.txt", 30, seed=3).read_text().strip().split("\n\n")
    with gzip.open(folder / "c.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return [*paths, folder / "c.jsonl.gz"]


@pytest.fixture(scope="module")
def never_killed(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    runs.run_here(train_files=files, output_dir=folder, **FIELDS)
    return folder


def wait_until(condition):
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_checkpoint(folder, step):
    return any(int(path.name.split("-")[1]) >= step for path in folder.glob("checkpoint-*"))


def writer_of(folder):
    """The process that prepares the blocks of a run, or None before it has begun to."""
    lock = folder / "stream" / ".lock"
    return int(lock.read_text() or 0) if lock.is_file() else 0


def assert_same_weights(folder, reference):
    found, expected = runs.weights(folder), runs.weights(reference)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def kill_writer(folder, before, step):
    wait_until(lambda: has_checkpoint(folder, step) and writer_of(folder) not in (0, before))
    os.kill(writer_of(folder), signal.SIGKILL)


def test_a_run_and_its_writer_that_are_killed_go_on_to_the_same_weights(files, never_killed, tmp_path):
    folder = tmp_path / "killed"
    process = runs.launch(train_files=files, output_dir=folder, **FIELDS)
    wait_until(lambda: has_checkpoint(folder, 40) or process.poll() is not None)
    first_writer = writer_of(folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()  # returns when the writer has closed its output too: it ended with the run
    blocks = json.loads((folder / "stream" / "ledger.json").read_text())["blocks"]
    assert any(block["start"]["record"] for block in blocks[2:])  # in the middle of a file

    threading.Thread(target=kill_writer, args=(folder, first_writer, 60)).start()
    message = runs.run_error(train_files=files, output_dir=folder, **FIELDS)
    assert "ended with status -9: run the same command again to go on" in message

    runs.run_here(train_files=files, output_dir=folder, **FIELDS)
    assert_same_weights(folder, never_killed)
    assert not (folder / "stream").exists()


def test_two_processes_with_workers_read_the_same_rows(files, never_killed, tmp_path):
    run = runs.launch(2, train_files=files, output_dir=tmp_path / "two", dataloader_num_workers=1, **FIELDS)
    assert "stream of 3 files in blocks of 4,000 bytes" in runs.finish(run)
    found, expected = runs.losses(tmp_path / "two"), runs.losses(never_killed)
    assert len(found) == len(expected) == 120
    assert found[:40] == pytest.approx(expected[:40], rel=1e-4)  # over several blocks; later rounding has grown


def test_a_data_set_streams(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for shard in range(2):
        texts = runs.write_text(tmp_path / "text.txt", 40, seed=shard).read_text().strip().split("\n\n")
        (folder / f"{shard}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    runs.run_here(output_dir=tmp_path / "run", dataset_name=folder, max_steps=60, **STREAM)
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_broken_record_of_a_later_file_stops_the_run_where_it_is_needed(tmp_path):
    lines = [json.dumps({"text": f"Number {i} of the documents that are whole."}) for i in range(400)]
    path, folder = tmp_path / "a.jsonl", tmp_path / "run"
    path.write_text("\n".join([*lines[:300], '{"text": ', *lines[301:]]))
    fields = {**STREAM, "train_files": [path], "output_dir": folder, "max_steps": 60}
    message = runs.run_error(**fields, dataloader_num_workers=1)
    assert message.startswith(f"{path}, line 301: not JSON")
    assert has_checkpoint(folder, 10)
    path.write_text("\n".join(lines))
    runs.run_here(**fields)
    assert (folder / "metrics.json").is_file()


def test_text_of_a_table_with_an_unquoted_comma_is_not_cut(tmp_path):
    path = tmp_path / "a.csv"
    lines = [f'{i},"Number {i} of the documents, which are whole."' for i in range(200)]
    path.write_text("\n".join(["id,text", *lines, "200,one, two"]) + "\n")
    message = runs.run_error(**STREAM, train_files=[path], output_dir=tmp_path / "run", max_steps=100)
    assert message.startswith(f"{path}, line 202: 3 fields, where 2 are needed (id, text)")
    assert has_checkpoint(tmp_path / "run", 10)


def test_a_stream_that_begins_anew_says_so_and_the_passes_are_told(tmp_path, capsys):
    text = runs.write_text(tmp_path / "text.txt", 40)
    runs.run_here(output_dir=tmp_path / "run", train_files=[text], max_steps=80, **STREAM)
    said = capsys.readouterr().out
    logged = [entry for entry in runs.history(tmp_path / "run") if "loss" in entry]
    passes = [entry["stream_pass"] for entry in logged]
    assert passes == sorted(passes) and passes[0] == 1 and set(passes) == set(range(1, passes[-1] + 1))
    per_pass = text.stat().st_size - 2 * 39 + 40  # characters, and one more token for each document
    assert passes[-1] == pytest.approx(logged[-1]["tokens_seen"] / per_pass + 1, abs=1.5) and passes[-1] > 2
    for number in range(2, passes[-1] + 1):
        assert said.count(f"the stream began anew: this is pass {number} over its text") == 1
    assert f"| pass {passes[-1]}" in said and "the stream began anew: this is pass 1 " not in said
    assert f"a stream, read to pass {passes[-1]};" in (tmp_path / "run" / "README.md").read_text()


def test_fields_that_a_stream_has_no_use_for_are_refused(files, tmp_path):
    fields = {"train_files": files, "output_dir": tmp_path / "run", "stream": "true", "max_steps": 5}
    assert "give tokens or max_steps" in runs.run_error(**{**fields, "max_steps": None, "num_train_epochs": 1})
    assert "give train_files or dataset_name" in runs.run_error(**{**fields, "train_files": None})
    assert "stream cannot be given together with data" in runs.run_error(**{**fields, "train_files": None, "data": "x"})
    assert "choose masked or hybrid" in runs.run_error(**fields, objective="next-sentence")
    assert "block_size has no effect without stream" in runs.run_error(**{**fields, "stream": None, "block_size": "1M"})
    assert not (tmp_path / "run").exists()


def test_a_plan_of_a_stream_prepares_the_first_block_only(files, tmp_path, capsys):
    folder = tmp_path / "run"
    runs.run_here(train_files=files, output_dir=folder, **FIELDS, plan="true")
    output = capsys.readouterr().out
    assert f"stream of 3 files in blocks of 4,000 bytes, first {folder}/data (" in output
    assert "epochs" not in output
    assert not (folder / "stream").exists()
