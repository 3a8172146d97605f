"""A pretraining run: its plan, its Trainers one after another, and its end."""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from weft.recipes.common.command_line import Parsed, parse_duration
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.processes import check_same_checkpoint, is_first_of_machine, is_first_process
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.prepare import prepare_before_group, report
from weft.recipes.data.streaming.blocks import StreamFolder, open_first_block
from weft.recipes.data.streaming.documents import BlockArguments, StreamArguments, parse_bytes
from weft.recipes.data.streaming.writer import keep_writing
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.description import describe_corpus, plan_lines
from weft.recipes.pretraining.distillation.arguments import TeacherArguments
from weft.recipes.pretraining.distillation.checks import check_kind
from weft.recipes.pretraining.extension import look_at
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.plan import describe
from weft.recipes.pretraining.report import write_report
from weft.recipes.pretraining.setup import PretrainingRun
from weft.recipes.pretraining.time_budget.measurement import describe_budget, forget, plan_within
from weft.recipes.pretraining.time_budget.monitor import BudgetMonitor
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.training.checkpoint_folders import step_of
from weft.recipes.training.model_arguments import ModelArguments
from weft.recipes.training.model_setup import check_existing
from weft.recipes.training.run import carry_out, defaults_of, settings_of
from weft.recipes.training.run_folder import last_checkpoint, note_plan, start_run


def run_objective(objective: Objective, parsed: Parsed) -> None:
    """Carry a run out."""
    arguments, settings = parsed[RunArguments], settings_of(parsed)
    folder = Path(arguments.output_dir)
    carry_out(
        folder,
        arguments,
        look=lambda: look_at(folder, settings, defaults_of(parsed)),
        prepare=lambda: _Training(
            PretrainingRun(objective, parsed, *_open_text(objective, parsed, folder), folder, settings)
        ),
    )


def _open_text(objective: Objective, parsed: Parsed, folder: Path) -> tuple[Corpus, BlockArguments | None]:
    """The prepared text, or the first block of a stream and what its blocks are made of."""
    data, stream, existing = parsed[DataArguments], parsed[StreamArguments], parsed[ModelArguments].model_name_or_path
    if existing is not None:  # before text is prepared for it
        check_existing(existing, objective.model_class)
    if (teacher := parsed[TeacherArguments].teacher) is not None:
        check_kind(teacher, objective)
    if stream.stream:
        blocks = BlockArguments(**asdict(data), block_bytes=parse_bytes(stream.block_size))
        return open_first_block(blocks, StreamFolder(folder)), blocks
    prepared = parsed[RunArguments].data
    return (Corpus.open(prepared) if prepared else prepare_before_group(data, folder / "data")), None


class _Training:
    """Plans and trains a run; each change of its length takes another Trainer."""

    def __init__(self, run: PretrainingRun) -> None:
        self.run = run

    def describe(self) -> str:
        """The plan, after what a budget leaves open was decided."""
        run = self.run
        if is_first_process():
            print(report(run.corpus), flush=True)
        if run.given.budget is not None and run.budget is None:
            run.budget = plan_within(run, run.given.budget)
        lines = plan_lines(run)
        if run.budget is not None:
            lines += describe_budget(run.given.budget, run.budget, run.plan.epochs)
        return describe(run.plan, describe_corpus(run), lines)

    def train(self) -> bool:
        """Train, from the last checkpoint if there is one, and write the report; whether training came to its end."""
        is_new, trainer = last_checkpoint(self.run.folder) is None, self._train()
        return self._finish(trainer, is_new)

    def _train(self) -> PretrainingTrainer:
        run, extension = self.run, self.run.extension
        checkpoint = str(extension.checkpoint) if extension else last_checkpoint(run.folder)
        if is_first_process():
            start_run(run.folder, run.settings)
            if checkpoint is None:
                self._note_plan()
        if run.budget is not None and checkpoint is None and run.last_full_rate is not None:
            run.monitor = BudgetMonitor(run.budget, parse_duration(run.given.budget), run.trainer_fields, run.work)
        trainer = run.make_trainer()
        check_same_checkpoint(checkpoint)
        if extension is not None:
            logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
            if is_first_process():  # when all processes have seen the folder as it was
                extension.apply(run.settings, run.derived())
                print(extension.line(run.plan.max_steps), flush=True)
        if checkpoint and is_first_process():
            print(f"resuming from {checkpoint}", flush=True)
        while True:
            with self._blocks_written(checkpoint):
                trainer.train(resume_from_checkpoint=checkpoint)
            if run.monitor is None or run.monitor.steps is None:
                return trainer
            run.change_length(run.monitor.steps, trainer.state.global_step)
            if is_first_process():
                self._note_plan()
            if trainer.stopped:
                return trainer
            forget(run, trainer)
            # it would warn of evaluating and saving at other steps than before
            logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
            trainer, checkpoint = run.make_trainer(), last_checkpoint(run.folder)
            check_same_checkpoint(checkpoint)

    def _note_plan(self) -> None:
        note_plan(self.run.folder, self.run.derived())

    @contextlib.contextmanager
    def _blocks_written(self, checkpoint: str | None) -> Iterator[None]:
        """Have the blocks of a stream prepared meanwhile; a failure to do so is raised in its own words."""
        run = self.run
        if run.blocks is None:
            yield
            return
        step = step_of(Path(checkpoint)) if checkpoint else 0
        with keep_writing(run.stream, run.blocks, run.rows.block_of(run.plan.steps.before(step))):
            try:
                yield
            except RecipeError:
                run.stream.check()
                raise

    def _finish(self, trainer: PretrainingTrainer, is_new: bool) -> bool:
        run = self.run
        finished = not trainer.stopped
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
        return finished
