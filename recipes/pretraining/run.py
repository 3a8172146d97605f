"""A pretraining run from its fields to a published model: what every objective shares."""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from weft.recipes.common.command_line import Parsed, parse_arguments, parse_duration
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import only_one_process
from weft.recipes.common.hardware import choose_bf16
from weft.recipes.common.processes import (
    check_launcher,
    check_processes,
    check_same_checkpoint,
    end_group,
    end_with_launcher,
    is_first_of_machine,
    is_first_process,
    world_size,
)
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.prepare import check_same_corpus, prepare_before_group, report
from weft.recipes.data.streaming.blocks import StreamFolder, open_first_block
from weft.recipes.data.streaming.documents import BlockArguments, StreamArguments, parse_bytes
from weft.recipes.data.streaming.writer import keep_writing
from weft.recipes.pretraining.arguments import LENGTHS, RunArguments
from weft.recipes.pretraining.checks import check_fields, check_objective
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.plan import describe
from weft.recipes.pretraining.report import FinishedRun
from weft.recipes.pretraining.setup import RunSetup
from weft.recipes.pretraining.time_budget.arithmetic import TIMES
from weft.recipes.pretraining.time_budget.measurement import forget, plan_within
from weft.recipes.pretraining.time_budget.monitor import Pace
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.training.console import Console
from weft.recipes.training.hub import publish
from weft.recipes.training.model_setup import ModelArguments, make_model
from weft.recipes.training.run_folder import RunState, last_checkpoint, note_plan, open_run, start_run
from weft.recipes.training.stop_signal import StopSignal
from weft.recipes.training.throughput import Throughput, measure_matmul_flops, training_flops_per_token
from weft.recipes.training.zero3 import keep_models_whole

GPU_WORKERS = 4  # processes that make rows while the GPU computes; on a CPU they would take its cores


def pretrain(
    make_objective: Callable[[Parsed], Objective],
    groups: Sequence[type],
    description: str | None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the command line and carry the run out: plan, train or resume, evaluate, report, publish.

    Args:
        make_objective: makes the objective out of the recipe's fields.
        groups: dataclasses of fields: a `RunArguments`, then the recipe's own.
        description: the recipe's docstring.
        argv: the words after the program's name; None: this process's.
    """
    end_with_launcher()
    check_launcher(can_shard=True)
    all_groups = [groups[0], DataArguments, ModelArguments, *groups[1:], StreamArguments]
    parsed = parse_arguments(description, all_groups, True, True, argv, alternatives=LENGTHS)
    run, data, stream = parsed[RunArguments], parsed[DataArguments], parsed[StreamArguments]
    folder = Path(run.output_dir)
    check_fields(parsed)
    objective = make_objective(parsed)
    check_objective(objective, parsed)
    if not run.data:
        objective.require(data)
    settings = {name: value for group in parsed.groups for name, value in asdict(group).items()}
    settings |= {**parsed.model, **parsed.trainer, "processes": world_size()}
    lock = contextlib.nullcontext()
    if is_first_process() and not run.plan:
        open_run(folder, settings)  # before the lock, so that none is left in a folder that is refused
        lock = only_one_process(folder / ".lock", str(folder))
    with lock:
        if not run.plan and open_run(folder, settings) is RunState.FINISHED:
            if is_first_process():
                print(f"{folder} is finished: nothing to do (give another --output_dir for a new run)")
                _publish(run, folder)
            return
        blocks = None
        if stream.stream:
            blocks = BlockArguments(**asdict(data), block_bytes=parse_bytes(stream.block_size))
            corpus = open_first_block(blocks, StreamFolder(folder))
        else:
            corpus = Corpus.open(run.data) if run.data else prepare_before_group(data, folder / "data")
        finished = _Run(objective, parsed, corpus, blocks, folder, settings).carry_out()
        if finished and is_first_process():  # after the group is gone: uploads may take longer than its time limit
            _publish(run, folder)


class _Run(RunSetup):
    """One run, from its plan to its report. What follows outlives a Trainer: a run may go on with another one."""

    pace: Pace | None = None
    stop: StopSignal | None = None
    console: Console | None = None
    peak_flops: float | None = None

    def carry_out(self) -> bool:
        """Train, and finish if training came to its end; returns whether it did."""
        bf16 = self.bf16 = choose_bf16(self.trainer_fields.get("bf16"), self.on_gpu)
        if is_first_process():
            print(report(self.corpus), flush=True)
        if self.given.budget is not None and self.budget is None:
            self.budget = plan_within(self, self.given.budget)
        if is_first_process():
            print(f"plan of {self.folder}")
            print(describe(self.plan, self.describe_corpus(), self.plan_lines(bf16)), flush=True)
        if self.arguments.plan:
            return False
        checkpoint = first = last_checkpoint(self.folder)
        if is_first_process():
            start_run(self.folder, self.settings)
            if checkpoint is None:
                self._note_plan()
        if self.budget is not None and checkpoint is None and self.last_full_rate is not None:
            self.pace = Pace(self.budget, parse_duration(self.given.budget), self.trainer_fields)
        trainer = self.make_trainer()
        check_same_checkpoint(checkpoint)
        if checkpoint and is_first_process():
            print(f"resuming from {checkpoint}", flush=True)
        while True:
            with self._blocks_written(checkpoint):
                trainer.train(resume_from_checkpoint=checkpoint)
            if self.pace is None or self.pace.steps is None:
                break
            self.change_length(self.pace.steps, trainer.state.global_step)
            if is_first_process():
                self._note_plan()
            forget(self, trainer)
            # of evaluating and saving at other steps than before
            logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)
            trainer, checkpoint = self.make_trainer(), last_checkpoint(self.folder)
            check_same_checkpoint(checkpoint)
        finished = trainer.state.global_step >= self.plan.max_steps
        if not finished:
            if is_first_process():
                print(f"stopped at step {trainer.state.global_step}: run the same command again to go on", flush=True)
        else:
            self._finished().write(trainer)
            if self.budget and not first and is_first_process():
                took, predicted = time.perf_counter() - self.began, self.budget["predicted_seconds"]
                print(f"budget {self.given.budget}: {predicted:,.0f} s predicted, {took:,.0f} s taken", flush=True)
        trainer.accelerator.wait_for_everyone()
        if finished and self.blocks and is_first_of_machine():
            self.stream.remove()
        end_group()
        return finished

    def _note_plan(self) -> None:
        note_plan(self.folder, self.derived() | self.added | ({} if self.budget is None else {"budget": self.budget}))

    def make_trainer(
        self, trial: dict[str, Any] | None = None, clock: TrainerCallback | None = None
    ) -> PretrainingTrainer:
        """The run's Trainer.

        Args:
            trial: fields of TrainingArguments for one that only measures, with the callback `clock`; None: the run.

        Raises:
            RecipeError: it cannot be set up.
        """
        try:
            return self._make_trainer(self.bf16, trial, clock)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, TypeError, RuntimeError, ImportError) as error:
            raise RecipeError(f"the run cannot be set up: {' '.join(str(error).split())}") from error

    @contextlib.contextmanager
    def _blocks_written(self, checkpoint: str | None) -> Iterator[None]:
        """Have the blocks of a stream prepared where there is one; a failure to do so is raised in its own words."""
        if self.blocks is None:
            yield
            return
        step = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
        with keep_writing(self.stream, self.blocks, self.rows.block_of(self.plan.steps.before(step))):
            try:
                yield
            except RecipeError:
                self.stream.check()
                raise

    def _make_trainer(
        self, bf16: bool, trial: dict[str, Any] | None, clock: TrainerCallback | None
    ) -> PretrainingTrainer:
        plan, tokenizer = self.plan, self.tokenizer
        every = math.ceil(plan.max_steps / TIMES)  # the last is at the last step
        trainer_arguments = TrainingArguments(
            **{
                "logging_steps": max(1, min(50, plan.max_steps // 50)),
                "logging_first_step": True,
                "eval_strategy": "steps",
                "eval_steps": math.ceil(plan.max_steps / self.evaluations),
                "save_steps": every,
                "save_total_limit": None if self.arguments.hub_revisions else 2,
                "per_device_eval_batch_size": plan.micro_batch,
                "report_to": "none",
                "ddp_find_unused_parameters": False,
                "dataloader_pin_memory": torch.cuda.is_available(),
                "dataloader_num_workers": GPU_WORKERS if self.on_gpu else 0,
                "bf16": bf16,
                **self.trainer_fields,
            },
            **self.schedule,
            output_dir=str(self.folder),
            max_steps=plan.max_steps,
            per_device_train_batch_size=plan.micro_batch,
            gradient_accumulation_steps=plan.accumulation,
            weight_decay=self.arguments.weight_decay,
            adam_beta2=self.arguments.adam_beta2,
            seed=self.arguments.seed,
            remove_unused_columns=False,
            use_cache=True,
            logging_nan_inf_filter=False,
        )
        for name, value in (trial or {}).items():
            setattr(trainer_arguments, name, value)
        check_processes(trainer_arguments, plan.processes)
        check_same_corpus(self.corpus)
        set_seed(self.arguments.seed)
        keep_models_whole()
        model = make_model(self.model_arguments, self.config, self.objective.model_class)
        if self.peak_flops is None:  # once, so that all of a run is compared with the same
            dtype = torch.bfloat16 if bf16 else torch.float32
            of_one = measure_matmul_flops(trainer_arguments.device, dtype, torch.get_num_threads())
            self.peak_flops = plan.processes * of_one
        throughput = Throughput(
            plan.tokens_before,
            training_flops_per_token(self.config, self.parameters, plan.sequence_length, self.objective.head_share()),
            self.peak_flops,
        )
        trainer = PretrainingTrainer(
            model=model,
            args=trainer_arguments,
            # a trial stays within the first block of a stream
            train_dataset=self.rows if trial is None else self.objective.make_rows(self.layout, plan),
            data_collator=self.objective.collate,
            processing_class=tokenizer,
            evaluator=self.evaluator,
            throughput=throughput,
            epochs_before=plan.epochs_before,
            batches=plan.batches,
            run=self.arguments,
            callbacks=self._callbacks(trainer_arguments.disable_tqdm) if clock is None else [clock],
        )
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _callbacks(self, disable_bar: bool) -> list[TrainerCallback]:
        """What watches the run: the terminal, signals, and where there is a budget the clock (which lets a signal go
        first)."""
        self.console = self.console or Console(disable_bar or not sys.stderr.isatty(), self.blocks is None)
        self.stop = StopSignal(self.stop is not None and self.stop.received)
        callbacks = [self.console, self.stop]
        if self.pace is not None:
            self.pace.begin(self.schedule["warmup_steps"], self.last_full_rate, self.objective.least_steps())
            callbacks.append(self.pace)
        return callbacks

    def _finished(self) -> FinishedRun:
        return FinishedRun(
            objective=self.objective,
            arguments=self.arguments,
            settings=self.settings | self.added | self.derived(),
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            plan=self.plan,
            parameters=self.parameters.total,
            folder=self.folder,
        )


def _publish(arguments: RunArguments, folder: Path) -> None:
    if arguments.push_to_hub is not None:
        address = publish(folder, arguments.push_to_hub, arguments.hub_revisions, arguments.hub_private_repo)
        print(f"published as {address}", flush=True)


transformers.logging.disable_progress_bar()
