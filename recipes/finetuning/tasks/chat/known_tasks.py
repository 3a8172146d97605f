"""The conversations that every Python carries."""

from weft.recipes.finetuning.known_tasks import KnownTask
from weft.recipes.finetuning.tasks.chat.arguments import BUILTIN

KNOWN_TASKS = {BUILTIN: KnownTask(files={}, about="questions about Python's standard library")}
