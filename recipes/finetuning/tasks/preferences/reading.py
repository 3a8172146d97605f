"""Preferences in: a prompt with a chosen and a rejected answer, or with one answer and whether it is wanted."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.conversations import (
    ASSISTANT,
    USER,
    Message,
    check_messages,
    messages_of_value,
    text_message,
    tools_of,
)
from weft.recipes.data.tables import Record, read_records, text_of, value_of
from weft.recipes.finetuning.tasks.preferences.arguments import PreferenceArguments
from weft.recipes.finetuning.validation_split import squeezed

PROMPTS = ("prompt", "messages", "conversations", "question", "instruction")
LABELS = {"true": True, "false": False, "1": True, "0": False}
Said = str | list[Message]  # a text as it is, or the messages of a conversation


@dataclass(frozen=True)
class Preference:
    """What was asked, and what was answered.

    Attributes:
        prompt: all texts, or all messages, as are the answers.
        answers: the chosen and the rejected one, or a single one.
        wanted: of a single one, whether it is; None of a pair.
        where: its place in words.
        tools: of a conversation, that the assistant may call, as JSON schemas.
    """

    prompt: Said
    answers: tuple[Said, ...]
    wanted: bool | None
    where: str
    tools: list[dict[str, Any]] | None = None

    @property
    def is_conversation(self) -> bool:
        return isinstance(self.prompt, list)

    @property
    def kind(self) -> str:
        """What examples of one file have in common, in words."""
        of = "conversations" if self.is_conversation else "texts"
        return f"{of} with {'a chosen and a rejected answer' if self.wanted is None else 'a single answer'}"


def prompt_of(preference: Preference) -> str:
    """The prompt of an example, by which equal ones are told."""
    prompt = preference.prompt
    return squeezed(prompt) if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)


def told(said: Said) -> str:
    """A prompt or an answer for people to read."""
    if isinstance(said, str):
        return said
    only = len(said) == 1 and said[0]["role"] == ASSISTANT
    return "\n".join(str(m.get("content", "")) if only else f"{m['role']}: {m.get('content', '')}" for m in said)


def read_preferences(path: Path, columns: PreferenceArguments) -> list[Preference]:
    """Read the preferences of a file; see `preferences_of`."""
    return preferences_of(read_records(path), columns)


def preferences_of(records: Iterable[Record], columns: PreferenceArguments) -> list[Preference]:
    """Read the preferences of rows.

    Answers that are conversations may hold the prompt: it is what both begin with. A prompt that is a text beside
    answers that are messages becomes a message of the user.

    Raises:
        RecipeError: a column is missing; a prompt or answer is empty or broken; both answers are the same; a row is of
            another kind than the first. Names the row.
    """
    found: list[Preference] = []
    for record in records:
        preference = _preference_of(record, columns)
        if found and preference.kind != found[0].kind:
            raise RecipeError(
                f"{record.where}: {preference.kind}, where {found[0].where} has {found[0].kind}: give one kind."
            )
        found.append(preference)
    return found


def _preference_of(record: Record, columns: PreferenceArguments) -> Preference:
    is_single = columns.chosen_column not in record.values and columns.completion_column in record.values
    named = ("completion_column",) if is_single else ("chosen_column", "rejected_column")
    answers = [_said(record, getattr(columns, name), name) for name in named]
    prompt = _prompt_of(record, columns, all(isinstance(answer, list) for answer in answers))
    wanted = _label_of(record, columns.label_column) if is_single else None
    if len(answers) == 2 and answers[0] == answers[1]:
        raise RecipeError(f"{record.where}: the chosen answer is the rejected one: drop the row, or mend one of both.")
    if prompt is None or any(isinstance(said, list) for said in (prompt, *answers)):
        prompt, answers = _as_conversations(prompt, answers, record.where)
    tools = tools_of(record) if isinstance(prompt, list) else None
    return Preference(prompt, tuple(answers), wanted, record.where, tools)


def _said(record: Record, column: str, option: str) -> Said:
    value = value_of(record, column, option)
    if not isinstance(value, list):
        return text_of(record, column, option)
    messages = messages_of_value(value, f"{record.where}, column {column!r}")
    if not messages:
        raise RecipeError(f"{record.where}: the list in column {column!r} is empty: mend or drop the row.")
    return messages


def _prompt_of(record: Record, columns: PreferenceArguments, may_be_missing: bool) -> Said | None:
    """The prompt; None where there is no column of one, and the answers may hold it."""
    column = columns.prompt_column or next((name for name in PROMPTS if name in record.values), None)
    if column is not None:
        return _said(record, column, "prompt_column")
    if may_be_missing:
        return None
    raise RecipeError(f"{record.where}: no prompt: there are {', '.join(record.values)}; name it with --prompt_column.")


def _label_of(record: Record, column: str) -> bool:
    value = value_of(record, column, "label_column")
    label = LABELS.get(str(value).strip().lower())
    if label is None:
        raise RecipeError(f"{record.where}: column {column!r} holds {value!r}: give true or false.")
    return label


def _as_conversations(
    prompt: Said | None, answers: Sequence[Said], where: str
) -> tuple[list[Message], list[list[Message]]]:
    """Prompt and answers as messages, the answers without what they share with the prompt."""
    said = [answer if isinstance(answer, list) else [text_message(ASSISTANT, answer)] for answer in answers]
    if all(messages[0]["role"] != ASSISTANT for messages in said):
        shared = shared_by(said) if len(said) > 1 else len(said[0]) - 1
        prompt, said = said[0][:shared], [messages[shared:] for messages in said]
    elif prompt is None:
        raise RecipeError(f"{where}: no prompt: the answers begin with the assistant; name it with --prompt_column.")
    asked = prompt if isinstance(prompt, list) else [text_message(USER, prompt)]
    for answer in said:
        check_messages([*asked, *answer], where)
        if not answer or answer[0]["role"] != ASSISTANT:
            raise RecipeError(
                f"{where}: an answer begins with {answer[0]['role'] if answer else 'nothing'} behind what both share: "
                "have both share the prompt, and end with an answer each."
            )
    return asked, said


def shared_by(sequences: Sequence[Sequence[Any]]) -> int:
    """With how many values all sequences begin alike."""
    return sum(1 for _ in itertools.takewhile(lambda values: all(one == values[0] for one in values), zip(*sequences)))
