"""Fine-tune a model on a known task, or on examples of your own: `--task NAME`, and every field of that task.

    accelerate launch recipes/finetune.py --task sst2 --model_name_or_path runs/pretrain_mlm [--data FOLDER]
    accelerate launch recipes/finetune.py --task token_classification --train_file train.txt

| task | the same by itself |
| --- | --- |
| text_classification: of texts and pairs, regression | finetune_classification.py |
| token_classification: labels for words and spans | finetune_tokens.py |
| question_answering | finetune_qa.py |
| multiple_choice | finetune_choice.py |
| seq2seq: text to text | finetune_seq2seq.py |
| chat: answers in a conversation | finetune_chat.py |
| preferences: chosen and rejected answers (DPO, KTO, ORPO) | finetune_preferences.py |

--task NAME --help says what a task takes, --task NAME --help_all all of it.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from weft.recipes.common.command_line import load_yaml
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.finetuning.command import finetune
from weft.recipes.finetuning.tasks import arguments_of, known_task_names, task_class, task_names


def task_of(words: Sequence[str]) -> str | None:
    """The task that a command line names, or else its YAML file."""
    for number, word in enumerate(words):
        if word.startswith("--task="):
            return word.removeprefix("--task=")
        if word == "--task" and number + 1 < len(words):
            return words[number + 1]
    file = Path(words[0]) if words and not words[0].startswith("-") else None
    if file is not None:
        content = load_yaml(file)
        return content.get("task") if isinstance(content, dict) else None
    return None


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    name, known = task_of(words), known_task_names()
    names = [*known, *task_names()]
    if name is None:
        if {"-h", "--help", "--help_all"} & set(words):
            print(f"{__doc__}\nTasks: {', '.join(task_names())}\nKnown data sets: {', '.join(known)}")
            return
        if misspelt := difflib.get_close_matches("--task", [word for word in words if word.startswith("--")], n=1):
            raise RecipeError(f"unknown field {misspelt[0]} (did you mean task?).")
        raise RecipeError(f"no task is named: give --task, one of {', '.join(names)}.")
    if name not in names:
        near = difflib.get_close_matches(name.lower().replace("-", ""), names, n=1)
        hint = f"did you mean {near[0]}? --help names all." if near else f"choose one of {', '.join(names)}."
        raise RecipeError(f"task {name!r} is unknown: {hint}")
    task = known.get(name, name)
    command = arguments_of(task).command
    description = importlib.import_module(f"weft.recipes.{command}").__doc__ if command else task_class(task).__doc__
    finetune(task, description, words)


if __name__ == "__main__":
    run_command(main)
