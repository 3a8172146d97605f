"""Killed, interrupted, started twice or run again: a prepared folder is whole and the same, or it is not there."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from helpers.text import make_data, sentences, write_paragraphs

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import only_one_process, write_json
from weft.recipes.data import prepare as preparation
from weft.recipes.data import tokenization
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import CorpusWriter
from weft.recipes.data.prepare import prepare
from weft.tokenizer.train import train_tokenizer

PREPARE_AND_STOP_IN_THE_MIDDLE = """
import sys, time
from pathlib import Path
from weft.recipes.data import prepare as preparation, tokenization
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import CorpusWriter

add, tokenization.BATCH_CHARACTERS = CorpusWriter.add, 5000

def add_some(writer, *document):
    add(writer, *document)
    if len(writer.lengths) == 500:
        writer.file.flush()
        print("half-way", flush=True)
        time.sleep(3600)

CorpusWriter.add = add_some
data = DataArguments(train_files=[sys.argv[1]], vocab_size=300)
preparation.prepare(data, Path(sys.argv[2]), quiet=True)
"""


def contents(folder):
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def small_batches(monkeypatch):
    """Many batches out of little text, so that there is a middle to stop in."""
    monkeypatch.setattr(tokenization, "BATCH_CHARACTERS", 500)


def test_killed_in_the_middle_it_leaves_nothing_and_runs_again(tmp_path):
    path = write_paragraphs(tmp_path / "a.txt", sentences(1000))
    command = [sys.executable, "-c", PREPARE_AND_STOP_IN_THE_MIDDLE, path, str(tmp_path / "corpus")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout.readline() == "half-way\n"
        killed.send_signal(signal.SIGKILL)
    unfinished = tmp_path / ".corpus.partial"
    assert (unfinished / "tokens.bin").stat().st_size > 0
    assert not (tmp_path / "corpus").exists()
    data = make_data(train_files=[path])
    prepare(data, tmp_path / "corpus", quiet=True)
    prepare(data, tmp_path / "uninterrupted", quiet=True)
    assert contents(tmp_path / "corpus") == contents(tmp_path / "uninterrupted")
    assert not unfinished.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left on device")])
@pytest.mark.parametrize("moment", ["writing", "closing", "moving"])
def test_interrupted_it_leaves_nothing_and_runs_again(tmp_path, monkeypatch, small_batches, error, moment):
    data = make_data(train_files=[write_paragraphs(tmp_path / "a.txt", sentences(50))])
    calls = []

    def stop_at(number, function):
        def wrapper(*arguments, **options):
            calls.append(number)
            if len(calls) == number:
                raise error
            return function(*arguments, **options)

        return wrapper

    with monkeypatch.context() as patch:
        if moment == "writing":
            patch.setattr(CorpusWriter, "add", stop_at(30, CorpusWriter.add))
        elif moment == "closing":
            patch.setattr(CorpusWriter, "close", stop_at(1, CorpusWriter.close))
        else:
            patch.setattr("weft.recipes.common.files.flush_to_disk", stop_at(2, lambda path: None))
        with pytest.raises(type(error) if isinstance(error, OSError) else error):
            prepare(data, tmp_path / "corpus", quiet=True)
    assert calls
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", ".corpus.lock"}
    prepare(data, tmp_path / "corpus", quiet=True)
    prepare(data, tmp_path / "uninterrupted", quiet=True)
    assert contents(tmp_path / "corpus") == contents(tmp_path / "uninterrupted")


def test_run_again_it_touches_nothing(tmp_path, monkeypatch):
    data = make_data(train_files=[write_paragraphs(tmp_path / "a.txt", sentences(20))])
    prepare(data, tmp_path / "corpus", quiet=True)
    before = times(tmp_path / "corpus")
    monkeypatch.setattr(preparation, "_write_corpus", None)  # calling it would be an error
    corpus = prepare(data, tmp_path / "corpus", quiet=True)
    assert times(tmp_path / "corpus") == before
    assert corpus.description["splits"]["train"]["documents"] > 0


@pytest.mark.parametrize(
    "change",
    [
        *({"vocab_size": 301}, {"dedup": "off"}, {"split_seed": 1}, {"validation_split": "tail"}),
        *({"segmenter": "characters"}, {"min_characters": 3}, {"source_weights": ["txt=2"]}),
    ],
)
def test_other_settings_are_refused_and_named(tmp_path, change):
    path = write_paragraphs(tmp_path / "a.txt", sentences(20))
    prepare(make_data(train_files=[path]), tmp_path / "corpus", quiet=True)
    before = contents(tmp_path / "corpus")
    with pytest.raises(RecipeError, match=rf"corpus was prepared from other input \({next(iter(change))} differ\)"):
        prepare(make_data(train_files=[path], **change), tmp_path / "corpus", quiet=True)
    assert contents(tmp_path / "corpus") == before


def test_a_folder_of_another_version_is_not_taken_for_ones_own(tmp_path):
    data = make_data(train_files=[write_paragraphs(tmp_path / "a.txt", sentences(20))])
    corpus = prepare(data, tmp_path / "corpus", quiet=True)
    write_json(tmp_path / "corpus" / "corpus.json", {**corpus.description, "format_version": 1})
    with pytest.raises(RecipeError, match=r"has format version 1, this program reads \d+: prepare it again"):
        prepare(data, tmp_path / "corpus", quiet=True)


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_is_refused(tmp_path, change):
    path = tmp_path / "a.txt"
    data = make_data(train_files=[write_paragraphs(path, sentences(20))])
    prepare(data, tmp_path / "corpus", quiet=True)
    if change == "size":
        stat = path.stat()
        path.write_text(path.read_text() + "More.")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        os.utime(path, ns=(1, 1))
    with pytest.raises(RecipeError, match=r"other input \(the files' sizes or times differ\)"):
        prepare(data, tmp_path / "corpus", quiet=True)


def test_a_file_that_changes_while_it_is_read_does_not_count_as_read(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    data = make_data(train_files=[write_paragraphs(path, sentences(20))])
    add = CorpusWriter.add

    def append_and_add(*document):
        with path.open("a") as handle:
            handle.write("\n\nA late addition.")
        add(*document)

    with monkeypatch.context() as patch:
        patch.setattr(CorpusWriter, "add", append_and_add)
        prepare(data, tmp_path / "corpus", quiet=True)
    with pytest.raises(RecipeError, match="other input"):
        prepare(data, tmp_path / "corpus", quiet=True)


def test_of_two_at_once_the_second_waits_and_uses_the_result(tmp_path, monkeypatch, capsys):
    data = make_data(train_files=[write_paragraphs(tmp_path / "a.txt", sentences(20))])
    write, begun, may_go_on, writers, results = preparation._write_corpus, threading.Event(), threading.Event(), [], []

    def slow_write(*arguments):
        writers.append(threading.get_ident())
        begun.set()
        assert may_go_on.wait(120)
        write(*arguments)

    monkeypatch.setattr(preparation, "_write_corpus", slow_write)
    both = [
        threading.Thread(target=lambda: results.append(prepare(data, tmp_path / "corpus", quiet=True)), daemon=True)
        for _ in range(2)
    ]
    said = ""
    try:
        both[0].start()
        assert begun.wait(120)
        both[1].start()
        deadline = time.monotonic() + 120
        while "waiting for process" not in said and time.monotonic() < deadline:
            time.sleep(0.01)
            said += capsys.readouterr().out
        assert f"waiting for process {os.getpid()}, which is writing {tmp_path / 'corpus'}" in said
        assert not (tmp_path / "corpus").exists() and not results
    finally:
        may_go_on.set()
    for thread in both:
        thread.join(120)
    assert len(writers) == 1
    assert [corpus.folder for corpus in results] == [tmp_path / "corpus"] * 2


def test_waiting_has_an_end_that_names_the_writer(tmp_path):
    with only_one_process(tmp_path / ".lock", "the run"):
        second = only_one_process(tmp_path / ".lock", "the run", patience=0.0)
        with pytest.raises(RecipeError, match=f"process {os.getpid()} is writing the run"):
            second.__enter__()
    with only_one_process(tmp_path / ".lock", "the run", patience=0.0):
        pass


HOLD_AND_FORK = """
import os, sys, time
from pathlib import Path
from weft.recipes.common.files import only_one_process

with only_one_process(Path(sys.argv[1]), "the run"):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(3600)
"""


def test_a_killed_process_frees_what_it_held_even_if_one_that_it_forked_lives_on(tmp_path):
    command = [sys.executable, "-c", HOLD_AND_FORK, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        child = int(holder.stdout.readline())
        with pytest.raises(RecipeError, match=f"process {holder.pid} is writing the run: wait until it ends, or stop"):
            only_one_process(tmp_path / ".lock", "the run", patience=0.3).__enter__()
        holder.kill()
        holder.wait()
        try:
            with only_one_process(tmp_path / ".lock", "the run", patience=5.0):
                assert (tmp_path / ".lock").read_text() == str(os.getpid())
        finally:
            os.kill(child, signal.SIGKILL)


def test_under_a_launcher_the_others_wait_for_the_folder_without_a_process_group(tmp_path, monkeypatch):
    """As the second of two processes: the variables are set, nobody answers at the address, and none is asked."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "9")
    data = make_data(train_files=[write_paragraphs(tmp_path / "a.txt", sentences(20))])
    naps, results = [], []

    def nap(seconds):
        """While the process waits, the first one begins, and later ends, its work."""
        naps.append(seconds)
        assert not results
        if len(naps) == 2:
            (tmp_path / ".corpus.partial").mkdir()
        if len(naps) == 4:
            prepare(data, tmp_path / "corpus", quiet=True)

    monkeypatch.setattr(preparation.time, "sleep", nap)
    results.append(preparation.prepare_before_group(data, tmp_path / "corpus"))
    assert len(naps) == 4
    assert results[0].folder == tmp_path / "corpus"
    assert not torch.distributed.is_initialized()


def test_under_a_launcher_the_first_process_prepares(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = make_data(train_files=[write_paragraphs(tmp_path / "a.txt", sentences(20))])
    monkeypatch.setattr(preparation.time, "sleep", lambda seconds: pytest.fail("it waits for itself"))
    corpus = preparation.prepare_before_group(data, tmp_path / "corpus")
    assert corpus.description["splits"]["train"]["documents"] > 0
    assert not torch.distributed.is_initialized()


def test_a_tokenizer_folder_that_changed_is_refused(tmp_path):
    path = write_paragraphs(tmp_path / "a.txt", sentences(20))
    train_tokenizer(iter(sentences(20)), "char", 100).save_pretrained(tmp_path / "tokenizer")
    arguments = DataArguments(train_files=[str(path)], tokenizer_name=str(tmp_path / "tokenizer"))
    prepare(arguments, tmp_path / "out", quiet=True)
    train_tokenizer(iter(sentences(30)), "bpe", 300).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(RecipeError, match="sizes or times"):
        prepare(arguments, tmp_path / "out", quiet=True)


def test_processes_that_read_different_corpora_are_refused(tmp_path, monkeypatch):
    path = write_paragraphs(tmp_path / "a.txt", sentences(20))
    corpus = prepare(DataArguments(train_files=[str(path)], tokenizer_type="char"), tmp_path / "out", quiet=True)
    preparation.check_same_corpus(corpus)  # without a group there is nothing to compare

    def gather(found, own):
        found[:] = [own, own if alike else "another"]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    alike = True
    preparation.check_same_corpus(corpus)
    alike = False
    with pytest.raises(RecipeError, match="different corpora"):
        preparation.check_same_corpus(corpus)
