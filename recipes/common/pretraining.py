"""A pretraining run from its fields to a published model: what every objective shares."""

import contextlib
import dataclasses
import importlib.metadata
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from weft.recipes.common.arguments import Parsed, parse_arguments
from weft.recipes.common.console import Console
from weft.recipes.common.corpus import Corpus
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import flush_to_disk, only_one_process, write_json
from weft.recipes.common.hub import check_name, publish
from weft.recipes.common.launch import (
    check_launcher,
    check_same_checkpoint,
    check_same_corpus,
    end_with_launcher,
    is_first_process,
    keep_freed_memory,
    prepare_before_group,
    share_cores,
    world_size,
)
from weft.recipes.common.models import ModelArguments, count_parameters, make_config, make_model
from weft.recipes.common.packing import TrainingRows
from weft.recipes.common.plan import Plan, RunArguments, describe, make_plan, schedule_fields
from weft.recipes.common.preparation import DataArguments, report
from weft.recipes.common.report import RunReport, plot_curve, write_card
from weft.recipes.common.run_folder import METRICS, RunState, last_checkpoint, open_run, start_run
from weft.recipes.common.stop_signal import StopSignal
from weft.recipes.common.throughput import Throughput, measure_matmul_flops, training_flops_per_token
from weft.recipes.common.trainer import Evaluator, WeftTrainer

LENGTHS = ("tokens", "num_train_epochs", "max_steps")
LOCAL_FIELDS = ("output_dir", "data", "train_files", "validation_files", "plan")  # of this machine, not for the card
PACKAGES = ("weft-lm", "transformers", "torch")


@dataclass(frozen=True)
class Objective:
    """What distinguishes one way of pretraining from another."""

    summary: str
    is_causal: bool
    auto_class: str
    pipeline_tag: str
    make_evaluator: Callable[[Corpus, int], Evaluator]
    collate: Callable[[list[Any]], dict[str, torch.Tensor]]
    make_samples: Callable[[PreTrainedModel, PreTrainedTokenizerBase, str], list[str]]


def pretrain(
    objective: Objective, run_class: type[RunArguments], description: str, argv: Sequence[str] | None = None
) -> None:
    """Parse the command line and carry the run out: plan, train or resume, evaluate, report, publish."""
    end_with_launcher()
    check_launcher()
    groups = [run_class, DataArguments, ModelArguments]
    parsed = parse_arguments(description, groups, True, True, argv, alternatives=LENGTHS)
    run, data, model_arguments = parsed.groups
    folder = Path(run.output_dir)
    _check(parsed)
    settings = {**asdict(run), **asdict(data), **asdict(model_arguments), **parsed.model, **parsed.trainer}
    settings["processes"] = world_size()
    lock = contextlib.nullcontext()
    if is_first_process() and not run.plan:
        lock = only_one_process(folder / ".lock", str(folder))
    with lock:
        if not run.plan and open_run(folder, settings) is RunState.FINISHED:
            if is_first_process():
                print(f"{folder} is finished: nothing to do (give another --output_dir for a new run)")
                _publish(run, folder)
            return
        corpus = Corpus.open(run.data) if run.data else prepare_before_group(data, folder / "data")
        finished = _Run(objective, parsed, corpus, folder, settings).carry_out()
        if finished and is_first_process():  # after the group is gone: uploads may take longer than its time limit
            _publish(run, folder)


class _Run:
    """One run, from its plan to its report."""

    def __init__(
        self, objective: Objective, parsed: Parsed, corpus: Corpus, folder: Path, settings: dict[str, Any]
    ) -> None:
        self.objective, self.corpus, self.folder, self.settings = objective, corpus, folder, settings
        self.arguments, _, self.model_arguments = parsed.groups
        self.trainer_fields = parsed.trainer
        self.tokenizer = corpus.tokenizer()
        length, processes = self.arguments.sequence_length, world_size()
        rows = TrainingRows(corpus, length, 1, self.arguments.seed)
        self.on_gpu = torch.cuda.is_available() and not parsed.trainer.get("use_cpu", False)
        self.threads = share_cores(self.arguments.cpu_threads)
        if not self.on_gpu:
            keep_freed_memory()
        self.plan: Plan = make_plan(self.arguments, rows.rows_per_epoch, processes, self.on_gpu)
        self.schedule = schedule_fields(self.arguments, self.plan.max_steps)
        num_rows = self.plan.max_steps * self.plan.rows_per_step
        self.rows: Dataset = TrainingRows(corpus, length, num_rows, self.arguments.seed)
        self.evaluator = objective.make_evaluator(corpus, length)
        self.config = make_config(
            self.model_arguments, parsed.model, self.tokenizer, length, is_causal=objective.is_causal
        )
        self.tokenizer.model_max_length = self.config.max_position_embeddings
        self.total_parameters, self.multiplied_parameters = count_parameters(self.config)

    def carry_out(self) -> bool:
        """Train, and finish if training came to its end; returns whether it did."""
        bf16 = self._choose_bf16()
        if is_first_process():
            print(report(self.corpus))
            print(f"plan of {self.folder}")
            print(describe(self.plan, self.rows, self._plan_lines(bf16)), flush=True)
        if self.arguments.plan:
            return False
        if is_first_process():
            start_run(self.folder, self.settings)
        try:
            trainer = self._make_trainer(bf16)
        except (ValueError, TypeError, RuntimeError, ImportError) as error:
            raise RecipeError(f"the run cannot be set up: {' '.join(str(error).split())}") from error
        checkpoint = last_checkpoint(self.folder)
        check_same_checkpoint(checkpoint)
        if checkpoint and is_first_process():
            print(f"resuming from {checkpoint}", flush=True)
        trainer.train(resume_from_checkpoint=checkpoint)
        finished = trainer.state.global_step >= self.plan.max_steps
        if not finished:
            if is_first_process():
                print(f"stopped at step {trainer.state.global_step}: run the same command again to go on", flush=True)
        else:
            self._finish(trainer)
        trainer.accelerator.wait_for_everyone()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return finished

    def _choose_bf16(self) -> bool:
        """As asked for, else as the launcher was told, else wherever the hardware computes it."""
        from_launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if from_launcher not in ("no", "bf16"):
            raise RecipeError(f"the launcher asks for mixed precision {from_launcher}: choose bf16 or no.")
        able = self.on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return self.trainer_fields.get("bf16", from_launcher == "bf16" or able)

    def _plan_lines(self, bf16: bool) -> list[tuple[str, str]]:
        config, source = self.config, self.model_arguments.model_name_or_path
        backend = self.model_arguments.attn_implementation or "sdpa"
        return [
            (
                "model",
                f"{self.total_parameters:,} parameters ({config.num_hidden_layers} layers of {config.hidden_size}, "
                f"vocabulary {config.vocab_size:,}), {f'from {source}' if source else 'new'}",
            ),
            ("attention", backend),
            ("dtype", "bfloat16 autocast, float32 weights" if bf16 else "float32"),
            ("device", "GPU" if self.on_gpu else f"CPU, {self.threads} threads per process"),
            (
                "schedule",
                f"{self.arguments.lr_scheduler_type}, learning rate {self.arguments.learning_rate:g}, weight decay "
                f"{self.arguments.weight_decay:g}",
            ),
        ]

    def _make_trainer(self, bf16: bool) -> WeftTrainer:
        plan, tokenizer = self.plan, self.tokenizer
        every = max(1, plan.max_steps // 10)
        given = self.trainer_fields
        trainer_arguments = TrainingArguments(
            **{
                "logging_steps": max(1, min(50, plan.max_steps // 50)),
                "logging_first_step": True,
                "eval_strategy": "steps",
                "eval_steps": every,
                "save_steps": every,
                "save_total_limit": None if self.arguments.hub_revisions else 2,
                "per_device_eval_batch_size": plan.micro_batch,
                "report_to": "none",
                "ddp_find_unused_parameters": False,
                "dataloader_pin_memory": torch.cuda.is_available(),
                "bf16": bf16,
                **given,
            },
            **self.schedule,
            output_dir=str(self.folder),
            max_steps=plan.max_steps,
            per_device_train_batch_size=plan.micro_batch,
            gradient_accumulation_steps=plan.accumulation,
            weight_decay=self.arguments.weight_decay,
            adam_beta2=self.arguments.adam_beta2,
            seed=self.arguments.seed,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            use_cache=True,
            logging_nan_inf_filter=False,
        )
        if trainer_arguments.world_size != plan.processes:
            raise RecipeError(
                f"the launcher started {plan.processes} processes but {trainer_arguments.world_size} work together: on "
                "a CPU start them with `accelerate launch --multi_gpu --num_processes N ... --use_cpu`."
            )
        if trainer_arguments.n_gpu > 1:
            raise RecipeError(
                f"one process sees {trainer_arguments.n_gpu} GPUs: launch one each (`accelerate launch --multi_gpu "
                f"--num_processes {trainer_arguments.n_gpu} ...`), or set CUDA_VISIBLE_DEVICES=0."
            )
        check_same_corpus(self.corpus)
        set_seed(self.arguments.seed)
        model = make_model(self.model_arguments, self.config)
        device = trainer_arguments.device
        throughput = Throughput(
            plan.tokens_per_step,
            training_flops_per_token(self.config, self.multiplied_parameters, plan.sequence_length),
            plan.processes * measure_matmul_flops(device, torch.bfloat16 if bf16 else torch.float32),
        )
        self.throughput = throughput
        trainer = WeftTrainer(
            model=model,
            args=trainer_arguments,
            train_dataset=self.rows,
            data_collator=self.objective.collate,
            processing_class=tokenizer,
            evaluator=self.evaluator,
            throughput=throughput,
            steps_per_epoch=plan.rows_per_epoch / plan.rows_per_step,
            callbacks=[Console(trainer_arguments.disable_tqdm or not sys.stderr.isatty()), StopSignal()],
        )
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _finish(self, trainer: WeftTrainer) -> None:
        """Evaluate, write the finished folder (metrics.json last) and publish it."""
        history = trainer.state.log_history
        evaluated = [entry for entry in history if "eval_loss" in entry and entry["step"] == self.plan.max_steps]
        metrics = evaluated[-1] if evaluated else trainer.evaluate()
        model = trainer.accelerator.unwrap_model(trainer.model)
        if not is_first_process():
            return
        metrics = {name: value for name, value in metrics.items() if name.startswith("eval_")}
        staging = self.folder / ".finished.partial"
        shutil.rmtree(staging, ignore_errors=True)
        model.eval()
        model.save_pretrained(staging)
        self.tokenizer.save_pretrained(staging)
        plot_curve(history, staging / "curve.png")
        write_card(self._report(model, metrics, history), staging / "README.md")
        trainer.state.save_to_json(str(staging / "trainer_state.json"))
        flush_to_disk(staging)
        for path in staging.iterdir():
            path.replace(self.folder / path.name)
        staging.rmdir()
        write_json(self.folder / METRICS, self._metrics(metrics, history))
        print(
            f"finished: {self.folder} loads with AutoModel.from_pretrained; bits per byte "
            f"{metrics['eval_bits_per_byte']:.4f}"
            if "eval_bits_per_byte" in metrics
            else f"finished: {self.folder}"
        )

    def _metrics(self, metrics: dict[str, float], history: list[dict[str, Any]]) -> dict[str, Any]:
        speeds = sorted(entry["tokens_per_second"] for entry in history if "tokens_per_second" in entry)
        shares = sorted(entry["mfu"] for entry in history if "mfu" in entry)
        return {
            **metrics,
            "train_loss": next((entry["loss"] for entry in reversed(history) if "loss" in entry), None),
            "steps": self.plan.max_steps,
            "tokens": self.plan.total_tokens,
            "epochs": round(self.plan.epochs, 4),
            "parameters": self.total_parameters,
            "tokens_per_second": speeds[len(speeds) // 2] if speeds else None,
            "mfu": shares[len(shares) // 2] if shares else None,
            "matmul_gflops": round(self.throughput.peak_flops / 1e9, 1),
        }

    def _report(self, model: PreTrainedModel, metrics: dict[str, float], history: list[dict[str, Any]]) -> RunReport:
        training, name = self.corpus.description["splits"]["train"], self.arguments.push_to_hub or str(self.folder)
        return RunReport(
            title=Path(name).name,
            summary=self.objective.summary,
            facts={
                "data": self.corpus.description["source"],
                "training text": f"{training['documents']:,} documents, {training['bytes']:,} bytes, "
                f"{training['tokens']:,} tokens",
                "seen in training": f"{self.plan.total_tokens:,} tokens ({self.plan.epochs:.2f} epochs) in "
                f"{self.plan.max_steps:,} steps of {self.plan.tokens_per_step:,}",
                "parameters": f"{self.total_parameters:,}",
                "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
            },
            metrics=self._metrics(metrics, history),
            settings={
                name: value
                for name, value in self.settings.items()
                if value not in (None, [], "") and name not in LOCAL_FIELDS
            },
            samples=self.objective.make_samples(model, self.tokenizer, self.arguments.sample_prompt),
            usage=_usage(self.objective.auto_class, name),
            pipeline_tag=self.objective.pipeline_tag,
        )


def _check(parsed: Parsed) -> None:
    """Refuse contradictions before any work is done."""
    run, data, model = parsed.groups
    if run.push_to_hub is not None:
        check_name(run.push_to_hub)
    _refuse_without_effect(parsed)
    limit = parsed.trainer.get("save_total_limit")
    if limit is not None and limit < 1:
        raise RecipeError(f"save_total_limit is {limit}: give at least 1, or leave it out.")
    if Path(run.output_dir).exists() and not Path(run.output_dir).is_dir():
        raise RecipeError(f"output_dir {run.output_dir} is a file: give another.")
    if not run.data:
        if data.tokenizer_name is None and model.model_name_or_path is not None:
            data.tokenizer_name = model.model_name_or_path
        data.check()
    if run.sequence_length < 2 or not math.isfinite(run.learning_rate):
        raise RecipeError("sequence_length must be at least 2 and learning_rate a finite number.")
    model.check(parsed.model)


def _refuse_without_effect(parsed: Parsed) -> None:
    """Refuse fields that another one makes pointless."""
    data_fields = [field.name for field in dataclasses.fields(DataArguments)]
    parsed.refuse_together(data_fields, "data", "the folder is prepared already")
    parsed.refuse_together(("tokenizer_type", "vocab_size"), "tokenizer_name", "that tokenizer is trained already")
    parsed.refuse_together(
        ("validation_fraction", "validation_split"), "validation_files", "they are the held-out text"
    )
    parsed.refuse_together(("preset",), "config_name", "it gives the shape")
    parsed.refuse_together(("preset",), "model_name_or_path", "it has its shape")
    parsed.refuse_without(("dataset_config_name", "dataset_split"), "dataset_name")
    parsed.refuse_without(("hub_revisions", "hub_private_repo"), "push_to_hub")
    run = parsed.groups[0]
    if "decay_steps" in parsed.given and run.lr_scheduler_type != "warmup_stable_decay":
        raise RecipeError(f"decay_steps has no effect on the schedule {run.lr_scheduler_type}: leave it out.")


def _publish(arguments: RunArguments, folder: Path) -> None:
    if arguments.push_to_hub is not None:
        address = publish(folder, arguments.push_to_hub, arguments.hub_revisions, arguments.hub_private_repo)
        print(f"published as {address}", flush=True)


def _usage(auto_class: str, name: str) -> str:
    return (
        f"from transformers import AutoTokenizer, {auto_class}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)\n'
        f'model = {auto_class}.from_pretrained("{name}", trust_remote_code=True)'
    )


transformers.logging.disable_progress_bar()
