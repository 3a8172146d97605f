"""How the process of a recipe ends, alone and in a group."""

import os
import subprocess
import sys

import pytest
from helpers.runs import RECIPES

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
