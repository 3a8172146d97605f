"""Many tasks, on one machine or on a cluster, prepare to the byte the corpus that one process prepares."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.text import CHINESE, EMOJI, sentences, write_paragraphs
from transformers import AutoTokenizer

pytest.importorskip("datatrove", reason="the extra 'many' is not installed")

from datatrove.tools import launch_pickled_pipeline

from weft.recipes import prepare_data_many
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import remove_folder
from weft.recipes.data import tokenization
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.cluster import build_executors, prepare_many
from weft.recipes.data.cluster_arguments import ClusterArguments
from weft.recipes.data.prepare import prepare
from weft.recipes.data.shards import Shards, ShardSample
from weft.tokenizer.train import train_tokenizer

RECIPE = Path(__file__).parents[2] / "recipes" / "prepare_data_many.py"
DOCUMENTS = [*sentences(60), CHINESE, EMOJI, *sentences(20, seed=1, words=80)]


def contents(folder):
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def shards(tmp_path):
    """Five files of three formats, with copies within a file and across files, and empty documents."""
    folder = tmp_path / "shards"
    folder.mkdir()
    a, b, c = DOCUMENTS[:25], [*DOCUMENTS[25:40], DOCUMENTS[3], DOCUMENTS[30]], [*DOCUMENTS[40:], DOCUMENTS[25], "  "]
    write_paragraphs(folder / "a.txt", a)
    with gzip.open(folder / "b.jsonl.gz", "wt", encoding="utf-8") as handle:
        handle.writelines(json.dumps({"text": text}) + "\n" for text in b)
    (folder / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in c), encoding="utf-8")
    (folder / "d.jsonl").write_text('{"text": ""}\n', encoding="utf-8")
    write_paragraphs(folder / "e.txt", [DOCUMENTS[3], "The last one is new.\r\nIt has two lines.", DOCUMENTS[41]])
    return sorted(map(str, folder.iterdir()))


@pytest.fixture
def tokenizer_name(tmp_path):
    train_tokenizer(iter(DOCUMENTS), "bpe", 400).save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.fixture
def data(shards, tokenizer_name):
    return DataArguments(train_files=shards, tokenizer_name=tokenizer_name)


def with_changes(data, **changes):
    return DataArguments(**{**vars(data), **changes})


SETTINGS = {
    "plain": {},
    "no duplicates dropped": {"dedup": "off"},
    "tails held out": {"validation_split": "tail", "validation_fraction": 0.3},
    "more held out": {"validation_fraction": 0.4, "split_seed": 7},
    "no start and end": {"document_tokens": "none"},
    "whole files": {"documents": "file"},
    "filters": {"min_characters": 60, "max_repeated_line_share": 0.2, "min_letter_share": 0.5},
    "sources": {"source_weights": ["a.txt=2", "jsonl=0.5"]},
    "words": {"segmenter": "characters"},
    "words and tails": {"segmenter": "characters", "validation_split": "tail", "validation_fraction": 0.3},
}


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_the_corpus_is_the_one_of_a_single_process(tmp_path, data, changes):
    data = with_changes(data, **changes)
    alone = prepare(data, tmp_path / "alone", quiet=True)
    together = prepare_many(data, ClusterArguments(tasks=3, workers=1), tmp_path / "together")
    assert contents(together.folder) == contents(alone.folder)
    if not changes:
        assert alone.description["duplicates"] == 5 and alone.description["empty"] == 2  # there was something to find


def test_validation_files_come_last_and_lose_what_is_in_the_training_text(tmp_path, data, shards):
    held_out = write_paragraphs(tmp_path / "v.txt", [*DOCUMENTS[:3], "Never seen.", "Never.", "Never seen."])
    data = with_changes(data, train_files=shards[:3], validation_files=[held_out, shards[4]], min_characters=30)
    alone = prepare(data, tmp_path / "alone", quiet=True)
    together = prepare_many(data, ClusterArguments(tasks=2, workers=1), tmp_path / "together")
    assert contents(together.folder) == contents(alone.folder)
    assert together.description["splits"]["validation"]["documents"] == 3


def test_processes_of_their_own_make_the_same(tmp_path, data, capfd):
    prepare(data, tmp_path / "alone", quiet=True)
    prepare_many(data, ClusterArguments(tasks=3, workers=2), tmp_path / "together")
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    printed = capfd.readouterr()
    assert sorted(re.findall(r"task (\d) of 3 finished", printed.out)) == ["0", "1", "2"]
    assert "Traceback" not in printed.err


def test_truncation_that_a_tokenizer_came_with_is_forgotten(tmp_path, data, tokenizer_name):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_name)
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=7)
    tokenizer.save_pretrained(tokenizer_name)
    alone = prepare(data, tmp_path / "alone", quiet=True)
    together = prepare_many(data, ClusterArguments(workers=1), tmp_path / "together")
    assert contents(together.folder) == contents(alone.folder)


def test_samples_of_large_shards_stay_small_and_even(tmp_path, data, monkeypatch):
    """Then the table of scripts is of other documents than one process takes; nothing else differs."""
    monkeypatch.setattr(tokenization.ScriptSample, "MOST_CHARACTERS", 4000)
    monkeypatch.setattr(ShardSample, "MOST_CHARACTERS", 800)
    alone = prepare(data, tmp_path / "alone", quiet=True)
    together = prepare_many(data, ClusterArguments(workers=1), tmp_path / "together")
    ours, theirs = contents(together.folder), contents(alone.folder)
    assert [name for name in theirs if ours[name] != theirs[name]] in (["corpus.json"], [])
    ours, theirs = together.description, alone.description
    assert {name for name in theirs if ours[name] != theirs[name]} <= {"scripts"}
    assert 0 < sum(row["characters"] for row in ours["scripts"].values()) <= 4000


def test_any_number_of_tasks_makes_the_same(tmp_path, data):
    made = [
        contents(prepare_many(data, ClusterArguments(tasks=tasks, workers=1), tmp_path / f"{tasks}").folder)
        for tasks in (1, 4, 5)
    ]
    assert made[0] == made[1] == made[2]


def test_a_corpus_that_is_there_is_reused_and_another_is_refused(tmp_path, data, monkeypatch):
    corpus = prepare_many(data, ClusterArguments(workers=1), tmp_path / "out")
    monkeypatch.setattr(Shards, "begin", None)  # calling it would be an error
    assert prepare_many(data, ClusterArguments(workers=1), tmp_path / "out").folder == corpus.folder
    assert prepare(data, tmp_path / "out", quiet=True).description == corpus.description
    with pytest.raises(RecipeError, match=r"other input \(dedup differ\)"):
        prepare_many(with_changes(data, dedup="off"), ClusterArguments(workers=1), tmp_path / "out")
    assert not (tmp_path / "out.work" / "parts").exists()  # they were as large as the corpus


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_task_is_named_and_the_rest_is_not_done_again(tmp_path, data, shards, workers, capfd):
    broken = Path(shards[2])
    good = broken.read_bytes(), broken.stat()
    broken.write_bytes(good[0] + b"{broken\n")
    cluster = ClusterArguments(tasks=5, workers=workers)
    with pytest.raises(RecipeError) as failure:
        prepare_many(data, cluster, tmp_path / "out")
    message, line = str(failure.value), len(good[0].splitlines()) + 1
    assert message.startswith(f"1 of 5 tasks failed (2). Task 2: {broken}, line {line}: not JSON")
    assert "Traceback" not in capfd.readouterr().err
    assert "not JSON" in (Path(message.split("Logs are in ")[1][:-1]) / "task_00002.log").read_text()
    work = tmp_path / "out.work"
    assert {path.name for path in (work / "parts").glob("0*")} == {"00000", "00001", "00003", "00004"}
    assert not (tmp_path / "out").exists()

    broken.write_bytes(good[0])
    with pytest.raises(RecipeError, match=r"parts was prepared from other input \(the files' sizes or times differ\)"):
        prepare_many(data, cluster, tmp_path / "out")  # what others read of it could be of the broken one


def test_killed_processes_are_noticed_and_the_same_command_goes_on(tmp_path, data, monkeypatch):
    """The segmenter, which is the user's own code, kills the process of the task whose file is Chinese."""
    (tmp_path / "deadly.py").write_text(
        "import os, pathlib, signal\n"
        f"flag = pathlib.Path({str(tmp_path / 'flag')!r})\n"
        "def cut(run):\n"
        "    if flag.exists():\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return list(run)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = with_changes(data, segmenter="deadly:cut")
    (tmp_path / "flag").touch()
    with pytest.raises(RecipeError, match=r"tasks failed \(.*2.*\)\. Task \d: a process was killed"):
        prepare_many(data, ClusterArguments(workers=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "flag").unlink()
    prepare_many(data, ClusterArguments(workers=2), tmp_path / "out")
    prepare(data, tmp_path / "alone", quiet=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_what_is_done_is_not_done_again(tmp_path, data, monkeypatch):
    read, files = Shards.read, []

    def read_some(shards, file):
        files.append(file)
        if files.count(3) == 1:
            raise OSError("no space left on device")
        return read(shards, file)

    monkeypatch.setattr(Shards, "read", read_some)
    with pytest.raises(RecipeError, match=r"1 of 2 tasks failed \(1\)\. Task 1: OSError: no space left on device\."):
        prepare_many(data, ClusterArguments(tasks=2, workers=1), tmp_path / "out")
    assert files == [0, 2, 4, 1, 3]
    prepare_many(
        data, ClusterArguments(tasks=3, workers=1), tmp_path / "out"
    )  # another number of tasks, the same shards
    assert files == [0, 2, 4, 1, 3, 3]
    prepare(data, tmp_path / "alone", quiet=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_lost_shards_are_made_again_whatever_datatrove_noted(tmp_path, data):
    begun = Shards.begin(data, tmp_path / "out.work" / "parts")
    build_executors(ClusterArguments(tasks=5, workers=1), begun, tmp_path / "out")[0].run()
    remove_folder(begun.shard(1))
    with pytest.raises(RecipeError, match=r"1 of 5 shards are missing, the first that of .*b\.jsonl\.gz"):
        begun.merge(tmp_path / "out")
    prepare_many(data, ClusterArguments(tasks=5, workers=1), tmp_path / "out")
    prepare(data, tmp_path / "alone", quiet=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_a_file_that_changes_after_the_shards_were_begun_is_refused(tmp_path, data, shards):
    begun = Shards.begin(data, tmp_path / "work" / "parts")
    os.utime(shards[0], ns=(1, 1))
    making, _ = build_executors(ClusterArguments(workers=1), begun, tmp_path / "out")
    with pytest.raises(RecipeError, match=r"1 of 5 tasks failed \(0\).*a\.txt was changed after the shards were begun"):
        making.run()


def test_shards_of_a_killed_command_are_whole_and_its_processes_end(tmp_path, data, shards, monkeypatch):
    (tmp_path / "slow.py").write_text(
        "import time\ndef cut(run):\n    print('here', flush=True)\n    time.sleep(3600)\n"
    )
    words = ["--train_files", *shards, "--tokenizer_name", data.tokenizer_name, "--segmenter", "slow:cut"]
    command = [sys.executable, str(RECIPE), *words, "--output_dir", str(tmp_path / "out"), "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as killed:
        for line in killed.stdout:  # which ends when the processes that share it have ended
            if line == "here\n":
                killed.send_signal(signal.SIGKILL)
    unfinished = {path.name for path in (tmp_path / "out.work" / "parts").iterdir()}
    assert ".00002.partial" in unfinished and "00002" not in unfinished

    (tmp_path / "slow.py").write_text("cut = list\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = with_changes(data, segmenter="slow:cut")
    prepare_many(data, ClusterArguments(workers=1), tmp_path / "out")
    prepare(data, tmp_path / "alone", quiet=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_the_command_takes_patterns_and_reports(tmp_path, data, monkeypatch, capsys):
    words = ["--train_files", f"{tmp_path}/shards/*", "--tokenizer_name", data.tokenizer_name, "--workers", "1"]
    words = ["prepare_data_many.py", *words, "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*words, "--plan", "true"])
    prepare_data_many.main()
    assert f"5 files for 5 tasks; 5 files are to do\n  task 0: {tmp_path}/shards/a.txt\n" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(sys, "argv", words)
    prepare_data_many.main()
    prepare(data, tmp_path / "alone", quiet=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    printed = capsys.readouterr().out
    assert "dropped: 5 duplicate and 2 empty documents\n" in printed
    assert printed.endswith(f"prepared corpus in {tmp_path}/out\n")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Stand-ins for the programs of Slurm: sbatch keeps what it was given, srun runs, scontrol names one machine."""
    programs, submitted = tmp_path / "programs", tmp_path / "submitted"
    programs.mkdir()
    submitted.mkdir()
    for name, lines in {
        "sbatch": f"""n=$(ls {submitted} | wc -l)
for last; do true; done
(echo "$@"; cat "$last") > {submitted}/$n
echo Submitted batch job 7$n""",
        "srun": 'while [ "${1#-}" != "$1" ]; do [ "$1" = -n ] && shift; shift; done\nexec "$@"',
        "scontrol": "echo localhost",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{lines}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return submitted


def run_as_slurm_would(monkeypatch, executor, tasks):
    """What each job of an array runs, in this process."""
    monkeypatch.setenv("SLURM_NODELIST", "localhost")
    monkeypatch.setattr(sys, "argv", ["launch_pickled_pipeline", str(executor)])
    handler = signal.getsignal(signal.SIGUSR1)
    for task in tasks:
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        launch_pickled_pipeline.main()
    signal.signal(signal.SIGUSR1, handler)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")


SLURM = {"executor": "slurm", "tasks": 3, "partition": "cpu", "time": "01:30:00", "mem_per_cpu_gb": 3, "workers": 2}


def test_slurm_gets_an_array_of_tasks_and_a_job_that_waits_for_them(tmp_path, data, cluster, monkeypatch, capsys):
    arguments = ClusterArguments(**SLURM, cpus_per_task=4, sbatch_args=["account=me", "--exclusive"])
    assert prepare_many(data, arguments, tmp_path / "out", plan_only=True) is None
    planned = capsys.readouterr().out
    assert not list(cluster.iterdir())
    assert prepare_many(data, arguments, tmp_path / "out") is None
    first, second = ((cluster / str(n)).read_text().split("\n", 1) for n in range(2))
    assert len(list(cluster.iterdir())) == 2
    assert first[0].startswith("--export=ALL,RUN_OFFSET=0 /") and "--dependency=afterok:70" in second[0]
    logs = tmp_path / "out.work" / "logs"
    for line in (
        *("partition=cpu", "time=01:30:00", "cpus-per-task=4", "mem-per-cpu=3G", "account=me", "exclusive"),
        *("array=0-2%2", "job-name=weft-shards", f"output={logs}/3_tasks/slurm_logs/%A_%a.out"),
    ):
        assert f"#SBATCH --{line}\n" in first[1]
    assert f"source {sys.prefix}/bin/activate\n" in first[1]
    assert re.search(rf"^srun +-l -n 1 launch_pickled_pipeline {logs}/3_tasks/executor\.pik$", first[1], re.MULTILINE)
    assert first[1].strip() in planned
    assert "#SBATCH --array=0-0\n" in second[1] and "#SBATCH --kill-on-invalid-dep=yes\n" in second[1]
    assert "qos" not in first[1] + second[1]
    assert f"job 71 will write {tmp_path / 'out'}" in capsys.readouterr().out

    # The first task by its script, as a cluster's machine would; the rest faster.
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "0", "SLURM_NODELIST": "localhost"}
    subprocess.run(["bash", "-c", first[1]], check=True, env=environment, capture_output=True)
    run_as_slurm_would(monkeypatch, logs / "3_tasks" / "executor.pik", [2, 1])
    run_as_slurm_would(monkeypatch, logs / "merge" / "executor.pik", [0])
    prepare(data, tmp_path / "alone", quiet=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    assert prepare_many(data, arguments, tmp_path / "out").folder == tmp_path / "out"


def test_slurm_gets_what_is_not_done_yet(tmp_path, data, shards, cluster, monkeypatch):
    arguments = ClusterArguments(**SLURM)
    prepare_many(data, arguments, tmp_path / "out")
    logs = tmp_path / "out.work" / "logs"
    run_as_slurm_would(monkeypatch, logs / "3_tasks" / "executor.pik", [0, 2])
    with pytest.raises(RecipeError, match=r"2 of 5 shards are missing, the first that of .*b\.jsonl\.gz"):
        run_as_slurm_would(monkeypatch, logs / "merge" / "executor.pik", [0])
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    prepare_many(data, arguments, tmp_path / "out")
    assert "#SBATCH --array=0-0%2\n" in (cluster / "2").read_text()
    assert json.loads((logs / "3_tasks" / "ranks_to_run.json").read_text()) == [1]
    run_as_slurm_would(monkeypatch, logs / "3_tasks" / "executor.pik", [0])
    run_as_slurm_would(monkeypatch, logs / "merge" / "executor.pik", [0])
    prepare(data, tmp_path / "alone", quiet=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


@pytest.mark.parametrize(
    "changes, fields, sentence",
    [
        ({"tokenizer_name": None}, {}, "no tokenizer is given"),
        ({"train_files": []}, {}, "there are no files to share between tasks"),
        ({"train_files": ["no/*.txt"]}, {}, r"no file matches 'no/\*\.txt'"),
        ({"dedup": "near"}, {}, "near"),
        ({"validation_fraction": 2.0}, {}, "validation_fraction is 2.0"),
        ({}, {"executor": "ray"}, "executor is 'ray': choose one of local, slurm"),
        ({}, {"tasks": 6}, "tasks is 6, but there are 5 files"),
        ({}, {"tasks": 0}, "tasks is 0: give at least 1"),
        ({}, {"workers": -1}, "workers is -1"),
        ({}, {"executor": "slurm"}, "without a partition"),
        ({}, {"executor": "slurm", "partition": "cpu", "sbatch_args": ["=me"]}, "sbatch_args is"),
        ({}, {"executor": "slurm", "partition": "cpu"}, "there is no sbatch on this machine"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(tmp_path, data, changes, fields, sentence, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RecipeError, match=sentence):
        prepare_many(with_changes(data, **changes), ClusterArguments(**fields), tmp_path / "out")
    assert not (tmp_path / "out.work").exists()


def test_a_task_of_a_job_array_starts_no_other(tmp_path, data, cluster, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    with pytest.raises(RecipeError, match="on a login node"):
        prepare_many(data, ClusterArguments(**SLURM), tmp_path / "out")


def test_fields_that_the_executor_would_not_obey_are_refused():
    with pytest.raises(RecipeError, match=r"partition, time has no effect without --executor slurm"):
        ClusterArguments().refuse_without_slurm({"time", "partition", "tasks"})
    ClusterArguments(executor="slurm").refuse_without_slurm({"time"})


def test_a_folder_with_something_else_is_refused_before_any_work(tmp_path, data):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds files that are not a prepared corpus"):
        prepare_many(data, ClusterArguments(workers=1), tmp_path / "out")
    assert not (tmp_path / "out.work" / "parts").exists()
    (tmp_path / "work" / "parts").mkdir(parents=True)
    with pytest.raises(RecipeError, match="parts holds something else than shards: name another work_dir"):
        prepare_many(data, ClusterArguments(workers=1, work_dir=str(tmp_path / "work")), tmp_path / "other")
