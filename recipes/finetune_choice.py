"""Fine-tune a model to choose among several texts (multiple choice).

    accelerate launch recipes/finetune_choice.py [CONFIG.yaml] [--field value ...]

Known tasks (--task): swag, hellaswag, piqa, winogrande (with less training data: winogrande_xs, _s, _m, _l),
arc_easy, arc_challenge, from the Hub or, with --data FOLDER, from their official files:
    accelerate launch recipes/finetune_choice.py --task swag --model_name_or_path runs/pretrain_mlm --max_length 128
On your own examples, a row each with question or context (or both), choices (two or more; their number may differ) and
label (a number from 0, a letter or the choice's text), or in the form of any of these tasks:
    accelerate launch recipes/finetune_choice.py --train_file train.jsonl --validation_file dev.jsonl
"""

from collections.abc import Sequence

from weft.recipes.common.errors import run_command
from weft.recipes.common.finetuning.arguments import FileArguments, FineTuningArguments
from weft.recipes.common.finetuning.choosing.kind import ChoiceKind
from weft.recipes.common.finetuning.run import finetune
from weft.recipes.common.finetuning.task_files import TaskFiles


def _winogrande(size: str) -> TaskFiles:
    return TaskFiles(
        {"train": (f"train_{size}.jsonl",), "validation": ("dev.jsonl",)},
        hub="allenai/winogrande",
        hub_config=f"winogrande_{size}",
    )


def _arc(name: str) -> TaskFiles:
    """The official archive has a folder for each of the two sets."""
    parts = {"train": "Train", "validation": "Dev", "test": "Test"}
    files = {split: (f"{name}-{part}.jsonl", f"{name}/{name}-{part}.jsonl") for split, part in parts.items()}
    return TaskFiles(files, hub="allenai/ai2_arc", hub_config=name, hub_splits={split: split for split in parts})


CHOICE_TASKS = {
    "swag": TaskFiles(
        {"train": ("train.csv",), "validation": ("val.csv", "dev.csv", "validation.csv")},
        hub="allenai/swag",
        hub_config="regular",
    ),
    "hellaswag": TaskFiles(
        {
            "train": ("hellaswag_train.jsonl", "train.jsonl"),
            "validation": ("hellaswag_val.jsonl", "val.jsonl", "dev.jsonl"),
        },
        hub="Rowan/hellaswag",
    ),
    "piqa": TaskFiles(
        {"train": ("train.jsonl",), "validation": ("valid.jsonl", "dev.jsonl")},
        hub="ybisk/piqa",
    ),
    "winogrande": _winogrande("xl"),
    **{f"winogrande_{size}": _winogrande(size) for size in ("xs", "s", "m", "l")},
    "arc_easy": _arc("ARC-Easy"),
    "arc_challenge": _arc("ARC-Challenge"),
}


def make_kind(files: FileArguments, _: FineTuningArguments) -> ChoiceKind:
    """Read and check the examples; raises RecipeError."""
    return ChoiceKind(files, CHOICE_TASKS)


def main(argv: Sequence[str] | None = None) -> None:
    finetune(make_kind, FileArguments, __doc__, argv)


if __name__ == "__main__":
    run_command(main)
