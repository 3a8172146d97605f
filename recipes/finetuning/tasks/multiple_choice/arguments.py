"""The fields of multiple choice: those that say where the examples are."""

from weft.recipes.finetuning.arguments import FileArguments


class MultipleChoiceArguments(FileArguments):
    """Where the examples are."""

    command = "finetune_choice"


ARGUMENTS = MultipleChoiceArguments
