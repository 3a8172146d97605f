"""Measure how long the parts of a run take here, and choose the size and the steps that fit a time.

A few steps, an evaluation, a checkpoint and the samples are made and thrown away. They are those of the run itself: its
Trainer, processes, threads, rows and micro-batches.
"""

import gc
import shutil
import time
from dataclasses import asdict
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from weft.recipes.common.command_line import parse_duration
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.processes import is_first_process, of_first_process
from weft.recipes.pretraining.hyperparameters import whole_rows
from weft.recipes.pretraining.setup import PretrainingRun
from weft.recipes.pretraining.time_budget.arithmetic import PASSES, TOKENS_PER_PARAMETER, Costs, Speed, choose
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.pretraining.validation import RowEvaluator
from weft.recipes.pretraining.validation_files import whole_of
from weft.recipes.training.checkpoints import UNFINISHED_PREFIX
from weft.recipes.training.throughput import seconds_of, synchronize

ROUGH_STEPS = 2  # to compare sizes with
SHARE, LEAST_STEPS, MOST_STEPS = 0.02, 5, 50  # of the time, and of steps, to measure the chosen size with
MEASURED_BATCHES = 8  # of an evaluation, to tell from them how long all of it takes
PLOT_SECONDS = 1.0  # for the curve and the card
CPU_TOKENS, GPU_TOKENS = 2048, 32768  # of a step to compare sizes with; on GPUs for each
LONG_RUN = 1_000_000  # steps of a run before its length is known


class StepClock(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        """Take the time once the device is done."""
        synchronize(args.device)
        self.ends.append(time.perf_counter())


def measure_speed(run: PretrainingRun, preset: str | None, tokens_per_step: int) -> Speed:
    """How fast the run trains a model of that preset, roughly; the same in all processes."""
    run.configure(preset, max_steps=LONG_RUN, tokens_per_step=str(tokens_per_step))
    trainer, _, step = _train(run, ROUGH_STEPS)
    forget(run, trainer)
    return of_first_process(Speed(preset, run.parameters.total, run.plan.tokens_per_step / step))


def choose_speed(run: PretrainingRun, seconds: float) -> tuple[Speed, list[Speed]]:
    """The size that uses the time best, and all that were measured.

    They are measured from the smallest up to the first that is too large for the time, or for the memory of a GPU.
    """
    speeds: list[Speed] = []
    epoch = _tokens_per_epoch(run)
    rough = GPU_TOKENS * run.processes if run.on_gpu else CPU_TOKENS
    tokens_per_step = whole_rows(rough, run.given, run.processes)
    for preset in run.presets:
        try:
            speeds.append(measure_speed(run, preset, tokens_per_step))
        except torch.OutOfMemoryError:
            if not speeds:
                raise
            break
        if not speeds[-1].is_small(seconds, epoch):
            break
    return choose(speeds, seconds, epoch), speeds


def measure_costs(run: PretrainingRun, seconds: float, step_seconds: float) -> Costs:
    """Measure the parts of the run as it is configured now; the same in all processes.

    Args:
        seconds: wanted for the whole run.
        step_seconds: of a step, roughly.
    """
    steps = min(MOST_STEPS, max(LEAST_STEPS, round(SHARE * seconds / step_seconds)))
    trainer, setup, step = _train(run, steps)
    evaluation = _evaluation_seconds(trainer)
    checkpoint = seconds_of(1, lambda: trainer._save_checkpoint(trainer.model, None))
    report = seconds_of(1, lambda: _make_samples(run, trainer))
    forget(run, trainer)
    return of_first_process(Costs(setup, step, evaluation, checkpoint, report + checkpoint + PLOT_SECONDS))


def plan_within(run: PretrainingRun, budget: str) -> dict[str, Any]:
    """Configure the run so that it ends with its budget; the first process decides for all.

    Args:
        budget: a duration, counted from `run.began`.

    Returns:
        The measurements and decisions, as plan.json notes them.

    Raises:
        RecipeError: there is no time for a single step.
    """
    seconds = parse_duration(budget)
    if is_first_process():
        print(f"measuring what fits into {budget} ...", flush=True)
    intervals = run.trainer_fields.get("eval_steps"), run.trainer_fields.get("save_steps")
    speed, speeds = choose_speed(run, seconds)
    run.configure(speed.preset, tokens=str(max(1, int(speed.tokens_per_second * seconds))))
    tokens_per_step = run.plan.tokens_per_step
    run.mean_operations = run.operations(run.plan.max_steps)
    costs = measure_costs(run, seconds, tokens_per_step / speed.tokens_per_second)
    spent = of_first_process(time.perf_counter() - run.began)
    costs = costs.with_few_evaluations(seconds)
    steps = costs.steps_within(seconds - spent, *intervals, work=run.work)
    if steps < 1:
        raise RecipeError(
            f"budget {budget} is too short for {run.parameters.total:,} parameters: measuring took {spent:.0f} s, and "
            f"a run of one step takes {costs.seconds(1, *intervals):.0f} s with its evaluation, checkpoint and report; "
            "give more."
        )
    run.configure(speed.preset, max_steps=steps, tokens_per_step=str(tokens_per_step))
    parts = asdict(costs)
    return {
        "evaluations": parts.pop("evaluations"),
        "predicted_seconds": round(spent + costs.seconds(steps, *intervals, work=run.work), 1),
        "tokens_per_second": round(tokens_per_step / costs.step, 1),
        "tokens_per_parameter": round(run.plan.total_tokens / run.parameters.total, 2),
        "measuring_seconds": round(spent, 1),
        "measured_seconds": {name: round(value, 4) for name, value in parts.items()},
        "chosen": speed.preset,
        "measured_speeds": [asdict(speed) for speed in speeds],
    }


def describe_budget(budget: str, decided: dict[str, Any], epochs: float | None) -> list[tuple[str, str]]:
    """Lines of the plan on the measurements and decisions of `plan_within`."""
    costs, speeds = decided["measured_seconds"], decided["measured_speeds"]
    lines = [
        (
            "budget",
            f"{budget}: {decided['predicted_seconds']:,.0f} s predicted, {decided['measuring_seconds']:.0f} s of "
            f"them for measuring; {decided['tokens_per_second']:,.0f} tokens/s, {costs['evaluation']:.1f} s for an "
            f"evaluation, {costs['checkpoint']:.1f} s for a checkpoint",
        )
    ]
    if decided["chosen"]:
        measured = ", ".join(f"{speed['preset']} {speed['tokens_per_second']:,.0f}" for speed in speeds)
        reason = (
            f"{decided['chosen']}, {decided['tokens_per_parameter']:g} tokens per parameter, chosen as nearest to "
            f"{TOKENS_PER_PARAMETER} (https://huggingface.co/papers/2203.15556) of {measured} tokens/s"
        )
        lines.append(("preset", reason))
    if epochs is not None and epochs > PASSES:
        advice = (
            f"beyond {PASSES} passes over a text more of them add little (https://huggingface.co/papers/2305.16264)"
        )
        lines.append(("note", f"{advice}: more text would serve better"))
    return lines


def _train(run: PretrainingRun, steps: int) -> tuple[PretrainingTrainer, float, float]:
    """Train one step and then `steps`: the Trainer, and the seconds of its setup and of an average step of the run."""
    clock, began = StepClock(), time.perf_counter()
    changed = {"output_dir": str(run.folder / f"{UNFINISHED_PREFIX}measurement"), "max_steps": steps + 1}
    changed |= {"eval_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    trainer = run.make_trainer(changed, clock)
    trainer.train()
    step = (clock.ends[-1] - clock.ends[0]) / steps
    length = run.plan.max_steps  # in which the first steps may cost more than later ones
    average = step * (run.operations(length) / run.operations(length, 1, steps + 1))
    return trainer, max(0.0, clock.ends[0] - began - step), average


def _evaluation_seconds(trainer: PretrainingTrainer) -> float:
    """Seconds of an evaluation; where it has many batches, told from some of them."""
    evaluator, arguments = whole_of(trainer.evaluator), trainer.args
    number = MEASURED_BATCHES * arguments.per_device_eval_batch_size * arguments.world_size
    if not isinstance(evaluator, RowEvaluator) or len(evaluator.rows) < 2 * number:
        return seconds_of(1, trainer.evaluate)
    with trainer.published_weights():
        return seconds_of(1, lambda: evaluator.sums(trainer, number)) * len(evaluator.rows) / number


def _make_samples(run: PretrainingRun, trainer: PretrainingTrainer) -> None:
    model = trainer.whole_model()  # of all processes: each holds a part of sharded weights
    if model is not None and is_first_process():
        run.objective.make_samples(model.eval(), run.tokenizer, run.given.sample_prompt, run.corpus)


def _tokens_per_epoch(run: PretrainingRun) -> int | None:
    return None if run.rows_per_epoch is None else run.rows_per_epoch * run.given.sequence_length


def forget(run: PretrainingRun, trainer: PretrainingTrainer) -> None:
    """Free the memory of a Trainer, and remove the folder of one that only measured."""
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.free_memory()
    trainer.model = trainer.model_wrapped = trainer.optimizer = trainer.lr_scheduler = trainer.average = None
    handler = trainer.callback_handler
    handler.model = handler.optimizer = handler.lr_scheduler = None
    handler.callbacks.clear()
    gc.collect()  # a Trainer and its callbacks hold each other
    torch.cuda.empty_cache()
    if is_first_process():
        shutil.rmtree(run.folder / f"{UNFINISHED_PREFIX}measurement", ignore_errors=True)
