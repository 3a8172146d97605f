"""A pretraining run from its fields to a published model: open, lock, plan, train or resume, report, publish."""

from collections.abc import Sequence
from pathlib import Path

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.processes import check_launcher, end_with_launcher
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.streaming.documents import StreamArguments
from weft.recipes.pretraining import training
from weft.recipes.pretraining.arguments import LENGTHS, RunArguments, run_arguments
from weft.recipes.pretraining.checks import check_fields, check_objective
from weft.recipes.pretraining.objectives import argument_groups, make_objective
from weft.recipes.training.model_setup import ModelArguments
from weft.recipes.training.run import carry_out, settings_of
from weft.recipes.training.run_folder import open_run


def pretrain(
    objective: str,
    output_dir: str,
    description: str | None,
    argv: Sequence[str] | None = None,
    offered: Sequence[str] = (),
) -> None:
    """Parse the command line of a recipe and carry its run out.

    Args:
        objective: the recipe's default objective.
        output_dir: the default of that field.
        description: the recipe's docstring.
        argv: the words after the program's name; None: this process's.
        offered: the objectives to choose from; none: only the default.
    """
    end_with_launcher()
    check_launcher(can_shard=True)
    offered = offered or [objective]
    groups = [run_arguments(output_dir, objective, offered), DataArguments, ModelArguments, *argument_groups(offered)]
    parsed = parse_arguments(description, [*groups, StreamArguments], True, True, argv, alternatives=LENGTHS)
    arguments = parsed[RunArguments]
    check_fields(parsed)
    chosen = make_objective(getattr(arguments, "objective", objective), offered, parsed)
    check_objective(chosen, parsed)
    if not arguments.data:
        chosen.require(parsed[DataArguments])
    folder, settings = Path(arguments.output_dir), settings_of(parsed)
    carry_out(
        folder,
        arguments,
        look=lambda: open_run(folder, settings),
        prepare=lambda: training.prepare(chosen, parsed, folder, settings),
    )
