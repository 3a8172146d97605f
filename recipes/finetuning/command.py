"""The commands of fine-tuning: fields are read and checked without torch, so that a refusal comes at once."""

from collections.abc import Sequence

from weft.recipes.common.command_line import MANAGED_TRAINER_FIELDS, Parsed, parse_arguments
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.processes import check_launcher, end_with_launcher
from weft.recipes.finetuning.arguments import FileArguments, FineTuningArguments, ModelSetupArguments
from weft.recipes.finetuning.hyperparameter_search import SearchArguments
from weft.recipes.finetuning.tasks import arguments_of, known_task_names
from weft.recipes.training.hub import check_name

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
    """Parse the command line, and carry the run out.

    Args:
        task_name: see `tasks.task_names`.
        description: the recipe's docstring.
        argv: the words after the program's name; None: this process's.
    """
    parsed = _read(task_name, description, argv)
    from weft.recipes.finetuning.run import run_task  # with torch, which no refusal waits for

    run_task(task_name, parsed)


def _read(task_name: str, description: str | None, argv: Sequence[str] | None = None) -> Parsed:
    """Parse and check the command line (raises RecipeError: a field or a file is not what it has to be)."""
    own = arguments_of(task_name)
    groups = [FineTuningArguments, own, ModelSetupArguments, SearchArguments]
    parsed = parse_fields(description, groups, argv, own.model_fields)
    files = parsed[FileArguments]
    if files.task == task_name:
        if not files.local_files() and files.dataset_name is None:
            known = [data_set for data_set, task in known_task_names().items() if task == task_name]
            named = f", or as task a data set that is known: {', '.join(known)}" if known else ""
            raise RecipeError(
                f"task {task_name} is named without examples: give files of your own or dataset_name (see --help)"
                f"{named}."
            )
        files.task = None
    check_fields(parsed)
    parsed[SearchArguments].check(parsed)
    return parsed


def parse_fields(
    description: str | None,
    groups: Sequence[type],
    argv: Sequence[str] | None,
    model_fields: Sequence[str] | None = None,
) -> Parsed:
    """Parse the command line of any fine-tuning, see `parse_arguments`."""
    end_with_launcher()
    check_launcher()
    lengths = ("num_train_epochs", "max_steps")
    return parse_arguments(description, groups, True, True, argv, lengths, MANAGED, model_fields)


def check_fields(parsed: Parsed) -> None:
    """Refuse what is wrong with the fields that every fine-tuning has; raises RecipeError."""
    arguments = parsed[FineTuningArguments]
    arguments.check()
    parsed[ModelSetupArguments].check()
    parsed[FileArguments].check_files()
    if arguments.push_to_hub is not None:
        check_name(arguments.push_to_hub)
    parsed.refuse_together(("num_train_epochs",), "max_steps", "it is the length")
    parsed.refuse_without(("hub_private_repo",), "push_to_hub")
    parsed.refuse_without(("lora_alpha", "lora_dropout"), "lora_rank")
