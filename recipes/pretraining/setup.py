"""A pretraining run: what follows from its fields, its text and its machine, and the Trainer made of it."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments, set_seed

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError, one_line
from weft.recipes.common.hardware import choose_bf16, computes_on_gpu, settle_on_processor, share_cores
from weft.recipes.common.processes import check_processes, world_size
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.prepare import check_same_corpus
from weft.recipes.data.streaming.blocks import StreamFolder
from weft.recipes.data.streaming.documents import BlockArguments
from weft.recipes.pretraining.arguments import LENGTHS, RunArguments
from weft.recipes.pretraining.checks import check_sharding
from weft.recipes.pretraining.distillation.arguments import TeacherArguments
from weft.recipes.pretraining.distillation.teacher import Teacher
from weft.recipes.pretraining.extension import find_extension
from weft.recipes.pretraining.hyperparameters import HYPERPARAMETERS, with_hyperparameters
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.plan import Plan, make_plan
from weft.recipes.pretraining.samples import check_sample_prompt
from weft.recipes.pretraining.sources import check_stages, mixture_of_run
from weft.recipes.pretraining.stream_dataset import StreamRows
from weft.recipes.pretraining.time_budget.arithmetic import TIMES
from weft.recipes.pretraining.time_budget.monitor import BudgetMonitor
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.pretraining.validation_files import losses_on_files, make_evaluator
from weft.recipes.pretraining.word_revisions import word_checkpoints
from weft.recipes.training.batch_schedule import steps_of
from weft.recipes.training.console import Console
from weft.recipes.training.learning_rate_schedule import schedule_fields
from weft.recipes.training.model_setup import (
    DEFAULT_EXTRAS,
    PRESETS,
    ModelArguments,
    count_parameters,
    make_config,
    make_model,
)
from weft.recipes.training.run import defaults_of
from weft.recipes.training.run_folder import noted_plan
from weft.recipes.training.sharding import shards_weights
from weft.recipes.training.stop_signal import StopSignal
from weft.recipes.training.throughput import Throughput, measure_matmul_flops
from weft.recipes.training.zero3 import keep_models_whole

MOST_PLACES = 1000  # steps of which the cost is looked at, for that of all
KEPT = ("warmup_steps", "decay_steps", "batch_ramp_steps")
GPU_WORKERS = 4  # processes that make rows while the GPU computes; on a CPU they would take its cores

# Fields with which a model has a size of its own.
SIZE_FIELDS = {"preset", "config_name", "model_name_or_path", *(name for shape in PRESETS.values() for name in shape)}
SIZE_FIELDS |= {"intermediate_size", "head_dim"}


class PretrainingRun:
    """One run: its text, rows, evaluator, model shape, plan, schedule and Trainer.

    A budget may change its size and length, so `configure` may be called again, and another Trainer may follow.
    """

    # Of all Trainers of the run.
    monitor: BudgetMonitor | None = None
    console: Console | None = None
    stop_signal: StopSignal | None = None
    peak_flops: float | None = None
    # Operations for a token in the average step of the run as it was measured.
    mean_operations: float

    def __init__(
        self,
        objective: Objective,
        parsed: Parsed,
        corpus: Corpus,
        blocks: BlockArguments | None,
        folder: Path,
        settings: dict[str, Any],
    ) -> None:
        """Args:
        corpus: to train on and to evaluate with.
        blocks: of the stream whose first block `corpus` is; None: there is no stream.
        settings: all fields, as run.json notes them.
        """
        self.began = time.perf_counter()
        self.objective, self.corpus, self.folder, self.settings = objective, corpus, folder, settings
        self.blocks, self.stream = blocks, StreamFolder(folder)
        self.given, self.model_arguments = parsed[RunArguments], parsed[ModelArguments]
        self.extension = find_extension(folder, settings, defaults_of(parsed))
        noted = noted_plan(folder) | (self.extension.kept if self.extension else {})
        has_shape = self.model_arguments.config_name or self.model_arguments.model_name_or_path
        is_new = not noted and not objective.is_plain
        # a run that began before there were such fields noted none of them
        self.extras = {} if has_shape else {name: noted.pop(name, is_new) for name in DEFAULT_EXTRAS}
        self.extras |= {name: value for name, value in parsed.model.items() if name in self.extras}
        self.model_fields, self.trainer_fields = {**parsed.model, **self.extras}, parsed.trainer
        self.presets = (None,) if SIZE_FIELDS & parsed.given else tuple(PRESETS)
        self.tokenizer = objective.prepare_tokenizer(corpus.tokenizer())
        length, self.processes = self.given.sequence_length, world_size()
        self.packed = objective.pack(corpus, length, self.given.seed, self.tokenizer)
        self.mixture = mixture_of_run(corpus, parsed[DataArguments], self.given)
        if self.mixture is not None:
            self.packed.mix(self.mixture)
        self.rows_per_epoch = None if blocks else self.packed.rows_per_epoch
        self.on_gpu = computes_on_gpu(parsed.trainer.get("use_cpu", False))
        self.bf16 = choose_bf16(parsed.trainer.get("bf16"), self.on_gpu)
        self.threads = share_cores(self.given.cpu_threads)
        if not self.on_gpu:
            settle_on_processor()
        taught, longest = parsed[TeacherArguments], objective.longest_input(length)
        self.teacher = Teacher(taught, objective, self.tokenizer, longest, self.bf16) if taught.teacher else None
        if self.teacher is not None:
            self.teacher.check_same(noted.pop("teacher", None))
        self.evaluator = make_evaluator(objective, corpus, length, self.tokenizer)
        # fields of the schedule that stayed as they were when the length of the run changed
        self.kept = {name: noted[name] for name in KEPT if name in noted}
        self.budget: dict[str, Any] | None = noted.pop("budget", None)
        if self.given.budget is None or noted:
            self.configure(**noted)
        if self.extension is not None:
            self.extension.check(self.plan.max_steps)

    def configure(self, preset: str | None = None, **fields: Any) -> None:
        """Become the run of that preset (None: as given) with these fields; one that gives the length replaces all."""
        replaced = dict.fromkeys(LENGTHS) if fields.keys() & set(LENGTHS) else {}
        arguments = replace(self.given, **{**replaced, **fields})
        if preset is not None:
            self.model_arguments = replace(self.model_arguments, preset=preset)
        length, role = self.objective.longest_input(arguments.sequence_length), self.objective.role()
        is_row = length == arguments.sequence_length
        named = "sequence_length" if is_row else "sequence_length and what stands around a text"
        self.config = make_config(self.model_arguments, self.model_fields, self.tokenizer, length, role, named)
        self.objective.check_model(self.config)
        self.tokenizer.model_max_length = self.config.max_position_embeddings
        check_sample_prompt(self.config, self.tokenizer, arguments.sample_prompt)
        self.parameters = count_parameters(self.config, self.objective.model_class)
        # Muon does not know what Trainer or sharding offer beside it
        default = "adamw" if shards_weights() or "optim" in self.trainer_fields else "muon"
        self.arguments = with_hyperparameters(arguments, self.parameters, self.rows_per_epoch, self.processes, default)
        if shards_weights():
            check_sharding(self.arguments, self.trainer_fields)
        self.plan: Plan = make_plan(self.arguments, self.rows_per_epoch, self.processes, self.on_gpu)
        self.schedule = schedule_fields(self.arguments, self.plan.max_steps)
        if self.mixture is not None:
            check_stages(self.mixture, self.plan.max_steps)
            self.packed.mix(self.mixture, self.plan.steps)
        self.rows = self.objective.make_rows(self.packed, self.plan)
        if self.blocks:
            self.rows = StreamRows(self.stream, self.objective, self.packed, self.plan, arguments.seed, self.tokenizer)

    def hyperparameters(self) -> dict[str, Any]:
        """The fields that were filled in or decided: `configure` makes the same run of them again."""
        values = {name: getattr(self.arguments, name) for name in (*HYPERPARAMETERS, "optimizer")}
        if self.budget is not None:
            values |= {"max_steps": self.plan.max_steps, "preset": self.model_arguments.preset}
        return values | self.kept

    def derived(self) -> dict[str, Any]:
        """What plan.json notes for a resumed run to keep."""
        parts = {"budget": self.budget, "teacher": None if self.teacher is None else self.teacher.fingerprint}
        parts = {name: value for name, value in parts.items() if value is not None}
        return self.hyperparameters() | self.extras | parts

    @property
    def last_full_rate(self) -> int | None:
        """The step up to which the learning rate does not depend on the length of the run; None: it always does."""
        kind = self.arguments.lr_scheduler_type
        if kind == "constant":
            return self.plan.max_steps
        if kind != "warmup_stable_decay":
            return None
        return self.plan.max_steps - self.schedule["lr_scheduler_kwargs"]["num_decay_steps"]

    def change_length(self, steps: int, done: int) -> None:
        """Become a run of `steps` steps, with the learning rates of this one in the first `done`."""
        decay = min(steps_of(self.given.decay_steps, steps), steps - done)
        self.kept = {"warmup_steps": self.schedule["warmup_steps"], "decay_steps": decay}
        self.configure(**self.hyperparameters() | {"max_steps": steps})

    def head_share(self, steps: int, first: int = 0, last: int | None = None) -> float:
        """The share of the tokens that the head is computed for in the steps from `first` to before `last` of a run of
        so many, on average."""
        last = min(steps, steps if last is None else last)
        first = min(first, last - 1)
        places = np.linspace(first, last - 1, min(last - first, MOST_PLACES)).astype(np.int64)
        shares = self.objective.head_shares(places, steps)
        return float(shares[0] if np.ptp(shares) == 0 else shares.mean())

    def flops_per_token(self, head_share: float) -> float:
        """Operations for each token of a row in a step with that head, but for a teacher's."""
        return self.objective.flops_per_token(self.config, self.parameters, self.plan.sequence_length, head_share)

    def teacher_flops_per_token(self, head_share: float) -> float:
        """The same of a teacher."""
        return 0.0 if self.teacher is None else self.teacher.flops_per_token(head_share, self.objective.side_shares())

    def operations(self, steps: int, first: int = 0, last: int | None = None) -> float:
        """All operations for a token in these steps, on average."""
        share = self.head_share(steps, first, last)
        return self.flops_per_token(share) + self.teacher_flops_per_token(share)

    def work(self, steps: int, first: int = 0, last: int | None = None) -> float:
        """What these steps cost, in average steps of the run as it was when it was measured."""
        number = (steps if last is None else last) - first
        return number * (self.operations(steps, first, last) / self.mean_operations) if number else 0

    def make_trainer(
        self, changes: dict[str, Any] | None = None, clock: TrainerCallback | None = None
    ) -> PretrainingTrainer:
        """Make the run's Trainer, or one that only measures.

        Args:
            changes: fields of TrainingArguments for measuring; None: the run.
            clock: the only callback while measuring.

        Raises:
            RecipeError: it cannot be set up.
        """
        try:
            return self._make_trainer(changes, clock)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, TypeError, RuntimeError, ImportError) as error:
            raise RecipeError(f"the run cannot be set up: {one_line(error)}") from error

    def _make_trainer(self, changes: dict[str, Any] | None, clock: TrainerCallback | None) -> PretrainingTrainer:
        plan, arguments = self.plan, self._training_arguments()
        for name, value in (changes or {}).items():
            setattr(arguments, name, value)
        check_processes(arguments, plan.processes)
        check_same_corpus(self.corpus)
        set_seed(self.arguments.seed)
        keep_models_whole()
        made = make_model(self.model_arguments, self.config, self.objective.model_class, self.tokenizer)
        model = self.objective.trained(made)
        if self.peak_flops is None:  # once, so that the whole run is compared with the same
            self.peak_flops = self._measure_peak(arguments.device)
        if self.teacher is not None:
            self.teacher.model.to(arguments.device)
        trainer = PretrainingTrainer(
            model=model,
            args=arguments,
            # measuring stays within the first block of a stream
            train_dataset=self.rows if changes is None else self.objective.make_rows(self.packed, plan),
            processing_class=self.tokenizer,
            evaluator=self.evaluator,
            throughput=Throughput(
                plan.tokens_before,
                lambda first, last: self.operations(plan.max_steps, first, last),
                self.peak_flops,
                measure_again=lambda: self._measure_peak(arguments.device, 1),
            ),
            epochs_before=plan.epochs_before,
            batches=plan.batches,
            objective=self.objective,
            run=self.arguments,
            teacher=self.teacher,
            callbacks=self._callbacks(arguments.disable_tqdm) if clock is None else [clock],
        )
        # from which the run can be made longer; a limit that is given is all that is kept
        trainer.kept_up_to = None if "save_total_limit" in self.trainer_fields else self.last_full_rate
        return trainer

    def _measure_peak(self, device: torch.device, attempt: int = 0) -> float:
        """The matrix-product rate of all processes' devices together, the best of what was measured."""
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        of_one = measure_matmul_flops(device, dtype, torch.get_num_threads(), attempt=attempt)
        self.peak_flops = max(self.peak_flops or 0, self.plan.processes * of_one)
        return self.peak_flops

    def _training_arguments(self) -> TrainingArguments:
        plan, evaluations = self.plan, TIMES if self.budget is None else self.budget["evaluations"]
        return TrainingArguments(
            **{
                "logging_steps": max(1, min(50, plan.max_steps // 50)),
                "logging_first_step": True,
                "eval_strategy": "steps",
                "eval_steps": math.ceil(plan.max_steps / evaluations),  # the last is at the last step
                "save_steps": math.ceil(plan.max_steps / TIMES),
                "save_total_limit": 2 if self.arguments.hub_revisions == "false" else None,
                "per_device_eval_batch_size": plan.micro_batch,
                "report_to": "none",
                "ddp_find_unused_parameters": False,
                "dataloader_pin_memory": torch.cuda.is_available(),
                "dataloader_num_workers": GPU_WORKERS if self.on_gpu else 0,
                "bf16": self.bf16,
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

    def _callbacks(self, disable_bar: bool) -> list[TrainerCallback]:
        """What watches the run: the terminal, signals, and the monitor of a budget, which lets a signal go first."""
        shown = losses_on_files(self.evaluator), self.objective.formats
        self.console = self.console or Console(disable_bar, self.blocks is None, *shown)
        self.stop_signal = StopSignal(self.stop_signal is not None and self.stop_signal.received)
        callbacks = [self.console, self.stop_signal]
        if self.arguments.hub_revisions == "words":
            callbacks.append(word_checkpoints(self.corpus, self.packed.num_places, self.plan, self.folder))
        if self.monitor is not None:
            least = max(self.objective.min_steps(), self.mixture.min_steps() if self.mixture else 1)
            self.monitor.begin(self.schedule["warmup_steps"], self.last_full_rate, least)
            callbacks.append(self.monitor)
        return callbacks
