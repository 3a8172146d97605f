"""A pretraining run from its fields to a published model: open, lock, plan, train or resume, report, publish."""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import transformers

from weft.recipes.common.command_line import Parsed, parse_duration
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import only_one_process
from weft.recipes.common.processes import (
    check_same_checkpoint,
    end_group,
    is_first_of_machine,
    is_first_process,
    world_size,
)
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.prepare import prepare_before_group, report
from weft.recipes.data.streaming.blocks import StreamFolder, open_first_block
from weft.recipes.data.streaming.documents import BlockArguments, StreamArguments, parse_bytes
from weft.recipes.data.streaming.writer import keep_writing
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.plan import describe
from weft.recipes.pretraining.report import write_report
from weft.recipes.pretraining.setup import PretrainingRun
from weft.recipes.pretraining.time_budget.measurement import describe_budget, forget, plan_within
from weft.recipes.pretraining.time_budget.monitor import BudgetMonitor
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.training.hub import publish
from weft.recipes.training.run_folder import RunState, last_checkpoint, note_plan, open_run, start_run


def pretrain(objective: Objective, parsed: Parsed) -> None:
    """Carry a run out.

    Args:
        objective: the one that was chosen.
        parsed: the fields of the command line, which `read_fields` checked.
    """
    arguments = parsed[RunArguments]
    settings = {name: value for group in parsed.groups for name, value in asdict(group).items()}
    settings |= {**parsed.model, **parsed.trainer, "processes": world_size()}
    folder = Path(arguments.output_dir)
    with _opened(folder, settings, arguments.plan) as state:
        if state is RunState.FINISHED:
            if is_first_process():
                print(f"{folder} is finished: nothing to do (give another --output_dir for a new run)")
                _publish(arguments, folder)
            return
        run = PretrainingRun(objective, parsed, *_open_text(parsed, folder), folder, settings)
        _plan(run)
        if arguments.plan:
            return
        is_new, trainer = last_checkpoint(folder) is None, _train(run)
        finished = _finish(run, trainer, is_new)
        if finished and is_first_process():  # after the group is gone: uploads may take longer than its time limit
            _publish(arguments, folder)


@contextlib.contextmanager
def _opened(folder: Path, settings: dict[str, Any], is_plan: bool) -> Iterator[RunState]:
    """Look at the run's folder, and lock it unless the run is only planned."""
    if is_plan:
        yield RunState.NEW
        return
    lock = contextlib.nullcontext()
    if is_first_process():
        open_run(folder, settings)  # before the lock, so that none is left in a folder that is refused
        lock = only_one_process(folder / ".lock", str(folder))
    with lock:
        yield open_run(folder, settings)


def _open_text(parsed: Parsed, folder: Path) -> tuple[Corpus, BlockArguments | None]:
    """The prepared text, or the first block of a stream and what its blocks are made of."""
    data, stream = parsed[DataArguments], parsed[StreamArguments]
    if stream.stream:
        blocks = BlockArguments(**asdict(data), block_bytes=parse_bytes(stream.block_size))
        return open_first_block(blocks, StreamFolder(folder)), blocks
    prepared = parsed[RunArguments].data
    return (Corpus.open(prepared) if prepared else prepare_before_group(data, folder / "data")), None


def _plan(run: PretrainingRun) -> None:
    """Decide what a budget leaves open, and print the plan."""
    if is_first_process():
        print(report(run.corpus), flush=True)
    if run.given.budget is not None and run.budget is None:
        run.budget = plan_within(run, run.given.budget)
    if is_first_process():
        lines = run.plan_lines()
        if run.budget is not None:
            lines += describe_budget(run.given.budget, run.budget, run.plan.epochs)
        print(f"plan of {run.folder}")
        print(describe(run.plan, run.describe_corpus(), lines), flush=True)


def _train(run: PretrainingRun) -> PretrainingTrainer:
    """Train, from the last checkpoint if there is one; each change of the length takes another Trainer."""
    checkpoint = last_checkpoint(run.folder)
    if is_first_process():
        start_run(run.folder, run.settings)
        if checkpoint is None:
            _note_plan(run)
    if run.budget is not None and checkpoint is None and run.last_full_rate is not None:
        run.monitor = BudgetMonitor(run.budget, parse_duration(run.given.budget), run.trainer_fields)
    trainer = run.make_trainer()
    check_same_checkpoint(checkpoint)
    if checkpoint and is_first_process():
        print(f"resuming from {checkpoint}", flush=True)
    while True:
        with _blocks_written(run, checkpoint):
            trainer.train(resume_from_checkpoint=checkpoint)
        if run.monitor is None or run.monitor.steps is None:
            return trainer
        run.change_length(run.monitor.steps, trainer.state.global_step)
        if is_first_process():
            _note_plan(run)
        forget(run, trainer)
        # it would warn of evaluating and saving at other steps than before
        logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
        trainer, checkpoint = run.make_trainer(), last_checkpoint(run.folder)
        check_same_checkpoint(checkpoint)


def _note_plan(run: PretrainingRun) -> None:
    budget = {} if run.budget is None else {"budget": run.budget}
    note_plan(run.folder, run.hyperparameters() | run.extras | budget)


@contextlib.contextmanager
def _blocks_written(run: PretrainingRun, checkpoint: str | None) -> Iterator[None]:
    """Have the blocks of a stream prepared meanwhile; a failure to do so is raised in its own words."""
    if run.blocks is None:
        yield
        return
    step = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    with keep_writing(run.stream, run.blocks, run.rows.block_of(run.plan.steps.before(step))):
        try:
            yield
        except RecipeError:
            run.stream.check()
            raise


def _finish(run: PretrainingRun, trainer: PretrainingTrainer, is_new: bool) -> bool:
    """Write the report if training came to its end, and leave the group of processes; returns whether it did."""
    finished = trainer.state.global_step >= run.plan.max_steps
    if finished:
        write_report(run, trainer)
        if run.budget and is_new and is_first_process():
            took, predicted = time.perf_counter() - run.began, run.budget["predicted_seconds"]
            print(f"budget {run.given.budget}: {predicted:,.0f} s predicted, {took:,.0f} s taken", flush=True)
    elif is_first_process():
        print(f"stopped at step {trainer.state.global_step}: run the same command again to go on", flush=True)
    trainer.accelerator.wait_for_everyone()
    if finished and run.blocks and is_first_of_machine():
        run.stream.remove()
    end_group()
    return finished


def _publish(arguments: RunArguments, folder: Path) -> None:
    if arguments.push_to_hub is not None:
        address = publish(folder, arguments.push_to_hub, arguments.hub_revisions, arguments.hub_private_repo)
        print(f"published as {address}", flush=True)


transformers.logging.disable_progress_bar()
