"""The folder of a fine-tuning run: which fields may change when it goes on, and whether it has begun.

seed-N/    the checkpoints of a seed, its best weights and, in the end, its result
search/    the trials of a search for better settings
"""

from pathlib import Path
from typing import Any

from weft.recipes.common.files import size_and_time
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.hyperparameter_search import TRIALS
from weft.recipes.training.run_folder import FREE_FIELDS, MACHINE_FIELDS, METRICS, RunState, noted_settings, open_run

# Here eval_steps decides which weights are kept.
FREE = FREE_FIELDS - {"per_device_train_batch_size", "processes", "eval_steps"} | {"predict_file", "glue_submission"}


def has_begun(folder: Path) -> bool:
    """Whether anything was trained in a run's folder."""
    return any(folder.glob("seed-*/*")) or any(folder.glob("search/*/*")) or (folder / "search" / TRIALS).is_file()


def look_at(folder: Path, settings: dict[str, Any], defaults: dict[str, Any]) -> RunState:
    """See `open_run`; seeds may be added behind those of a run, which then has only begun."""
    seeds = settings["seeds"]
    defaults = {**defaults, "command": settings["command"]}  # of which older runs say nothing
    before = noted_settings(folder, defaults).get("seeds")
    adds = bool(before) and len(before) < len(seeds) and seeds[: len(before)] == before
    free = FREE | MACHINE_FIELDS if (folder / METRICS).is_file() and not adds else FREE
    state = open_run(folder, {**settings, "seeds": before} if adds else settings, defaults, free, has_begun(folder))
    return RunState.STARTED if adds and state is RunState.FINISHED else state


def fingerprint(files: FileArguments) -> dict[str, list[int]]:
    """Size and time of every local file with examples, so that a run is not resumed on others."""
    paths = files.local_files()
    if files.data is not None:
        paths += sorted(path for path in Path(files.data).rglob("*") if path.is_file())
    return {str(path.resolve()): size_and_time(path) for path in paths}
