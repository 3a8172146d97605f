"""Data sets of preferences that are known by name: none yet; give files, or a data set of the Hub."""

from weft.recipes.finetuning.known_tasks import KnownTask

KNOWN_TASKS: dict[str, KnownTask] = {}
