"""A fine-tuning run: what its seeds share, its plan, and the training of one after another."""

import math
from pathlib import Path
from typing import Any

import torch

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json
from weft.recipes.common.hardware import choose_bf16, computes_on_gpu, settle_on_processor, share_cores
from weft.recipes.common.processes import is_first_process, world_size
from weft.recipes.finetuning.arguments import FineTuningArguments, ModelSetupArguments
from weft.recipes.finetuning.collation import EncodedExample
from weft.recipes.finetuning.hyperparameter_search import SearchArguments, search
from weft.recipes.finetuning.model_setup import set_up_model
from weft.recipes.finetuning.plan import make_plan
from weft.recipes.finetuning.report import FinishedSeeds, encode_unlabelled
from weft.recipes.finetuning.run_folder import has_begun
from weft.recipes.finetuning.seed_training import SeedRun
from weft.recipes.finetuning.task import Task
from weft.recipes.finetuning.validation_split import describe_equal_inputs
from weft.recipes.training.learning_rate_schedule import schedule_fields
from weft.recipes.training.model_setup import DEFAULT_EXTRAS, describe_added
from weft.recipes.training.run_folder import METRICS, SETTINGS, start_run
from weft.recipes.training.safeguards import NotFiniteError


def extras_of(setup: ModelSetupArguments, folder: Path) -> dict[str, bool]:
    """What a new model is given unless it is told not to; a run that began before there was such goes on without."""
    if setup.model_name_or_path is not None or setup.config_name is not None:
        return {}
    is_begun = has_begun(folder) or (folder / METRICS).is_file()
    noted = read_json(folder / SETTINGS) if is_begun and (folder / SETTINGS).is_file() else DEFAULT_EXTRAS
    return {name: True for name in DEFAULT_EXTRAS if name in noted}


class FineTuningRun:
    """One run, from its plan to its report."""

    def __init__(
        self, task: Task, parsed: Parsed, fields: dict[str, Any], folder: Path, settings: dict[str, Any]
    ) -> None:
        """Encode all data; refuse, before anything is trained, what cannot be (RecipeError)."""
        self.arguments, self.search_arguments = parsed[FineTuningArguments], parsed[SearchArguments]
        setup = set_up_model(task, parsed[ModelSetupArguments], fields, self.arguments.max_length)
        self.task, self.setup, self.folder, self.settings = task, setup, folder, settings
        self.on_gpu = computes_on_gpu(parsed.trainer.get("use_cpu", False))
        self.threads = share_cores(self.arguments.cpu_threads)
        if not self.on_gpu:
            settle_on_processor()
        self.items: dict[str, list[EncodedExample]] = {
            split: task.encode(split, setup.tokenizer, setup.max_length) for split in task.splits
        }
        self.unlabelled = encode_unlabelled(task, folder, setup.tokenizer, setup.max_length)
        setup.fit_length(max(task.longest(item) for items in self.items.values() for item in items))
        batching = self.arguments.batching
        packed = batching == "packed" or (batching == "auto" and setup.is_weft)
        if packed and not setup.is_weft:
            raise RecipeError("batching packed is for Weft models, which keep documents apart: give grouped or padded.")
        if self.setup.arguments.attn_implementation == "flex_attention" and not self.on_gpu:
            raise RecipeError("flex_attention has no backward pass on a CPU: give attn_implementation sdpa or eager.")
        trainable = [item for item in self.items["train"] if item.target is not None]
        self.seeds: list[int] = settings["seeds"]
        plan = make_plan(self.arguments, len(trainable), world_size())
        schedule_fields(self.arguments, plan.max_steps)  # refuses a schedule that does not fit
        self.seed_run = SeedRun(
            task=task,
            setup=setup,
            arguments=self.arguments,
            plan=plan,
            trainer_fields=parsed.trainer,
            trainable=trainable,
            validation=self.items["validation"],
            collator=task.make_collator(setup.tokenizer, packed),
            grouped=batching == "grouped" or (batching == "auto" and not packed),
            bf16=choose_bf16(parsed.trainer.get("bf16"), self.on_gpu),
        )

    def describe(self) -> str:
        """The plan; raises RecipeError where the model cannot be made."""
        model = self.seed_run.make_model(self.seeds[0])
        lines = [f"  {name:11} {value}" for name, value in self._plan_lines(model)]
        return "\n".join([*lines, *filter(None, [self.task.preview()])])

    def train(self) -> bool:
        """Train every seed and write the finished folder; whether that came to its end."""
        if is_first_process():
            start_run(self.folder, self.settings, has_begun(self.folder))
        seed_run, settings = self.seed_run, self.settings
        if self.search_arguments.search_trials:
            chosen = search(self.search_arguments, self.folder, self.task.best_metric, self._run_trial)
            if chosen is None:
                return False
            seed_run, settings = seed_run.changed(chosen), {**settings, **chosen}
        results = []
        for seed in self.seeds:
            result = seed_run.train(self.folder / f"seed-{seed}", seed)
            if result is None:
                return False
            results.append(result)
        FinishedSeeds(seed_run, settings, self.items, self.unlabelled, self.folder, results).write()
        return True

    def _run_trial(self, folder: Path, chosen: dict[str, Any]) -> float | None:
        """The best score of a training with other settings, NaN where it diverged; None where it was stopped."""
        try:
            result = self.seed_run.changed(chosen).train(folder, self.seeds[0])
        except NotFiniteError:
            return math.nan
        return None if result is None else result.metrics[self.task.best_metric.name]

    def _plan_lines(self, model: torch.nn.Module) -> list[tuple[str, str]]:
        run = self.seed_run
        total = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        tokens = sum(item.tokens for item in run.trainable) / len(run.trainable)
        batching = "packed" if run.collator.packed else "padded, like lengths together" if run.grouped else "padded"
        new = self.setup.new_weights
        return [
            ("examples", ", ".join(f"{split} {number:,}" for split, number in self.task.splits.items())),
            *describe_equal_inputs(
                {split: [*map(self.task.input_of, self.task.examples[split])] for split in self.task.splits},
                self.task.input_name,
            ),
            *self.task.describe(),
            (
                "model",
                f"{total:,} parameters, {self.setup.source}" + (f", {trained:,} trained" if trained < total else ""),
            ),
            *describe_added(self.settings),
            *([("new weights", ", ".join(new[:4]) + (" ..." if len(new) > 4 else ""))] if new else []),
            ("input", f"{tokens:.1f} tokens on average, at most {self.setup.max_length}; {batching}"),
            *run.describe(self.on_gpu, self.threads, self.seeds),
        ]
