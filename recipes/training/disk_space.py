"""Whether a disk has room for what a run will write there: said before the first step, not at the first checkpoint."""

import math
import shutil
from pathlib import Path

from transformers.trainer_utils import SaveStrategy

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import existing_part
from weft.recipes.common.wording import counted
from weft.recipes.training.checkpoint_folders import checkpoints_of
from weft.recipes.training.checkpoints import WholeCheckpoints

CODE_AND_TOKENIZER = 500_000  # bytes of a checkpoint, roughly


def check_space(trainer: WholeCheckpoints, state_bytes: int, kept_beside: int = 1) -> None:
    """Refuse a run whose checkpoints do not fit on the disk, counting those that are there from before as room.

    Args:
        state_bytes: of the optimizer's state, at least.
        kept_beside: how often the weights are written besides checkpoints, the finished model among them.

    Raises:
        RecipeError: says what is needed and what is free.
    """
    arguments, folder = trainer.args, Path(trainer.args.output_dir)
    if arguments.save_strategy == SaveStrategy.NO or not arguments.should_save:
        return
    weights = weight_bytes(trainer)
    interval = arguments.save_steps if arguments.save_steps >= 1 else arguments.save_steps * arguments.max_steps
    number = math.ceil(arguments.max_steps / interval)
    if arguments.save_total_limit:  # the oldest is removed when the newest is whole
        number = min(number, arguments.save_total_limit + 1 + (trainer.kept_up_to is not None))
    one = weights + state_bytes + CODE_AND_TOKENIZER
    files = (path for checkpoint in checkpoints_of(folder) for path in checkpoint.iterdir() if path.is_file())
    before = sum(path.stat().st_size for path in files)
    needed = number * one + kept_beside * (weights + CODE_AND_TOKENIZER) - before
    free = shutil.disk_usage(existing_part(folder)).free
    if needed > free:
        raise RecipeError(
            f"{folder} is on a disk with {_megabytes(free)} free, and the run needs {_megabytes(needed)}: "
            f"{counted(number, 'checkpoint')} of {_megabytes(one)} at a time, and the model of {_megabytes(weights)}. "
            "Free some space, or give another --output_dir, a smaller --save_total_limit or a larger --save_steps."
        )


def weight_bytes(trainer: WholeCheckpoints) -> int:
    """Bytes of the weights in a checkpoint; of a model with adapters, of these alone."""
    only_trained = hasattr(trainer.model, "peft_config")
    return sum(weight.nbytes for weight in trainer.model.parameters() if weight.requires_grad or not only_trained)


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.1f} MB"
