"""A fine-tuning run from its fields to a published model: what every kind of task shares."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers

from weft.recipes.common.command_line import MANAGED_TRAINER_FIELDS, Parsed, parse_arguments
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import only_one_process, read_json
from weft.recipes.common.hardware import choose_bf16, computes_on_gpu, settle_on_processor, share_cores
from weft.recipes.common.processes import check_launcher, end_group, end_with_launcher, is_first_process, world_size
from weft.recipes.finetuning.arguments import FileArguments, FineTuningArguments, StartArguments
from weft.recipes.finetuning.collation import Item
from weft.recipes.finetuning.hyperparameter_search import TRIALS, SearchArguments, search
from weft.recipes.finetuning.model_setup import Start, prepare_start
from weft.recipes.finetuning.plan import make_plan, schedule_fields
from weft.recipes.finetuning.report import FinishedSeeds, encode_unlabelled, predict_with_finished, remove_leftovers
from weft.recipes.finetuning.seed_training import SeedRun
from weft.recipes.finetuning.task import Kind
from weft.recipes.training.hub import check_name, publish
from weft.recipes.training.model_setup import DEFAULT_EXTRAS, describe_added
from weft.recipes.training.run_folder import FREE_FIELDS, METRICS, SETTINGS, RunState, open_run, start_run
from weft.recipes.training.safeguards import NotFiniteError

MANAGED = {
    **MANAGED_TRAINER_FIELDS,
    **dict.fromkeys(
        ("auto_find_batch_size", "accelerator_config", "dataloader_drop_last"),
        "give per_device_train_batch_size and gradient_accumulation_steps",
    ),
    **dict.fromkeys(
        ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        "the weights with the best validation score, by the task's own metric, are kept",
    ),
    **dict.fromkeys(("eval_strategy", "logging_strategy"), "give evaluations, eval_steps or logging_steps"),
    "seed": "give seeds",
    "lr_scheduler_kwargs": "the schedules take none",
    "label_smoothing_factor": "this kind of task has no label smoothing",
}
# Here eval_steps decides which weights are kept.
FREE = FREE_FIELDS - {"per_device_train_batch_size", "processes", "eval_steps"} | {"predict_file", "glue_submission"}
FREE_WHEN_FINISHED = FREE | {"processes", "cpu_threads", "per_device_train_batch_size", "gradient_accumulation_steps"}
MakeKind = Callable[[Any, FineTuningArguments], Kind]


def finetune(
    make_kind: MakeKind,
    files_class: type[FileArguments],
    description: str | None,
    argv: Sequence[str] | None = None,
    model_fields: Sequence[str] | None = None,
) -> None:
    """Parse the command line and carry the run out: plan, train each seed, choose, evaluate, report, publish.

    Args:
        make_kind: makes the kind of task, which reads and checks its data, out of its own fields and the run's.
        files_class: the kind's own fields.
        description: the recipe's docstring.
        argv: the words after the program's name; None: this process's.
        model_fields: of WeftConfig, those that a new model may be given; None: those of one stack.
    """
    end_with_launcher()
    check_launcher()
    groups = [FineTuningArguments, files_class, StartArguments, SearchArguments]
    parsed = parse_arguments(
        description, groups, True, True, argv, ("num_train_epochs", "max_steps"), MANAGED, model_fields
    )
    run, files = parsed[FineTuningArguments], parsed[FileArguments]
    start_arguments, search_arguments = parsed[StartArguments], parsed[SearchArguments]
    run.check()
    files.check_files()
    search_arguments.check(parsed)
    if run.push_to_hub is not None:
        check_name(run.push_to_hub)
    parsed.refuse_together(("num_train_epochs",), "max_steps", "it is the length")
    parsed.refuse_without(("hub_private_repo",), "push_to_hub")
    parsed.refuse_without(("lora_alpha", "lora_dropout"), "lora_rank")
    kind = make_kind(files, run)
    for name, reason in kind.refused_fields.items():
        if name in parsed.given:
            raise RecipeError(f"{name} is given: {reason}.")
    if run.predict_file is not None:
        kind.read_unlabelled(Path(run.predict_file))  # what is wrong with it is said before training
    folder = Path(run.output_dir or f"runs/{files.name}")
    run.output_dir = str(folder)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"output_dir {folder} is a file: give another.")
    settings = {name: value for group in parsed.groups for name, value in asdict(group).items()}
    fields = {**_added(start_arguments, folder), **parsed.model}
    settings |= {**fields, **parsed.trainer, "processes": world_size(), "files": _fingerprint(files)}
    settings["seeds"] = run.seeds_for(kind.splits["train"])
    lock = contextlib.nullcontext()
    if is_first_process() and not run.plan:
        _open(folder, settings)  # before the lock, so that none is left in a folder that is refused
        lock = only_one_process(folder / ".lock", str(folder))
    with lock:
        if not run.plan and _open(folder, settings) is RunState.FINISHED:
            if is_first_process():
                print(f"{folder} is finished: nothing to train (give another --output_dir for a new run)")
                remove_leftovers(folder)
                predict_with_finished(kind, run, start_arguments, settings, folder)
                _publish(run, folder)
            return
        start = prepare_start(kind, start_arguments, fields, run.max_length)
        finished = _Run(kind, parsed, start, folder, settings).carry_out()
        if finished and is_first_process():
            _publish(run, folder)


class _Run:
    """One run, from its plan to its report."""

    def __init__(self, kind: Kind, parsed: Parsed, start: Start, folder: Path, settings: dict[str, Any]) -> None:
        self.kind, self.start, self.folder, self.settings = kind, start, folder, settings
        self.arguments = parsed[FineTuningArguments]
        self.search_arguments = parsed[SearchArguments]
        self.on_gpu = computes_on_gpu(parsed.trainer.get("use_cpu", False))
        self.threads = share_cores(self.arguments.cpu_threads)
        if not self.on_gpu:
            settle_on_processor()
        self.items: dict[str, list[Item]] = {
            split: kind.encode(split, start.tokenizer, start.max_length) for split in kind.splits
        }
        self.unlabelled = encode_unlabelled(kind, folder, start.tokenizer, start.max_length)
        start.fit_length(max(kind.longest(item) for items in self.items.values() for item in items))
        batching = self.arguments.batching
        packed = batching == "packed" or (batching == "auto" and start.is_weft)
        if packed and not start.is_weft:
            raise RecipeError("batching packed is for Weft models, which keep documents apart: give grouped or padded.")
        if self.start.arguments.attn_implementation == "flex_attention" and not self.on_gpu:
            raise RecipeError("flex_attention has no backward pass on a CPU: give attn_implementation sdpa or eager.")
        trainable = [item for item in self.items["train"] if item.target is not None]
        self.seeds: list[int] = settings["seeds"]
        plan = make_plan(self.arguments, len(trainable), world_size())
        schedule_fields(self.arguments, plan.max_steps)  # refuses a schedule that does not fit
        self.seed_run = SeedRun(
            kind=kind,
            start=start,
            arguments=self.arguments,
            plan=plan,
            trainer_fields=parsed.trainer,
            trainable=trainable,
            validation=self.items["validation"],
            batcher=kind.make_batcher(start.tokenizer, packed),
            grouped=batching == "grouped" or (batching == "auto" and not packed),
            bf16=choose_bf16(parsed.trainer.get("bf16"), self.on_gpu),
        )

    def carry_out(self) -> bool:
        """Train every seed and write the finished folder; returns whether that came to its end."""
        model = self.seed_run.make_model(self.seeds[0])  # what cannot be made is refused before the plan
        if is_first_process():
            print(f"plan of {self.folder}")
            print("\n".join(f"  {name:11} {value}" for name, value in self._plan_lines(model)), flush=True)
        if self.arguments.plan:
            return False
        if is_first_process():
            start_run(self.folder, self.settings, _has_begun(self.folder))
        del model
        finished = self._train_all()
        end_group()
        return finished

    def _train_all(self) -> bool:
        seed_run, settings = self.seed_run, self.settings
        if self.search_arguments.search_trials:
            chosen = search(self.search_arguments, self.folder, self.kind.goal, self._run_trial)
            if chosen is None:
                return False
            seed_run, settings = seed_run.changed(chosen), {**settings, **chosen}
        results = []
        for seed in self.seeds:
            result = seed_run.train(self.folder / f"seed-{seed}", seed)
            if result is None:
                return False
            results.append(result)
            if seed_run.stop_asked and seed != self.seeds[-1]:
                print(f"stopped after seed {seed}: run the same command again to go on", flush=True)
                return False
        FinishedSeeds(seed_run, settings, self.items, self.unlabelled, self.folder, results).write()
        return True

    def _run_trial(self, folder: Path, chosen: dict[str, Any]) -> float | None:
        """The best score of a training with other settings, NaN where it diverged; None where it was stopped."""
        try:
            result = self.seed_run.changed(chosen).train(folder, self.seeds[0])
        except NotFiniteError:
            return math.nan
        return None if result is None else result.metrics[self.kind.goal.metric]

    def _plan_lines(self, model: torch.nn.Module) -> list[tuple[str, str]]:
        run, arguments = self.seed_run, self.arguments
        total = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        tokens = sum(item.tokens for item in run.trainable) / len(run.trainable)
        batching = "packed" if run.batcher.packed else "padded, like lengths together" if run.grouped else "padded"
        new = self.start.new_weights
        return [
            ("examples", ", ".join(f"{split} {number:,}" for split, number in self.kind.splits.items())),
            *self.kind.describe(),
            (
                "model",
                f"{total:,} parameters, {self.start.source}" + (f", {trained:,} trained" if trained < total else ""),
            ),
            *describe_added(self.settings),
            *([("new weights", ", ".join(new[:4]) + (" ..." if len(new) > 4 else ""))] if new else []),
            ("input", f"{tokens:.1f} tokens on average, at most {self.start.max_length}; {batching}"),
            ("dtype", "bfloat16 autocast, float32 weights" if run.bf16 else "float32"),
            ("device", "GPU" if self.on_gpu else f"CPU, {self.threads} threads per process"),
            (
                "schedule",
                f"{arguments.lr_scheduler_type}, learning rate {arguments.learning_rate:g}, weight decay "
                f"{arguments.weight_decay:g}",
            ),
            ("length", run.plan.line()),
            ("seeds", ", ".join(map(str, self.seeds))),
            ("kept", f"the weights with the best {self.kind.goal.metric}"),
        ]


def _open(folder: Path, settings: dict[str, Any]) -> RunState:
    """See `open_run`; seeds may be added behind those of a run, which then has only begun."""
    seeds = settings["seeds"]
    before = read_json(folder / SETTINGS).get("seeds") if (folder / SETTINGS).is_file() else None
    adds = bool(before) and len(before) < len(seeds) and seeds[: len(before)] == before
    free = FREE_WHEN_FINISHED if (folder / METRICS).is_file() and not adds else FREE
    state = open_run(folder, {**settings, "seeds": before} if adds else settings, free, _has_begun(folder))
    return RunState.STARTED if adds and state is RunState.FINISHED else state


def _added(start: StartArguments, folder: Path) -> dict[str, bool]:
    """What a new model is given unless it is told not to; a run that began before there was such goes on without."""
    if start.model_name_or_path is not None or start.config_name is not None:
        return {}
    is_begun = _has_begun(folder) or (folder / METRICS).is_file()
    noted = read_json(folder / SETTINGS) if is_begun and (folder / SETTINGS).is_file() else DEFAULT_EXTRAS
    return {name: True for name in DEFAULT_EXTRAS if name in noted}


def _has_begun(folder: Path) -> bool:
    """Whether anything was trained in a run's folder."""
    return any(folder.glob("seed-*/*")) or any(folder.glob("search/*/*")) or (folder / "search" / TRIALS).is_file()


def _fingerprint(files: FileArguments) -> dict[str, list[int]]:
    """Size and time of every local file with examples, so that a run is not resumed on others."""
    paths = files.local_files()
    if files.data is not None:
        paths += sorted(path for path in Path(files.data).rglob("*") if path.is_file())
    return {str(path.resolve()): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}


def _publish(arguments: FineTuningArguments, folder: Path) -> None:
    if arguments.push_to_hub is not None:
        address = publish(folder, arguments.push_to_hub, False, arguments.hub_private_repo)
        print(f"published as {address}", flush=True)


transformers.logging.disable_progress_bar()
