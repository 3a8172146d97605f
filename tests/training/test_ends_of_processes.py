"""How the process of a recipe ends, alone and in a group."""

import contextlib
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable

import pytest
import torch
from helpers import finetuning, runs
from helpers.launched import run_together
from helpers.runs import RECIPES

from weft.recipes.common import errors

# What is printed where the interpreter is taken down is what threads of a process group may meet there.
SCRIPT = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, sys.argv[2])  # the file alone: the package takes seconds to import
from errors import RecipeError, run_command

class Kept:
    def __del__(self):
        print("taken down")

def main():
    threading.Thread(target=lambda: (time.sleep(0.3), print("uploaded"))).start()
    pool.submit(print, "trained").result()  # its thread then waits for more to do
    if sys.argv[1] == "refuse":
        raise RecipeError("no.")

kept, pool = Kept(), ThreadPoolExecutor()
atexit.register(print, "registered")
run_command(main)
"""
ENDS = ["trained", "uploaded", "registered"]


@pytest.mark.parametrize(("processes", "last"), [(1, ["taken down"]), (2, [])])
@pytest.mark.parametrize(("word", "status", "said"), [("train", 0, ""), ("refuse", 2, "error: no.\n")])
def test_all_that_is_left_to_do_is_done_and_a_member_of_a_group_then_ends_at_once(
    processes: int, last: list[str], word: str, status: int, said: str
) -> None:
    environment = {**os.environ, "WORLD_SIZE": str(processes), "LOCAL_RANK": "0"}
    command = [sys.executable, "-c", SCRIPT, word, str(RECIPES / "common")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[:-1] == ENDS + last
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize(("rank", "goes_on", "said"), [("0", True, True), ("1", False, False), ("1", True, True)])
def test_an_error_is_said_by_the_first_process_of_a_machine_and_by_others_where_that_one_goes_on(
    rank: str, goes_on: bool, said: bool, monkeypatch, capsys
) -> None:
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        assert not capsys.readouterr().err
        if not goes_on:
            sys.exit("ended by the launcher")

    def refuse() -> None:
        raise errors.RecipeError("no.")

    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(errors.time, "sleep", wait)
    with pytest.raises(SystemExit):
        errors.run_command(refuse)
    assert capsys.readouterr().err == "error: no.\n" * said
    assert waited == [errors.PATIENCE] * (rank != "0")


def keep_the_group(run: Callable[..., None], *arguments: object, **fields: object) -> None:
    """Carry a run out, give back all that it leaves, and see whether its group is still there."""
    with contextlib.suppress(ImportError):
        import deepspeed  # noqa: F401  # it would hold the group that there is when it is imported
    held, destroy = [], torch.distributed.destroy_process_group

    def noted() -> None:
        held.append(weakref.ref(torch.distributed.group.WORLD))
        destroy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, "destroy_process_group", noted)
        run(*arguments, **fields)
    gc.collect()
    assert not torch.distributed.is_initialized()
    assert [group() is not None for group in held] == [True]


@pytest.mark.parametrize("recipe", ["pretrain_clm", "finetune_tokens"])
def test_a_group_outlives_its_run_because_its_destructor_may_wait_for_ever(recipe, corpus, tmp_path) -> None:
    fields = {"output_dir": tmp_path / "run", "max_steps": 2}
    if recipe == "pretrain_clm":
        run_together("cpu_2.yaml", keep_the_group, runs.run_here, data=corpus, **fields)
    else:
        fields |= finetuning.files_of(recipe, tmp_path)
        run_together("cpu_2.yaml", keep_the_group, finetuning.run_here, finetuning.MAINS[recipe], **fields)


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_ends_early_as_head_does_ends_a_command_quietly(flush):
    command = f"lambda: [print('x' * 99, flush={flush}) for _ in range(9999)]"
    program = [sys.executable, "-c", f"import errors\nerrors.run_command({command})"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(program, cwd=RECIPES / "common", **pipes)
    assert process.stdout.readline() == b"x" * 99 + b"\n"
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 141)
    process.stderr.close()
