"""The conversations of each split: of files, of a data set of the Hub, or those that Python carries."""

import itertools
from pathlib import Path

from weft.recipes.data.conversations import (
    ASSISTANT,
    Conversation,
    ConversationColumns,
    Message,
    conversations_of,
    read_conversations,
)
from weft.recipes.data.tables import Record
from weft.recipes.finetuning.known_tasks import read_splits
from weft.recipes.finetuning.tasks.chat.arguments import BUILTIN, ChatArguments
from weft.recipes.finetuning.tasks.chat.builtin_task import pydoc_conversations
from weft.recipes.finetuning.tasks.chat.known_tasks import KNOWN_TASKS
from weft.recipes.finetuning.validation_split import squeezed


def asked_first(conversation: Conversation) -> str:
    """What stands before the first answer, by which equal conversations are told."""
    said = (f"{message['role']}: {message.get('content', '')}" for message in before_answer(conversation))
    return squeezed("\n".join(said))


def before_answer(conversation: Conversation) -> list[Message]:
    """The messages before the first answer."""
    return list(itertools.takewhile(lambda message: message["role"] != ASSISTANT, conversation.messages))


def columns_of(files: ChatArguments) -> ConversationColumns:
    """The columns that were named."""
    return ConversationColumns(files.messages_column, files.prompt_column, files.completion_column)


def read_all(files: ChatArguments) -> tuple[dict[str, list[Conversation]], list[str]]:
    """The conversations of each split, and the faults of those that are skipped.

    Raises:
        RecipeError: no source is given, a file is missing, a conversation is broken, none in a split.
    """
    if files.task == BUILTIN:
        splits = pydoc_conversations()
        splits["train"] = splits["train"][: files.max_train_examples]
        return splits, []
    columns, faults = columns_of(files), []
    broken = faults if files.broken == "skip" else None

    def from_file(path: Path) -> list[Conversation]:
        return read_conversations(path, columns, broken)

    def from_records(records: list[Record]) -> list[Conversation]:
        return conversations_of(records, columns, broken)

    return read_splits(files, KNOWN_TASKS, from_file, from_records, asked_first), faults
