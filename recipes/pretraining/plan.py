"""Plan the length of a run and the cut of its batches, before anything is trained."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

from weft.recipes.common.command_line import parse_count
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.arguments import DEFAULT_EPOCHS, DEFAULT_RAMP, RunArguments
from weft.recipes.training.batch_schedule import StepBatches, Steps, steps_of


@dataclass(frozen=True)
class Plan:
    """A run in numbers. Rows have sequence_length tokens; a step takes rows_per_step of them over all processes.

    `rows_per_epoch` is None for a stream, which ends nowhere.
    """

    sequence_length: int
    rows_per_step: int
    rows_per_epoch: int | None
    micro_batch: int
    accumulation: int
    processes: int
    max_steps: int
    initial_rows: int | None = None
    ramp_steps: int = 0

    @cached_property
    def steps(self) -> Steps:
        """Which rows each step takes."""
        return Steps(self.rows_per_step, self.max_steps, self.initial_rows, self.ramp_steps)

    @property
    def batches(self) -> StepBatches:
        """Which rows each micro-batch takes."""
        return StepBatches(self.steps, self.micro_batch, self.accumulation, self.processes)

    def tokens_before(self, step: int) -> int:
        """Tokens of the first `step` steps."""
        return self.steps.before(step) * self.sequence_length

    @property
    def tokens_per_step(self) -> int:
        return self.rows_per_step * self.sequence_length

    @property
    def num_rows(self) -> int:
        """Rows of the whole run."""
        return self.steps.before(self.max_steps)

    @property
    def total_tokens(self) -> int:
        return self.tokens_before(self.max_steps)

    @property
    def epochs(self) -> float | None:
        return None if self.rows_per_epoch is None else self.num_rows / self.rows_per_epoch

    def epochs_before(self, step: int) -> float:
        """Passes over the text in the first `step` steps; of a stream, their share of the run."""
        return self.steps.before(step) / (self.rows_per_epoch or self.num_rows)


def make_plan(arguments: RunArguments, rows_per_epoch: int | None, processes: int, on_gpu: bool = False) -> Plan:
    """Derive steps, micro-batch and accumulation; without rows_per_epoch the length must be given in tokens or steps.

    Raises:
        RecipeError: lengths that contradict each other, or a batch that does not divide evenly.
    """
    arguments.check()
    length, wanted = arguments.sequence_length, parse_count(arguments.tokens_per_step)
    rows_per_step = wanted // length
    if wanted % length or rows_per_step % processes:
        unit = length * processes
        near = sorted({max(unit, wanted // unit * unit), -(-wanted // unit) * unit})
        raise RecipeError(
            f"tokens_per_step={wanted} is not a multiple of sequence_length x processes = {length} x {processes}: give "
            f"{' or '.join(str(number) for number in near)}."
        )
    rows_per_process = rows_per_step // processes
    micro_batch = arguments.per_device_train_batch_size or _default_micro_batch(rows_per_process, length, on_gpu)
    if rows_per_process % micro_batch:
        divisors = [number for number in range(1, rows_per_process + 1) if rows_per_process % number == 0]
        raise RecipeError(
            f"per_device_train_batch_size={micro_batch} does not divide the {rows_per_process} rows that a process "
            f"takes in a step: give one of {', '.join(map(str, divisors))}, or another tokens_per_step."
        )
    initial = _initial_rows(arguments, rows_per_step, processes)
    ramp = DEFAULT_RAMP if arguments.batch_ramp_steps is None else arguments.batch_ramp_steps
    max_steps = arguments.max_steps
    if max_steps is None:
        epochs = arguments.num_train_epochs or DEFAULT_EPOCHS
        rows = parse_count(arguments.tokens) / length if arguments.tokens else epochs * rows_per_epoch
        max_steps = steps_for(rows, rows_per_step, initial, ramp)
    ramp_steps = steps_of(ramp, max_steps) if initial else 0
    if ramp_steps > max_steps:
        raise RecipeError(
            f"batch_ramp_steps={ramp_steps} is longer than the whole run of {max_steps} steps: give fewer."
        )
    return Plan(
        sequence_length=length,
        rows_per_step=rows_per_step,
        rows_per_epoch=rows_per_epoch,
        micro_batch=micro_batch,
        accumulation=rows_per_process // micro_batch,
        processes=processes,
        max_steps=max_steps,
        initial_rows=initial,
        ramp_steps=ramp_steps,
    )


def steps_for(rows: float, rows_per_step: int, initial_rows: int | None, ramp_steps: float) -> int:
    """The fewest steps that take this number of rows."""

    def taken(number: int) -> int:
        return Steps(rows_per_step, number, initial_rows, steps_of(ramp_steps, number)).before(number)

    least = max(1, math.ceil(rows / rows_per_step))
    if initial_rows is None:
        return least
    return least + bisect_left(range(least, math.ceil(rows / initial_rows) + 1), rows, key=taken)


def _initial_rows(arguments: RunArguments, rows_per_step: int, processes: int) -> int | None:
    """Rows of the first steps where the batch grows, else None."""
    if arguments.initial_tokens_per_step is None:
        return None
    given, length = parse_count(arguments.initial_tokens_per_step), arguments.sequence_length
    halves = [rows_per_step]
    while halves[-1] % (2 * processes) == 0:
        halves.append(halves[-1] // 2)
    allowed = [rows * length for rows in halves[1:]]
    if given not in allowed:
        raise RecipeError(
            f"initial_tokens_per_step is {given}: it doubles until it is tokens_per_step = {rows_per_step * length}, "
            f"in whole rows of {length} for each of {processes} processes: give "
            + (f"one of {', '.join(map(str, allowed))}." if allowed else "a larger tokens_per_step, or leave it out.")
        )
    return given // length


def _default_micro_batch(rows_per_process: int, sequence_length: int, on_gpu: bool) -> int:
    """The largest cut of a step that has at most 32k tokens on a GPU and 8k on a CPU."""
    most = max(1, (32768 if on_gpu else 8192) // sequence_length)
    return max(number for number in range(1, min(most, rows_per_process) + 1) if rows_per_process % number == 0)


def describe(plan: Plan, corpus: str, lines: list[tuple[str, str]]) -> str:
    """The plan as a table, with the corpus and the lines that the run adds."""
    epochs = "" if plan.epochs is None else f", {plan.epochs:.2f} epochs"
    table = [
        ("corpus", corpus),
        *lines,
        ("row", f"{plan.sequence_length:,} tokens"),
        (
            "step",
            f"{plan.tokens_per_step:,} tokens = {plan.processes} processes x {plan.accumulation} micro-batches x "
            f"{plan.micro_batch} rows{_ramp(plan)}",
        ),
        ("length", f"{plan.max_steps:,} steps, {plan.total_tokens:,} tokens{epochs}"),
    ]
    return "\n".join(f"  {name:11} {value}" for name, value in table)


def _ramp(plan: Plan) -> str:
    if plan.initial_rows is None:
        return ""
    first = plan.initial_rows * plan.sequence_length
    return f"; the first have {first:,} tokens, doubled until step {plan.ramp_steps:,}"
