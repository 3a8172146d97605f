"""Preparation as datatrove pipelines: many tasks turn files into shards, one more merges them to the corpus.

datatrove (https://github.com/huggingface/datatrove) runs the tasks: on the cores of one machine, or as jobs of a Slurm
cluster with a common disk. `shards.py` and `prepare.py` say what happens to a document.
"""

import contextlib
import io
import multiprocessing
import multiprocessing.connection
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from weft.recipes.common.errors import RecipeError, one_line, refusing, unwritable
from weft.recipes.common.files import only_one_process
from weft.recipes.common.processes import available_cores
from weft.recipes.common.wording import some_of
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.cluster_arguments import ClusterArguments
from weft.recipes.data.corpus import DESCRIPTION, Corpus
from weft.recipes.data.prepare import check_output_folder, prepare
from weft.recipes.data.shards import PATIENCE, Shards, check_can_be_sharded

with refusing("this needs the package datatrove", ImportError, advice="pip install 'datatrove>=0.10'."):
    from datatrove.data import Document, DocumentsPipeline
    from datatrove.executor.base import PipelineExecutor
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.executor.slurm import SlurmPipelineExecutor
    from datatrove.pipeline.base import PipelineStep

MOST_TASKS_TOLD = 40  # by a plan


class MakeShards(PipelineStep):
    """Turns the files of one task into shards, each of which is whole or absent."""

    name, type = "shards", "WRITER"

    def __init__(self, shards: Shards) -> None:
        super().__init__()
        self.shards = shards

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Read the files that have no shard yet; nothing comes out.

        Raises:
            RecipeError: broken input; names the file and the line.
        """
        for file in self.shards.files_of(rank, world_size):
            self.shards.write(file)
            self.stat_update("files")
        yield from ()


class MergeShards(PipelineStep):
    """Makes the corpus of all shards, in the order of the files."""

    name, type = "corpus", "WRITER"

    def __init__(self, shards: Shards, folder: Path) -> None:
        super().__init__()
        self.shards, self.folder = shards, folder

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Write the corpus; nothing comes out (raises RecipeError: a shard is missing, or none has text)."""
        self.shards.merge(self.folder)
        yield from ()


class LocalExecutor(LocalPipelineExecutor):
    """datatrove's executor for one machine; it lets the other tasks finish when one fails, and names the failed ones.

    datatrove's own stops all tasks at the first error, and waits for ever for a killed process.
    """

    def run(self) -> None:
        """Run the tasks that are not complete.

        Raises:
            RecipeError: names the failed tasks and the reason of the first one.
        """
        ranks = self.get_incomplete_ranks()
        if self.workers == 1 or len(ranks) == 1:
            errors = {rank: error for rank in ranks if (error := self._run_here(rank)) is not None}
        else:
            errors = self._run_in_processes(ranks)
        if not errors:
            return
        first = min(errors)
        reason = errors[first]
        if not isinstance(reason, RecipeError):
            reason = unwritable(reason) or f"{type(reason).__name__}: {one_line(reason)}."
        raise RecipeError(
            f"{len(errors)} of {self.tasks} tasks failed ({', '.join(map(str, sorted(errors)))}). Task {first}: "
            f"{reason} What is done stays: mend the cause and run the same command again. Logs are in "
            f"{self.logging_dir.resolve_paths('logs')}."
        ) from errors[first]

    def run_task(self, rank: int) -> None:
        """Run one task; datatrove prints into its log file only."""
        with contextlib.redirect_stderr(io.StringIO()):
            self._run_for_rank(rank)

    def _run_here(self, rank: int) -> Exception | None:
        error = None
        try:
            self.run_task(rank)
        except Exception as raised:
            error = raised
        self._tell(rank, error)
        return error

    def _run_in_processes(self, ranks: list[int]) -> dict[int, Exception]:
        errors = {}
        threads = max(1, available_cores() // self.workers)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # imported once, not by every process
        with ProcessPoolExecutor(min(self.workers, len(ranks)), context, _begin_process, (threads,)) as pool:
            try:
                futures = {pool.submit(self.run_task, rank): rank for rank in ranks}
                for future in as_completed(futures):
                    rank, error = futures[future], future.exception()
                    if isinstance(error, BrokenProcessPool):
                        error = RecipeError("a process was killed, maybe for want of memory (give fewer --workers).")
                    if error is not None:
                        errors[rank] = error
                    self._tell(rank, error)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return errors

    def _tell(self, rank: int, error: BaseException | None) -> None:
        print(f"task {rank} of {self.tasks} {'finished' if error is None else 'failed'}", flush=True)


def _begin_process(threads: int) -> None:
    """Give a task's tokenizer its share of the cores, and end its process together with the command."""
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    command = multiprocessing.parent_process()

    def end_with_command() -> None:
        multiprocessing.connection.wait([command.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_command, daemon=True).start()


class SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's executor for a Slurm cluster, without the job that only adds up the tasks' statistics."""

    def launch_merge_stats(self) -> None:
        """Launch nothing."""

    def script(self) -> str:
        """Return the script that `run` gives to sbatch while no task is complete."""
        command = f"srun  -l -n 1 launch_pickled_pipeline {self.logging_dir.resolve_paths('executor.pik')}"
        return self.get_launch_file_contents(self.get_sbatch_args(min(self.tasks, self.max_array_size)), command)


def build_executors(
    cluster: ClusterArguments, shards: Shards, folder: Path
) -> tuple[PipelineExecutor, PipelineExecutor]:
    """Build the pipeline that makes the shards, and the one that waits for it and merges them."""
    tasks = cluster.tasks or len(shards.sources)
    first, second = [MakeShards(shards)], [MergeShards(shards, folder)]
    # The folder's name has the number of tasks: with another number, a task has other files.
    logs = shards.folder.with_name("logs")
    making, merging = str(logs / f"{tasks}_tasks"), str(logs / "merge")
    if cluster.executor == "local":
        executor = LocalExecutor(first, tasks=tasks, workers=cluster.workers or available_cores(), logging_dir=making)
        return executor, LocalExecutor(second, logging_dir=merging, skip_completed=False)
    options = {
        "partition": cluster.partition,
        "time": cluster.time,
        "cpus_per_task": cluster.cpus_per_task,
        "mem_per_cpu_gb": cluster.mem_per_cpu_gb,
        "qos": "",  # each cluster has its own: --sbatch_args qos=NAME
        "env_command": cluster.env_command or f"source {shlex.quote(str(Path(sys.prefix) / 'bin' / 'activate'))}",
        "sbatch_args": cluster.sbatch_options(),
    }
    executor = SlurmExecutor(
        first, tasks=tasks, workers=cluster.workers or -1, job_name="weft-shards", logging_dir=making, **options
    )
    options["sbatch_args"] = {"kill-on-invalid-dep": "yes", **options["sbatch_args"]}  # if a task failed
    return executor, SlurmExecutor(
        second, tasks=1, job_name="weft-corpus", logging_dir=merging, skip_completed=False, depends=executor, **options
    )


def forget_lost_shards(executor: PipelineExecutor, shards: Shards) -> None:
    """Have those tasks run again that datatrove noted as complete but that lack a shard."""
    for task in range(executor.world_size):
        marker = Path(executor.logging_dir.resolve_paths(f"completions/{task:05d}"))
        if not all(shards.is_whole(file) for file in shards.files_of(task, executor.world_size)):
            marker.unlink(missing_ok=True)


def prepare_many(
    data: DataArguments, cluster: ClusterArguments, folder: Path, plan_only: bool = False
) -> Corpus | None:
    """Prepare a corpus in `folder` with many tasks, or open an earlier one made from the same files and settings.

    Args:
        data: as for `prepare`.

    Returns:
        The corpus. None if it is not made yet: with `plan_only`, and after the tasks were given to Slurm.

    Raises:
        RecipeError: a field or the input is wrong, or a task failed (the shards of the others stay).
    """
    check_can_be_sharded(data)
    cluster.check(len(data.train_files) + len(data.validation_files))
    folder = folder.resolve()
    work = Path(cluster.work_dir).resolve() if cluster.work_dir else folder.with_name(f"{folder.name}.work")
    with only_one_process(work / ".lock", str(work), PATIENCE):
        if (folder / DESCRIPTION).is_file():
            return prepare(data, folder)
        check_output_folder(folder)
        shards = Shards.begin(data, work / "parts")  # as in work folders that were begun before
        making, merging = build_executors(cluster, shards, folder)
        forget_lost_shards(making, shards)
        if plan_only:
            print(describe(making, shards))
            return None
        if isinstance(merging, SlurmExecutor):
            merging.run()
            print(f"given to Slurm; job {merging.job_id} will write {folder}; logs are in {work / 'logs'}")
            return None
        making.run()
        merging.run_task(0)
    return Corpus.open(folder)


def describe(executor: PipelineExecutor, shards: Shards) -> str:
    """Describe the tasks of `executor` and their files, and for Slurm the script."""
    tasks, names = executor.world_size, [source.name for source in shards.sources]
    waiting = [file for file in range(len(names)) if not shards.is_whole(file)]
    lines = [f"{len(names)} files for {tasks} tasks; {len(waiting)} files are to do"]
    for task in range(min(tasks, MOST_TASKS_TOLD)):
        lines.append(f"  task {task}: {some_of([names[file] for file in shards.files_of(task, tasks)])}")
    if tasks > MOST_TASKS_TOLD:
        lines.append(f"  and {tasks - MOST_TASKS_TOLD:,} more")
    return "\n".join([*lines, *([executor.script()] if isinstance(executor, SlurmExecutor) else [])])
