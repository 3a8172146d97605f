"""The commands of fine-tuning: from their fields to a published model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weft.recipes.common.command_line import MANAGED_TRAINER_FIELDS, Parsed, parse_arguments
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.processes import check_launcher, end_with_launcher
from weft.recipes.finetuning.arguments import FileArguments, FineTuningArguments, ModelSetupArguments
from weft.recipes.finetuning.hyperparameter_search import SearchArguments
from weft.recipes.finetuning.run_folder import fingerprint, look_at
from weft.recipes.finetuning.tasks import arguments_of, known_task, task_class
from weft.recipes.training.hub import check_name
from weft.recipes.training.run import carry_out, settings_of

if TYPE_CHECKING:
    from weft.recipes.finetuning.task import Task

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
    "label_smoothing_factor": "this task has no label smoothing",
}


def finetune(task_name: str, description: str | None, argv: Sequence[str] | None = None) -> None:
    """Parse the command line and carry the run out: plan, train each seed, choose, evaluate, report, publish."""
    end_with_launcher()
    check_launcher()
    own, lengths = arguments_of(task_name), ("num_train_epochs", "max_steps")
    groups = [FineTuningArguments, own, ModelSetupArguments, SearchArguments]
    parsed = parse_arguments(description, groups, True, True, argv, lengths, MANAGED, own.model_fields)
    if parsed[FileArguments].task == task_name:  # the examples are of one's own
        parsed[FileArguments].task = None
    task = _read_task(task_name, parsed)
    files, setup_arguments = parsed[FileArguments], parsed[ModelSetupArguments]
    arguments = parsed[FineTuningArguments]
    folder = Path(arguments.output_dir or f"runs/{files.name}")
    arguments.output_dir = str(folder)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"output_dir {folder} is a file: give another.")
    from weft.recipes.finetuning import report, setup  # with the Trainer, which no refusal of a field waits for

    extras = setup.extras_of(setup_arguments, folder)
    fields = {**extras, **parsed.model}
    settings = settings_of(parsed) | extras | parsed.model
    settings |= {"files": fingerprint(files), "seeds": arguments.seeds_for(task.splits["train"])}
    carry_out(
        folder,
        arguments,
        look=lambda: look_at(folder, settings),
        prepare=lambda: setup.FineTuningRun(task, parsed, fields, folder, settings),
        use_finished=lambda: report.use_finished(task, arguments, setup_arguments, settings, folder),
    )


def _read_task(name: str, parsed: Parsed) -> "Task":
    """Check the fields and read the data; raises RecipeError."""
    arguments, files = parsed[FineTuningArguments], parsed[FileArguments]
    arguments.check()
    files.check_files()
    parsed[SearchArguments].check(parsed)
    if arguments.push_to_hub is not None:
        check_name(arguments.push_to_hub)
    parsed.refuse_together(("num_train_epochs",), "max_steps", "it is the length")
    parsed.refuse_without(("hub_private_repo",), "push_to_hub")
    parsed.refuse_without(("lora_alpha", "lora_dropout"), "lora_rank")
    task = task_class(name).read(files, arguments)
    task.known = known_task(name, files.task)
    for name, reason in task.refused_fields.items():
        if name in parsed.given:
            raise RecipeError(f"{name} is given: {reason}.")
    if arguments.predict_file is not None:
        task.read_unlabelled(Path(arguments.predict_file))  # what is wrong with it is said before training
    return task
