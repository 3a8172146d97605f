"""Settings of the tasks that prepare a corpus together: how many, and where they run."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option

SLURM_FIELDS = ("partition", "time", "cpus_per_task", "mem_per_cpu_gb", "env_command", "sbatch_args")


@dataclass
class ClusterArguments(Options):
    """Where the tasks run."""

    executor: str = option("local", "local: on this machine; slurm: as jobs of a cluster", choices=("local", "slurm"))
    tasks: int | None = option(None, "tasks that share the files between them; without it one for each file", least=1)
    workers: int | None = option(
        None, "tasks at once, at most; without it one for each core (slurm: no limit)", least=1
    )
    work_dir: str | None = option(None, "folder for shards and logs, on a shared disk; without it OUTPUT_DIR.work")
    partition: str | None = option(None, "slurm: the partition to run in")
    time: str = option("24:00:00", "slurm: time limit of a job")
    cpus_per_task: int = option(1, "slurm: cores for each task; its tokenizer uses them all", least=1)
    mem_per_cpu_gb: int = option(4, "slurm: memory for each core, in GiB", least=1)
    env_command: str | None = option(
        None, "slurm: what makes Weft available in a job; without it the environment in use is activated"
    )
    sbatch_args: list[str] = option([], "slurm: more options of sbatch as NAME=VALUE, like account=me qos=long")

    def refuse_without_slurm(self, given: Iterable[str]) -> None:
        """Raise RecipeError if a field is given that only the executor "slurm" obeys, but another is asked for."""
        ignored = [name for name in SLURM_FIELDS if name in given]
        if ignored and self.executor != "slurm":
            raise RecipeError(
                f"{', '.join(ignored)} has no effect without --executor slurm: give that, or leave it out."
            )

    def sbatch_options(self) -> dict[str, str]:
        """Parse `sbatch_args` to names and values; an option without a value has an empty one."""
        return {name: value for name, _, value in (each.lstrip("-").partition("=") for each in self.sbatch_args)}

    def check(self, files: int) -> None:
        """Refuse settings that cannot run, before any work is done.

        Args:
            files: number of files that the tasks share.

        Raises:
            RecipeError: names the field, its value and the allowed ones.
        """
        super().check()
        if self.tasks is not None and self.tasks > files:
            raise RecipeError(
                f"tasks is {self.tasks}, but there are {files} files and a task takes whole files: give at most "
                f"{files}, or cut the files up."
            )
        if self.executor != "slurm":
            return
        if self.partition is None:
            raise RecipeError("executor is 'slurm' without a partition: give --partition (sinfo lists them).")
        if "" in self.sbatch_options():
            raise RecipeError(f"sbatch_args is {self.sbatch_args}: give NAME=VALUE each, like account=me.")
        if shutil.which("sbatch") is None:
            raise RecipeError("there is no sbatch on this machine: run the command on a login node of the cluster.")
        if "SLURM_ARRAY_TASK_ID" in os.environ:
            raise RecipeError("this is a task of a Slurm job array itself: run the command on a login node.")
