"""The checkpoints in a run's folder, each named after its step as the Trainer names them."""

import re
from pathlib import Path

_NAME = re.compile(r"checkpoint-(\d+)")
TRAINING_ONLY = "training_only.safetensors"  # weights of a checkpoint that go on being trained, and nobody loads


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint of a step."""
    return f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint is of."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the earliest first."""
    return sorted((path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)), key=step_of)
