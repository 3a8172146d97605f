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
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import FileArguments, FineTuningArguments, ModelSetupArguments
from weft.recipes.finetuning.hyperparameter_search import SearchArguments, search
from weft.recipes.finetuning.model_setup import set_up_model
from weft.recipes.finetuning.plan import make_plan
from weft.recipes.finetuning.report import FinishedSeeds, encode_unlabelled
from weft.recipes.finetuning.run_folder import fingerprint, has_begun
from weft.recipes.finetuning.seed_training import SeedRun, SeedTraining
from weft.recipes.finetuning.task import Items, ScoredTask
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.finetuning.validation_split import describe_equal_inputs
from weft.recipes.training.learning_rate_schedule import schedule_fields
from weft.recipes.training.model_setup import DEFAULT_EXTRAS, describe_added
from weft.recipes.training.run import settings_of
from weft.recipes.training.run_folder import METRICS, SETTINGS, start_run
from weft.recipes.training.safeguards import NotFiniteError


def extras_of(setup: ModelSetupArguments, folder: Path) -> dict[str, bool]:
    """What a new model is given unless it is told not to; a run that began before there was such goes on without."""
    if setup.model_name_or_path is not None or setup.config_name is not None:
        return {}
    is_begun = has_begun(folder) or (folder / METRICS).is_file()
    noted = read_json(folder / SETTINGS) if is_begun and (folder / SETTINGS).is_file() else DEFAULT_EXTRAS
    return {name: True for name in DEFAULT_EXTRAS if name in noted}


def folder_and_settings(parsed: Parsed, name: str, examples: int) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A run's folder, the fields of its model, and all that run.json notes; raises RecipeError where it is a file.

    Args:
        name: of the folder in runs/, where output_dir is not given.
        examples: how many there are to learn from.
    """
    arguments = parsed[FineTuningArguments]
    folder = Path(arguments.output_dir or f"runs/{name}")
    arguments.output_dir = str(folder)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"output_dir {folder} is a file: give another.")
    fields = {**extras_of(parsed[ModelSetupArguments], folder), **parsed.model}
    files = parsed[FileArguments]
    noted = {"command": files.command, "files": fingerprint(files), "seeds": arguments.seeds_for(examples)}
    return folder, fields, {**settings_of(parsed), **fields, **noted}


class SeededRun:
    """A run that trains one seed after another, under any Trainer: its plan, its training, its report.

    A class derived from it has `seed_run`, which trains a seed, `_plan_lines` of data and model, and `_finished`, which
    reports what the seeds have come to.
    """

    seed_run: SeedTraining

    def __init__(self, parsed: Parsed, folder: Path, settings: dict[str, Any]) -> None:
        self.arguments, self.folder, self.settings = parsed[FineTuningArguments], folder, settings
        self.seeds: list[int] = settings["seeds"]
        self.on_gpu = computes_on_gpu(parsed.trainer.get("use_cpu", False))
        self.threads = share_cores(self.arguments.cpu_threads)
        if not self.on_gpu:
            settle_on_processor()

    def describe(self) -> str:
        """The plan; raises RecipeError where the model cannot be made."""
        run, arguments = self.seed_run, self.arguments
        rates = f"learning rate {arguments.learning_rate:g}, weight decay {arguments.weight_decay:g}"
        lines = [
            *self._plan_lines(run.make_model(self.seeds[0])),
            ("dtype", "bfloat16 autocast, float32 weights" if run.bf16 else "float32"),
            ("device", "GPU" if self.on_gpu else f"CPU, {counted(self.threads, 'thread')} per process"),
            ("schedule", f"{arguments.lr_scheduler_type}, {rates}"),
            ("length", run.plan.line()),
            ("seeds", ", ".join(map(str, self.seeds))),
            ("kept", f"the weights with the best {run.task.best_metric.name}"),
        ]
        return "\n".join(f"  {name:11} {value}" for name, value in lines)

    def train(self) -> bool:
        """Train every seed and write the finished folder; whether that came to its end."""
        if is_first_process():
            start_run(self.folder, self.settings, has_begun(self.folder))
        if not self._search():
            return False
        results = []
        for seed in self.seeds:
            result = self.seed_run.train(self.folder / f"seed-{seed}", seed)
            if result is None:
                return False
            results.append(result)
        self._finished(results).write()
        return True

    def _search(self) -> bool:
        """Look for better settings first, where that is asked for; whether that came to its end."""
        return True

    def _model_lines(self, model: torch.nn.Module, source: str) -> list[tuple[str, str]]:
        """Lines of the plan on the size and start of the model."""
        total = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        part = f", {trained:,} trained" if trained < total else ""
        return [("model", f"{total:,} parameters, {source}{part}"), *describe_added(self.settings)]


class FineTuningRun(SeededRun):
    """A run of a task, from its plan to its report."""

    def __init__(
        self, task: ScoredTask, parsed: Parsed, fields: dict[str, Any], folder: Path, settings: dict[str, Any]
    ) -> None:
        """Encode all data; refuse, before anything is trained, what cannot be (RecipeError)."""
        super().__init__(parsed, folder, settings)
        self.search_arguments = parsed[SearchArguments]
        setup = set_up_model(task, parsed[ModelSetupArguments], fields, self.arguments.max_length)
        self.task, self.setup = task, setup
        self.items: dict[str, Items] = {
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
        """See SeededRun; behind the plan, what the task shows of its examples."""
        return "\n".join(filter(None, [super().describe(), self.task.preview()]))

    def _search(self) -> bool:
        if self.search_arguments.search_trials:
            chosen = search(self.search_arguments, self.folder, self.task.best_metric, self._run_trial)
            if chosen is None:
                return False
            self.seed_run, self.settings = self.seed_run.changed(chosen), {**self.settings, **chosen}
        return True

    def _finished(self, results: list[SeedResult]) -> FinishedSeeds:
        return FinishedSeeds(self.seed_run, self.settings, self.folder, results, self.items, self.unlabelled)

    def _run_trial(self, folder: Path, chosen: dict[str, Any]) -> float | None:
        """The best score of a training with other settings, NaN where it diverged; None where it was stopped."""
        try:
            result = self.seed_run.changed(chosen).train(folder, self.seeds[0])
        except NotFiniteError:
            return math.nan
        return None if result is None else result.metrics[self.task.best_metric.name]

    def _plan_lines(self, model: torch.nn.Module) -> list[tuple[str, str]]:
        run = self.seed_run
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
            *self._model_lines(model, self.setup.source),
            *([("new weights", ", ".join(new[:4]) + (" ..." if len(new) > 4 else ""))] if new else []),
            ("input", f"{tokens:.1f} tokens on average, at most {self.setup.max_length}; {batching}"),
        ]
