"""The tasks of fine-tuning: one folder each, with everything that only it knows.

`arguments.py` says `ARGUMENTS`, the dataclass of its command-line fields. `known_tasks.py` lists data sets by name as
`KNOWN_TASKS`. `task.py` says `TASK`. The first two import neither torch nor transformers' models.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.known_tasks import KnownTask

if TYPE_CHECKING:
    from weft.recipes.finetuning.task import ScoredTask

_registered: dict[str, SimpleNamespace] = {}


def register(
    name: str,
    task: "type[ScoredTask]",
    known_tasks: Mapping[str, KnownTask] | None = None,
    arguments: type[FileArguments] = FileArguments,
) -> None:
    """Offer a task that is defined outside of this folder, and data sets of it, as `finetune.py --task NAME`.

    Raises:
        ValueError: another task or data set has one of the names.
    """
    if name in _registered and _registered[name].TASK is task:
        del _registered[name]
    names = {name, *(known_tasks or {})} & {*task_names(), *known_task_names()}
    if names:
        raise ValueError(f"a task is called {min(names)!r} already: choose another name.")
    _registered[name] = SimpleNamespace(TASK=task, KNOWN_TASKS=known_tasks or {}, ARGUMENTS=arguments)


def task_names() -> list[str]:
    """The tasks themselves, which take examples of one's own: those of this folder, then the registered ones."""
    return [*(entry.name for entry in pkgutil.iter_modules(__path__) if entry.ispkg), *_registered]


def known_task_names() -> dict[str, str]:
    """The names of all known data sets, each with the name of its task."""
    return {known: name for name in task_names() for known in _of(name, "known_tasks").KNOWN_TASKS}


def known_task(name: str, known: str | None) -> KnownTask | None:
    """What is known of a data set of a task; None where none of its own is named."""
    return _of(name, "known_tasks").KNOWN_TASKS.get(known)


def arguments_of(name: str) -> type[FileArguments]:
    """The command-line fields of a task."""
    return _of(name, "arguments").ARGUMENTS


def task_class(name: str) -> "type[ScoredTask]":
    """The class of a task."""
    return _of(name, "task").TASK


def _of(name: str, door: str) -> Any:
    return _registered.get(name) or importlib.import_module(f"{__name__}.{name}.{door}")
