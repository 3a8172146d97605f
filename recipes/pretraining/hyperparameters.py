"""Fill in the hyperparameters that follow from the size and length of a run where they are not given."""

import dataclasses
import math

from weft.recipes.common.command_line import parse_count
from weft.recipes.pretraining import scaling_laws
from weft.recipes.pretraining.arguments import DEFAULT_EPOCHS, RunArguments
from weft.recipes.pretraining.plan import make_plan
from weft.recipes.training.model_setup import ParameterCounts

HYPERPARAMETERS = ("tokens_per_step", "learning_rate", "weight_decay")


def with_hyperparameters(
    arguments: RunArguments,
    parameters: ParameterCounts,
    rows_per_epoch: int | None,
    processes: int,
    default_optimizer: str = "muon",
) -> RunArguments:
    """The same fields, with what `DERIVED` names filled in by `scaling_laws` where it is None.

    Args:
        rows_per_epoch: needed where the length is given in passes over the text.
        default_optimizer: taken where none is given.
    """
    body, steps = parameters.body, arguments.max_steps
    tokens = None if steps is not None else _tokens(arguments, rows_per_epoch)
    if arguments.tokens_per_step is not None:
        step = parse_count(arguments.tokens_per_step)
    else:
        wanted = scaling_laws.best_tokens_per_step_of_steps(body, steps) if steps else None
        step = whole_rows(wanted or scaling_laws.best_tokens_per_step(body, tokens), arguments, processes)
    if tokens is None:
        sized = dataclasses.replace(arguments, tokens_per_step=str(step))
        tokens = make_plan(sized, rows_per_epoch, processes).total_tokens
    rate, decay = arguments.learning_rate, arguments.weight_decay
    if rate is None:
        rate = float(f"{scaling_laws.best_learning_rate(body, tokens):.3g}")
    if decay is None:
        decay = float(f"{scaling_laws.best_weight_decay(parameters.total, tokens, step, rate):.2g}")
    fields = {"tokens_per_step": str(step), "learning_rate": rate, "weight_decay": decay}
    return dataclasses.replace(arguments, **fields, optimizer=arguments.optimizer or default_optimizer)


def describe_hyperparameters(
    given: RunArguments, used: RunArguments, parameters: ParameterCounts, tokens: int
) -> str | None:
    """Name the fields that were filled in, each with its rule; None where all were given."""
    law = scaling_laws.MEASURED if parameters.body <= scaling_laws.SMALL_BODY else scaling_laws.STEP_LAW
    is_timed = scaling_laws.has_timescale(parameters.total, tokens)
    rules = {"tokens_per_step": law, "learning_rate": law}
    rules["weight_decay"] = scaling_laws.TIMESCALE if is_timed else scaling_laws.USUAL
    by_rule: dict[str, list[str]] = {}
    for name in HYPERPARAMETERS:
        if getattr(given, name) is None:
            by_rule.setdefault(rules[name], []).append(f"{name} {getattr(used, name)}")
    return "; ".join(f"{', '.join(fields)} ({rule})" for rule, fields in by_rule.items()) or None


def _tokens(arguments: RunArguments, rows_per_epoch: int | None) -> int:
    if arguments.tokens is not None:
        return parse_count(arguments.tokens)
    return math.ceil((arguments.num_train_epochs or DEFAULT_EPOCHS) * rows_per_epoch * arguments.sequence_length)


def whole_rows(tokens: float, arguments: RunArguments, processes: int) -> int:
    """The nearest number of tokens of which every process takes a power of two of its micro-batches, or of rows."""
    unit = arguments.sequence_length * processes * (arguments.per_device_train_batch_size or 1)
    return unit * 2 ** max(0, round(math.log2(tokens / unit)))
