"""The skeleton of every training run: open and lock its folder, plan, train or resume, report, publish."""

import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import transformers

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import Stopped, refusing_unwritable
from weft.recipes.common.processes import end_group, is_first_process, world_size
from weft.recipes.training.hub import publish
from weft.recipes.training.run_folder import RunState, last_checkpoint, opened


class RunFields(Protocol):
    """The fields that every run has."""

    plan: bool
    push_to_hub: str | None
    hub_private_repo: bool


class Run(Protocol):
    """A run whose data are read and whose model can be made."""

    def describe(self) -> str:
        """The plan in words, made in every process."""

    def train(self) -> bool:
        """Train, or go on from the last checkpoint, and write the report; False where SIGTERM ended it on the way."""


def settings_of(parsed: Parsed) -> dict[str, Any]:
    """All fields of a run and the number of its processes, as run.json notes them."""
    own = {name: value for group in parsed.groups for name, value in asdict(group).items()}
    return {**own, **parsed.model, **parsed.trainer, "processes": world_size()}


def defaults_of(parsed: Parsed) -> dict[str, Any]:
    """The same of a run for which nothing was given; none is one objective among several by default."""
    return settings_of(Parsed([type(group)() for group in parsed.groups], {}, {})) | {"objective": None}


def carry_out(
    folder: Path,
    arguments: RunFields,
    look: Callable[[], RunState],
    prepare: Callable[[], Run],
    use_finished: Callable[[], None] = lambda: None,
) -> None:
    """Carry a run out, in every process of it.

    Args:
        look: looks at the folder and refuses one that is another run's.
        prepare: reads the data, and refuses what cannot be trained.
        use_finished: does, in one process, what a finished run is asked for besides publishing.

    Raises:
        Stopped: SIGTERM ended the run on the way.
    """
    transformers.logging.disable_progress_bar()
    revisions = getattr(arguments, "hub_revisions", "false")
    with refusing_unwritable(lambda: _kept(folder)), opened(folder, look, arguments.plan) as state:
        finished = state is RunState.FINISHED
        if not finished:
            run = prepare()
            plan = run.describe()
            if is_first_process():
                print(f"plan of {folder}\n{plan}", flush=True)
            if arguments.plan:
                return
            finished = run.train()
            end_group()  # uploads may take longer than its time limit
            if not finished:
                raise Stopped(signal.SIGTERM)
        elif is_first_process():
            print(f"{folder} is finished: nothing to train (give another --output_dir for a new run)")
            use_finished()
        if finished and is_first_process() and arguments.push_to_hub is not None:
            address = publish(folder, arguments.push_to_hub, revisions, arguments.hub_private_repo)
            print(f"published as {address}", flush=True)


def _kept(folder: Path) -> str:
    """What a run that could not write goes on from."""
    found = [last_checkpoint(path) for path in (folder, *sorted(folder.glob("seed-*")))]
    whole = [name for name in found if name is not None]
    return f" It goes on from {whole[-1]}, the last whole checkpoint." if whole else ""
