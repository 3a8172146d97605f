"""The training of one seed, from a fresh model to its best weights and scores."""

import copy
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from weft.recipes.common.errors import RecipeError, one_line, refusing
from weft.recipes.common.files import read_json, remove_folder
from weft.recipes.common.processes import check_processes, check_same_checkpoint, is_first_process
from weft.recipes.finetuning.adapters import add_adapters, freeze
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.best_weights import (
    RESULT,
    WEIGHTS,
    BestWeights,
    best_of,
    evaluations_of,
    load_weights,
    save_weights,
    step_of_weights,
)
from weft.recipes.finetuning.collation import EncodedExample, PackingCollator
from weft.recipes.finetuning.dataset import TrainingOrder
from weft.recipes.finetuning.model_setup import ModelSetup
from weft.recipes.finetuning.plan import FineTuningPlan, make_plan
from weft.recipes.finetuning.prediction import TaskEvaluator
from weft.recipes.finetuning.task import ModelTask, ScoredTask
from weft.recipes.finetuning.trainer import FineTuningTrainer, SeedResult
from weft.recipes.training.checkpoint_folders import checkpoints_of
from weft.recipes.training.checkpoints import remove_unfinished
from weft.recipes.training.console import Console
from weft.recipes.training.learning_rate_schedule import schedule_fields
from weft.recipes.training.metric_format import median_of
from weft.recipes.training.run_folder import last_checkpoint
from weft.recipes.training.stop_signal import StopSignal
from weft.recipes.training.throughput import Throughput
from weft.recipes.training.trainer import WeftTrainer


class SeedTraining:
    """The training of a seed under any Trainer: begun or resumed, its best weights kept, its result noted.

    A class derived from it has these attributes, `make_model` for a seed, and `_make_trainer`, of a seed's folder, the
    seed, and the callback that keeps the best weights.

    Attributes:
        trainer_fields: fields of TrainingArguments that were given.
    """

    task: ModelTask
    arguments: FineTuningArguments
    plan: FineTuningPlan
    trainer_fields: dict[str, Any]
    bf16: bool

    def train(self, folder: Path, seed: int) -> SeedResult | None:
        """Train, or read what was trained before; None where it was stopped on the way."""
        if (folder / RESULT).is_file():
            return SeedResult(**read_json(folder / RESULT))
        if is_first_process():  # alone, since a folder made before the run is noted down would look like another's
            folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(folder)
            print(f"seed {seed} in {folder}", flush=True)
        best = BestWeights(self.task.best_metric, folder / WEIGHTS, self.arguments.patience)
        with refusing("the run cannot be set up", *(ValueError, TypeError, RuntimeError, ImportError), say=one_line):
            trainer = self._make_trainer(folder, seed, best)
        checkpoint = last_checkpoint(folder)
        check_same_checkpoint(checkpoint)
        if checkpoint and is_first_process():
            print(f"resuming from {checkpoint}", flush=True)
        began = time.perf_counter()
        if checkpoint and best.was_stopped(state := TrainerState.load_from_json(f"{checkpoint}/{TRAINER_STATE_NAME}")):
            trainer.state = state  # killed between the step at which it stopped early and its result
            trainer.callback_handler.on_train_end(trainer.args, state, trainer.control)
        else:
            trainer.train(resume_from_checkpoint=checkpoint)
        if trainer.stopped:
            if is_first_process():
                step = trainer.state.global_step
                print(f"stopped at step {step}: run the same command again to go on", flush=True)
            return None
        if not any(one.step == trainer.state.global_step for one in evaluations_of(trainer.state.log_history)):
            trainer.evaluate()
        if is_first_process() and not best.file.is_file():  # no score was a number: the last weights are as good as any
            save_weights(trainer.model, best.file, trainer.state.global_step)
        trainer.accelerator.wait_for_everyone()
        result = self._result(seed, trainer, best.file, time.perf_counter() - began)
        if is_first_process():
            result.write(folder)
            for checkpoint in checkpoints_of(folder):
                remove_folder(checkpoint)
        trainer.accelerator.wait_for_everyone()
        return result

    def _result(self, seed: int, trainer: WeftTrainer, file: Path, seconds: float) -> SeedResult:
        history = trainer.state.log_history
        evaluations = evaluations_of(history)
        best = best_of(evaluations, self.task.best_metric) or evaluations[-1]
        step, metrics = step_of_weights(file), best.scores
        if step != best.step:
            # Kept just before the run was killed; going on from an earlier checkpoint came to other numbers.
            if is_first_process():
                print(
                    f"seed {seed}: the log has step {best.step} as the best, but the weights kept before the run was "
                    f"interrupted are those of step {step}, and are scored anew",
                    flush=True,
                )
            load_weights(trainer.model, file)
            metrics = trainer.evaluator(trainer)
        speed = median_of(history, "examples_per_second")
        return SeedResult(seed, metrics, step, trainer.state.global_step, round(seconds, 1), speed, history)

    def _shared_parts(self, arguments: TrainingArguments, best: BestWeights, per_step: float) -> dict[str, Any]:
        """What every Trainer is given beside model, rows and evaluator; `per_step` counts examples."""
        plan = self.plan
        check_processes(arguments, plan.processes)
        return {
            "args": arguments,
            "throughput": Throughput(lambda step: step * per_step, unit="examples"),
            "epochs_before": lambda step: step * plan.items_per_step / plan.items,
            "callbacks": [Console(arguments.disable_tqdm, headline=self.task.headline), StopSignal(), best],
        }

    def _trainer_fields(self, folder: Path, seed: int, **defaults: Any) -> dict[str, Any]:
        """Fields of TrainingArguments; what was given one by one replaces the defaults."""
        plan = self.plan
        every = math.ceil(plan.max_steps / self.arguments.evaluations)  # the last is at the end
        return {
            "logging_steps": max(1, min(50, plan.max_steps // 20)),
            "eval_strategy": "steps",
            "eval_steps": every,
            "save_steps": every,
            "save_total_limit": 1,
            "report_to": "none",
            "dataloader_pin_memory": torch.cuda.is_available(),
            "bf16": self.bf16,
            **defaults,
            **self.trainer_fields,
            **schedule_fields(self.arguments, plan.max_steps),
            "weight_decay": self.arguments.weight_decay,
            "output_dir": str(folder),
            "max_steps": plan.max_steps,
            "per_device_train_batch_size": plan.batch_size,
            "gradient_accumulation_steps": plan.accumulation,
            "per_device_eval_batch_size": self.arguments.per_device_eval_batch_size,
            "seed": seed,
            "logging_nan_inf_filter": False,
        }


@dataclass
class SeedRun(SeedTraining):
    """What the trainings of all seeds share.

    Attributes:
        trainable: the training items that have a target.
        validation: the items that choose the weights.
        grouped: whether a batch's examples are of like length.
    """

    task: ScoredTask
    setup: ModelSetup
    arguments: FineTuningArguments
    plan: FineTuningPlan
    trainer_fields: dict[str, Any]
    trainable: list[EncodedExample]
    validation: list[EncodedExample]
    collator: PackingCollator
    grouped: bool
    bf16: bool

    def make_model(self, seed: int) -> nn.Module:
        """The model that a seed begins with, frozen or with adapters as the fields say."""
        model = self.setup.make_model(seed)
        task, arguments = self.task, self.setup.arguments
        freeze(model, arguments, task.new_tokens)
        if arguments.lora_rank is None:
            return model
        return add_adapters(model, arguments, self.setup.new_weights, task.has_own_head, task.new_tokens)

    def changed(self, chosen: dict[str, Any]) -> "SeedRun":
        """The same with other settings: fields of `FineTuningArguments` or of the model's config."""
        if not self.setup.is_weft and not all(hasattr(self.arguments, name) for name in chosen):
            raise RecipeError("search_space has dropouts, which are fields of Weft models only: leave them out.")
        own = {name: value for name, value in chosen.items() if hasattr(self.arguments, name)}
        config = copy.deepcopy(self.setup.config)
        for name, value in chosen.items():
            if name not in own:
                setattr(config, name, value)
        arguments = replace(self.arguments, **own)
        plan = make_plan(arguments, len(self.trainable), self.plan.processes)
        return replace(self, arguments=arguments, plan=plan, setup=replace(self.setup, config=config))

    def _make_trainer(self, folder: Path, seed: int, best: BestWeights) -> WeftTrainer:
        plan = self.plan
        arguments = TrainingArguments(
            # some families have parts that a head leaves out
            **self._trainer_fields(folder, seed, ddp_find_unused_parameters=not self.setup.is_weft),
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            # stacks that only read, T5's encoder for one, refuse it
            use_cache=self.setup.is_weft or not self.task.has_own_head,
        )
        per_step = plan.items_per_step * len({item.example for item in self.trainable}) / plan.items  # examples
        shared = self._shared_parts(arguments, best, per_step)
        model = self.make_model(seed)
        set_seed(seed)
        group = plan.batch_size if self.grouped else 0
        make_trainer = self.task.make_trainer or FineTuningTrainer
        return make_trainer(
            model=model,
            train_dataset=TrainingOrder(self.trainable, seed, plan.max_steps * plan.items_per_step, group),
            data_collator=self._collate,
            processing_class=self.setup.tokenizer,
            evaluator=TaskEvaluator(
                *(self.task, "validation", self.validation, self.collator),
                self.arguments.per_device_eval_batch_size,
            ),
            task=self.task,
            layer_decay=self.setup.arguments.layer_decay,
            **shared,
        )

    def _collate(self, items: list[EncodedExample]) -> dict[str, torch.Tensor]:
        batch, layout = self.collator.lay_out(items)
        return {**batch, **self.task.targets(layout)}
