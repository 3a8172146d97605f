"""The commands of pretraining: fields are read and checked without the Trainer, so that a refusal comes at once."""

from collections.abc import Sequence

from weft.recipes.common.command_line import Parsed, parse_arguments
from weft.recipes.common.processes import check_launcher, end_with_launcher
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.streaming.documents import StreamArguments
from weft.recipes.pretraining.arguments import LENGTHS, RunArguments, run_arguments
from weft.recipes.pretraining.checks import check_fields, check_objective
from weft.recipes.pretraining.distillation.arguments import TeacherArguments
from weft.recipes.pretraining.objectives import argument_groups, make_objective, model_fields
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.training.model_arguments import ModelArguments


def pretrain(
    objective: str,
    output_dir: str,
    description: str | None,
    argv: Sequence[str] | None = None,
    offered: Sequence[str] = (),
) -> None:
    """Parse the command line, and carry the run out.

    Args:
        objective: the recipe's default objective.
        output_dir: the default of that field.
        description: the recipe's docstring.
        argv: the words after the program's name; None: this process's.
        offered: the objectives to choose from; none: only the default.
    """
    chosen, parsed = read_command(objective, output_dir, description, argv, offered or [objective])
    from weft.recipes.pretraining.run import run_objective  # with the Trainer, which no refusal waits for

    run_objective(chosen, parsed)


def read_command(
    objective: str, output_dir: str, description: str | None, argv: Sequence[str] | None, offered: Sequence[str]
) -> tuple[Objective, Parsed]:
    """Parse and check the command line; of the arguments see `pretrain`.

    Returns:
        The chosen objective, and all fields.

    Raises:
        RecipeError: the launcher, a field or several together cannot be obeyed.
    """
    end_with_launcher()
    check_launcher(can_shard=True)
    groups = [run_arguments(output_dir, objective, offered), DataArguments, ModelArguments, *argument_groups(offered)]
    groups, fields = [*groups, TeacherArguments, StreamArguments], model_fields(offered)
    parsed = parse_arguments(description, groups, True, True, argv, alternatives=LENGTHS, model_fields=fields)
    arguments = parsed[RunArguments]
    check_fields(parsed)
    chosen = make_objective(getattr(arguments, "objective", objective), offered, parsed)
    check_objective(chosen, parsed)
    if not arguments.data:
        chosen.require(parsed[DataArguments])
    return chosen, parsed
