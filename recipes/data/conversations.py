"""Conversations in: messages as OpenAI has them, ShareGPT's turns, instructions as Alpaca and Dolly have them, prompts
with completions.

All become messages, mappings with a role ("system", "user", "assistant", "tool" ...) and a content. What else a message
holds (tool_calls, name, reasoning_content ...) is kept for the chat template. Texts lose the blanks around them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.json_values import parse_json, refuse_halves
from weft.recipes.data.tables import Record, read_records, text_of, value_of

Message = dict[str, Any]
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
# What other formats call a role; other names (tool, developer ...) are left to the chat template.
ROLES = {
    **{"human": USER, "prompter": USER, "gpt": ASSISTANT, "bot": ASSISTANT, "chatgpt": ASSISTANT, "model": ASSISTANT},
    **{"observation": "tool", "function_response": "tool", "tool_response": "tool", "function_call": ASSISTANT},
}
FORMS = (
    "messages, conversations (from and value), instruction with output (and input) or response (and context), or "
    "prompt with completion (response, answer)"
)
ASKED_BY = ("prompt", "question", "instruction")
COMPLETIONS = ("completion", "response", "answer", "output")


@dataclass(frozen=True)
class Conversation:
    """What was said, in order.

    Attributes:
        messages: the system's first, if there is one.
        where: its place in words.
        tools: that the assistant may call, as JSON schemas.
    """

    messages: list[Message]
    where: str
    tools: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class ConversationColumns:
    """The columns that were named; where none was, the usual names are looked for.

    Attributes:
        messages: holds a list of messages or turns.
        prompt, completion: hold texts, or lists of messages.
    """

    messages: str | None = None
    prompt: str | None = None
    completion: str | None = None


def read_conversations(
    path: Path, columns: ConversationColumns, broken: list[str] | None = None, answered: bool = True
) -> list[Conversation]:
    """Read the conversations of a file; see `conversations_of`."""
    return conversations_of(read_records(path), columns, broken, answered)


def conversations_of(
    records: Iterable[Record],
    columns: ConversationColumns,
    broken: list[str] | None = None,
    answered: bool = True,
) -> list[Conversation]:
    """Read the conversations of rows, and check them.

    Args:
        broken: a list to which the faults of broken conversations are added; these are left out. None: they are an
            error.
        answered: each ends with an answer. False: each ends with what is to be answered.

    Raises:
        RecipeError: a column is missing, or a conversation is broken; names the row.
    """
    found = []
    for record in records:
        try:
            tools, messages = tools_of(record), _messages_of(record, columns, answered)
            check_messages(messages, record.where, answered)
        except RecipeError as error:
            if broken is None:
                raise
            broken.append(str(error))
            continue
        found.append(Conversation(messages, record.where, tools))
    return found


def check_messages(messages: Sequence[Message], where: str, answered: bool = True) -> None:
    """Refuse a broken conversation.

    Args:
        answered: see `conversations_of`.

    Raises:
        RecipeError: nobody speaks, an answer stands behind another one or before all questions, a text is empty, the
            system speaks later than first, the weight of an answer is neither 0 nor 1, or the end is not what it has
            to be.
    """
    before = None
    for number, message in enumerate(messages, start=1):
        role, place = message["role"], f"{where}, message {number}"
        if role == SYSTEM and number > 1:
            raise RecipeError(f"{place}: a system message behind others: put it first, or give it another role.")
        if role == ASSISTANT and before == ASSISTANT:
            raise RecipeError(f"{place}: two answers in a row: join them, or drop one.")
        if role == ASSISTANT and before in (None, SYSTEM):
            raise RecipeError(f"{place}: an answer to nothing: give what was asked before it, or drop it.")
        silent = role not in (SYSTEM, USER, ASSISTANT) or (role == ASSISTANT and message.get("tool_calls"))
        if not message.get("content") and not silent:
            what = "answer" if role == ASSISTANT else f"{role} message"
            raise RecipeError(f"{place}: an empty {what}: write it, or drop the conversation.")
        if role == ASSISTANT and message.get("weight", 1) not in (0, 1):
            raise RecipeError(f"{place}: its weight is {message['weight']!r}: give 1, or 0 to not learn it.")
        before = role
    if answered and before != ASSISTANT:
        what = f"no answer to the last message ({before})" if messages else "no message"
        raise RecipeError(f"{where}: {what}: give one, or drop the conversation.")
    if answered and not any(weights_of(messages)):
        raise RecipeError(f"{where}: all its answers have weight 0, so that nothing is learnt: drop the conversation.")
    if not answered and (before is None or before in (ASSISTANT, SYSTEM)):
        raise RecipeError(f"{where}: nothing to answer at its end: end it with a message of the user.")


def weights_of(messages: Sequence[Message]) -> list[int]:
    """Of each answer, whether it is learnt: 1 or, where its message says so, 0."""
    return [int(message.get("weight", 1)) for message in messages if message["role"] == ASSISTANT]


def text_message(role: str, text: str) -> Message:
    """A message of a text and nothing else."""
    return {"role": role, "content": text.strip()}


def messages_of_value(value: Any, where: str) -> list[Message]:
    """Read a list of messages, or of ShareGPT's turns; raises RecipeError."""
    if isinstance(value, str):
        value = parse_json(value, where)
    if not isinstance(value, list):
        raise RecipeError(f"{where}: a {type(value).__name__}, where a list of messages is needed.")
    refuse_halves(value, where)
    return [_message_of(each, f"{where}, message {number}") for number, each in enumerate(value, start=1)]


def _message_of(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: a {type(value).__name__}, where an object with role and content is needed.")
    names = ("from", "value") if "from" in value and "role" not in value else ("role", "content")
    role = value.get(names[0])
    if not isinstance(role, str) or not role:
        found = ", ".join(map(str, value)) or "none"
        raise RecipeError(f"{where}: no {names[0]}: an object with role and content is needed (its names: {found}).")
    content = _text_in(value.get(names[1]), where)
    rest = {name: each for name, each in value.items() if name not in names and each is not None}
    return {"role": ROLES.get(role.lower(), role.lower()), **({} if content is None else {"content": content}), **rest}


def _text_in(content: Any, where: str) -> str | None:
    """The text of a message: as it is, or the joined texts of OpenAI's parts; None where there is none."""
    if content is None or isinstance(content, str):
        return content and content.strip()
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        kinds = {str(part.get("type")) if isinstance(part, dict) else type(part).__name__ for part in parts}
        raise RecipeError(f"{where}: content of type {', '.join(sorted(kinds))}, where text is needed.")
    return "".join(texts).strip()


def _messages_of(record: Record, columns: ConversationColumns, answered: bool) -> list[Message]:
    values = record.values
    if columns.messages is not None:
        value = value_of(record, columns.messages, "messages_column")
        return _with_system(record, messages_of_value(value, record.where))
    if columns.prompt is None and columns.completion is None:
        for name in ("messages", "conversations", "conversation"):
            if name in values:
                return _with_system(record, messages_of_value(values[name], record.where))
        if "instruction" in values:
            of_dolly = "response" in values and "output" not in values
            answer = _answer(record, "response" if of_dolly else "output", answered)
            return _with_system(record, [*_instruction(record), *answer])
    prompt = columns.prompt or next((name for name in ASKED_BY if name in values), None)
    completion = columns.completion or next((name for name in COMPLETIONS if name in values), COMPLETIONS[0])
    if prompt is None:
        raise RecipeError(
            f"{record.where}: no conversation: the columns are {', '.join(map(str, values))}, where {FORMS} are "
            "needed; name others with messages_column, or prompt_column and completion_column."
        )
    is_usual = prompt == "instruction" and columns.prompt is None
    asked = _instruction(record) if is_usual else _side(record, prompt, "prompt_column", USER)
    return _with_system(record, [*asked, *_answer(record, completion, answered)])


def _instruction(record: Record) -> list[Message]:
    """An instruction with what it is about, where that has a column."""
    texts = (_text(record, name) for name in ("instruction", "input", "context"))
    return [text_message(USER, "\n\n".join(filter(None, texts)))]


def _answer(record: Record, column: str, answered: bool) -> list[Message]:
    return _side(record, column, "completion_column", ASSISTANT) if answered else []


def _side(record: Record, column: str, option: str, role: str) -> list[Message]:
    """A prompt or a completion: a text, or messages."""
    value = value_of(record, column, option)
    if isinstance(value, list):
        return messages_of_value(value, f"{record.where}, column {column!r}")
    return [text_message(role, text_of(record, column, option, may_be_blank=True))]


def _text(record: Record, column: str) -> str:
    return text_of(record, column, column, may_be_blank=True).strip() if record.values.get(column) is not None else ""


def _with_system(record: Record, messages: list[Message]) -> list[Message]:
    """The messages, behind the text of a column "system" where they have none of the system's; a blank one is none."""
    if messages and messages[0]["role"] == SYSTEM:
        return messages if messages[0].get("content") else messages[1:]
    system = _text(record, SYSTEM)
    return [text_message(SYSTEM, system), *messages] if system else messages


def tools_of(record: Record) -> list[dict[str, Any]] | None:
    """The schemas of a column "tools", or of the JSON text in it; None without any. Raises RecipeError."""
    value = record.values.get("tools")
    if isinstance(value, str) and value.strip():
        value = parse_json(value, f"{record.where}, column 'tools'")
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise RecipeError(f"{record.where}: column 'tools' holds no list of objects: give JSON schemas of functions.")
    refuse_halves(value, f"{record.where}: column 'tools'")
    return value
