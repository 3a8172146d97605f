"""The folder of a run: started, resumed, finished or refused, never overwritten.

run.json        the fields the run was started with; written first
plan.json       what was derived from them, for a resumed run to keep
checkpoint-N/   a `from_pretrained` folder with what resuming needs
metrics.json    written last: its presence means that the run is finished
.lock           held by the process that works in the folder
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Set
from enum import Enum
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import flush_to_disk, only_one_process, read_json, refuse_unwritable, write_json
from weft.recipes.common.processes import is_first_process
from weft.recipes.common.wording import MOST_NAMED
from weft.recipes.training.checkpoints import remove_unfinished

SETTINGS = "run.json"
PLAN = "plan.json"
METRICS = "metrics.json"

# Fields that change how a run is watched, cut or published, but not which model comes out of it.
FREE_FIELDS = {
    *("per_device_train_batch_size", "per_device_eval_batch_size", "plan", "push_to_hub", "hub_revisions"),
    *("hub_private_repo", "logging_steps", "eval_steps", "save_steps", "save_total_limit", "report_to", "run_name"),
    *("disable_tqdm", "dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_pin_memory", "use_cpu"),
    *("torch_compile", "torch_compile_backend", "torch_compile_mode", "gradient_checkpointing", "output_dir"),
    *("sample_prompt", "project", "logging_first_step", "ddp_backend", "processes", "activation_checkpointing"),
}
# Of these, what decides which rows share the random numbers of dropout.
CUT_FIELDS = {"per_device_train_batch_size", "processes"}
# What says nothing more of a run that is finished.
MACHINE_FIELDS = CUT_FIELDS | {"cpu_threads", "gradient_accumulation_steps"}


class RunState(Enum):
    NEW = "new"
    STARTED = "started"
    FINISHED = "finished"


def open_run(
    folder: Path,
    settings: dict[str, Any],
    defaults: dict[str, Any],
    free: Set[str] | None = None,
    has_begun: bool | None = None,
) -> RunState:
    """Look at a run's folder and compare the settings it was started with.

    Args:
        defaults: see `noted_settings`.
        free: names of settings that may change; None: those of pretraining.
        has_begun: whether anything was trained; None: whether there is a checkpoint.

    Raises:
        RecipeError: the folder holds a run with other settings, or something that is no run.
    """
    # before it looks for the settings: what another process of the run writes after them is not taken for foreign
    foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if not (folder / SETTINGS).is_file():
        if set(foreign) - {"data", "stream"}:
            raise RecipeError(
                f"{folder} holds files that are no run of this recipe ({', '.join(sorted(foreign)[:3])} ...): give "
                "another --output_dir."
            )
        return RunState.NEW
    has_begun = last_checkpoint(folder) is not None if has_begun is None else has_begun
    is_finished = (folder / METRICS).is_file()
    if not is_finished and not has_begun:
        return RunState.NEW  # nothing was trained yet: the command may be corrected
    before = noted_settings(folder, defaults)
    if free is None:
        free = FREE_FIELDS | MACHINE_FIELDS if is_finished else free_fields(settings)
    changed = sorted(
        name for name in before.keys() | settings.keys() if name not in free and before.get(name) != settings.get(name)
    )
    if changed:
        told = {name: (_told(before.get(name)), _told(settings.get(name))) for name in changed[:4]}
        differences = "; ".join(f"{name} was {was}, now {now}" for name, (was, now) in told.items())
        raise RecipeError(
            f"{folder} holds a run with other settings ({differences}): give another --output_dir, or the same "
            "settings to resume it."
        )
    return RunState.FINISHED if is_finished else RunState.STARTED


def noted_settings(folder: Path, defaults: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run in a folder, nothing where there is none; a field younger than it is at its default."""
    return {**defaults, **read_json(folder / SETTINGS)} if (folder / SETTINGS).is_file() else {}


def _told(value: Any) -> str:
    """A value as a message has it; of a long list its length."""
    is_long = isinstance(value, list) and len(value) > MOST_NAMED
    return f"a list of {len(value):,} that begins with {value[0]!r}" if is_long else repr(value)


def free_fields(settings: dict[str, Any]) -> set[str]:
    """The fields that may change while a pretraining run with these settings goes on."""
    dropout = any(settings.get(name) for name in ("attention_dropout", "hidden_dropout"))
    return FREE_FIELDS - CUT_FIELDS if dropout else FREE_FIELDS


def start_run(folder: Path, settings: dict[str, Any], has_begun: bool | None = None) -> None:
    """Note the settings of a new run, or clean up what a killed one left half-written (has_begun: as in `open_run`)."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    if not (last_checkpoint(folder) is not None if has_begun is None else has_begun):
        write_json(folder / SETTINGS, settings)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint, which is whole because it has its name."""
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def note_plan(folder: Path, derived: dict[str, Any]) -> None:
    """Note what a run derives from its fields."""
    write_json(folder / PLAN, derived)


def noted_plan(folder: Path) -> dict[str, Any]:
    """What a run that has begun was derived to be; nothing where none has."""
    is_there = (folder / PLAN).is_file() and last_checkpoint(folder) is not None
    return read_json(folder / PLAN) if is_there else {}


@contextlib.contextmanager
def finished_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, whose content is then flushed and takes its places in the run's folder."""
    staging = folder / ".finished.partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        flush_to_disk(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    for path in staging.iterdir():
        if path.is_dir():
            shutil.rmtree(folder / path.name, ignore_errors=True)
        path.replace(folder / path.name)
    staging.rmdir()


@contextlib.contextmanager
def opened(folder: Path, look: Callable[[], RunState], is_plan: bool) -> Iterator[RunState]:
    """Look at the run's folder, and lock it unless the run is only planned."""
    if is_plan:
        yield RunState.NEW
        return
    lock = contextlib.nullcontext()
    if is_first_process():
        refuse_unwritable(folder)
        look()  # before the lock, so that none is left in a folder that is refused
        lock = only_one_process(folder / ".lock", str(folder))
    with lock:
        yield look()
