"""A fine-tuning run, from its fields to a published model."""

from pathlib import Path

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FileArguments, FineTuningArguments, ModelSetupArguments
from weft.recipes.finetuning.report import use_finished
from weft.recipes.finetuning.run_folder import look_at
from weft.recipes.finetuning.setup import FineTuningRun, folder_and_settings
from weft.recipes.finetuning.task import ScoredTask
from weft.recipes.finetuning.tasks import known_task, task_class
from weft.recipes.training.card_fields import languages
from weft.recipes.training.run import carry_out, defaults_of


def run_task(task_name: str, parsed: Parsed) -> None:
    """Carry the run out: plan, train each seed, choose, evaluate, report, publish.

    Args:
        task_name: see `tasks.task_names`.
        parsed: the fields of the command line, checked.
    """
    arguments, files = parsed[FineTuningArguments], parsed[FileArguments]
    task, setup = _read_task(task_name, parsed), parsed[ModelSetupArguments]
    folder, fields, settings = folder_and_settings(parsed, files.name, task.splits["train"])
    carry_out(
        folder,
        arguments,
        look=lambda: look_at(folder, settings, defaults_of(parsed)),
        prepare=lambda: FineTuningRun(task, parsed, fields, folder, settings),
        use_finished=lambda: use_finished(task, arguments, setup, settings, folder),
    )


def _read_task(name: str, parsed: Parsed) -> ScoredTask:
    """Read and check the data; raises RecipeError."""
    arguments, files = parsed[FineTuningArguments], parsed[FileArguments]
    task = task_class(name).read(files, arguments)
    task.known = known_task(name, files.task)
    task.language = languages(files.card_language) or task.language
    for field, reason in task.refused_fields.items():
        if field in parsed.given:
            raise RecipeError(f"{field} is given: {reason}.")
    for field, value in task.default_fields.items():
        if field not in parsed.given:
            setattr(arguments, field, value)
    if arguments.predict_file is not None:
        task.read_unlabelled(Path(arguments.predict_file))  # what is wrong with it is said before training
    return task
