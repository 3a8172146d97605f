"""Fine-tune a model on a known task, whatever kind it is of: `--task NAME`, and every field of that kind's own recipe.

    accelerate launch recipes/finetune.py --task sst2 --model_name_or_path runs/pretrain_mlm [--data FOLDER]

| kind | recipe |
| --- | --- |
| classification of texts and pairs, regression | finetune_classification.py |
| labels for words and spans | finetune_tokens.py |
| question answering | finetune_qa.py |
| multiple choice | finetune_choice.py |
| text to text | finetune_seq2seq.py |

Each of them takes data of your own too; see its --help, or that of a task: --task sst2 --help.
"""

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from weft.recipes import finetune_choice, finetune_classification, finetune_qa, finetune_seq2seq, finetune_tokens
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.finetuning.tasks.seq2seq.known_tasks import TASKS as SEQUENCE_TASKS
from weft.recipes.finetuning.tasks.text_classification.known_tasks import TEXT_TASKS
from weft.recipes.finetuning.tasks.text_classification.reading import EMBEDDED
from weft.recipes.finetuning.tasks.token_classification.known_tasks import TASKS as TAG_TASKS

Main = Callable[[Sequence[str]], None]

RECIPES: dict[str, Main] = {
    **dict.fromkeys((EMBEDDED, *TEXT_TASKS), finetune_classification.main),
    **dict.fromkeys(TAG_TASKS, finetune_tokens.main),
    **dict.fromkeys(finetune_qa.QUESTION_TASKS, finetune_qa.main),
    **dict.fromkeys(finetune_choice.CHOICE_TASKS, finetune_choice.main),
    **dict.fromkeys(SEQUENCE_TASKS, finetune_seq2seq.main),
}


def task_of(words: Sequence[str]) -> str | None:
    """The task that a command line names, or else its YAML file."""
    for number, word in enumerate(words):
        if word.startswith("--task="):
            return word.removeprefix("--task=")
        if word == "--task" and number + 1 < len(words):
            return words[number + 1]
    file = Path(words[0]) if words and not words[0].startswith("-") else None
    if file is not None and file.is_file():
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{file} is not YAML: {' '.join(str(error).split())}.") from error
        return content.get("task") if isinstance(content, dict) else None
    return None


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    task = task_of(words)
    if task is None:
        if {"-h", "--help"} & set(words):
            print(f"{__doc__}\nTasks: {', '.join(RECIPES)}")
            return
        raise RecipeError(f"no task is named: give --task, one of {', '.join(RECIPES)}.")
    if task not in RECIPES:
        near = difflib.get_close_matches(task.lower().replace("-", ""), RECIPES, n=1)
        hint = f"did you mean {near[0]}? All tasks: " if near else "choose one of "
        raise RecipeError(f"task {task!r} is unknown: {hint}{', '.join(RECIPES)}.")
    RECIPES[task](words)


if __name__ == "__main__":
    run_command(main)
