"""Chat templates: how the messages of a conversation become one text, also for tokenizers that come without one.

A message is a mapping as OpenAI's API has it: role ("system", "user", "assistant", "tool" ...), content, and whatever
else a template reads, such as tool_calls.
"""

import re
from collections.abc import Sequence
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from weft.tokenizer.special_tokens import add_extra_tokens

Message = dict[str, Any]

# A template of our own in three parts, of which the second is what somebody says, to its end.
Parts = tuple[str, str, str]
# ChatML: special tokens around each message, which no text can be taken for.
_CHATML: Parts = (
    """\
{{- bos_token }}
{%- set first = messages[0] if messages[0].role == 'system' else none %}
{%- if tools or first %}
    {{- '<|im_start|>system\\n' ~ (first.content | trim if first else '') }}
    {%- if tools %}
        {{- ('\\n\\n' if first else '') ~ 'Tools that can be called:' }}
        {%- for tool in tools %}
            {{- '\\n' ~ (tool | tojson) }}
        {%- endfor %}
        {{- '\\nA call is written as <tool_call>{"name": ..., "arguments": ...}</tool_call>.' }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in (messages[1:] if first else messages) %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' }}
""",
    """\
    {{- message.content | default('', true) | trim }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n' if message.content or not loop.first else '' }}
        {{- '<tool_call>' ~ (call.function | default(call) | tojson) ~ '</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
""",
    """\
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
)
# Words alone, for a vocabulary that is to stay as it is: an answer ends with the tokenizer's end token.
_PLAIN: Parts = (
    """\
{{- bos_token }}
{%- if tools %}
    {{- raise_exception('the plain template has no place for tools: use chatml') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {{- raise_exception('the plain template has no place for tool_calls: use chatml') }}
    {%- endif %}
    {{- '' if message.role == 'system' else message.role | capitalize ~ ':' }}
""",
    """\
    {{- ('' if message.role == 'system' else ' ') ~ (message.content | trim) }}
    {{- (eos_token if message.role == 'assistant' else '') ~ '\\n' }}
""",
    """\
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'Assistant:' }}
{%- endif %}
""",
)
TEMPLATES = {"chatml": "".join(_CHATML), "plain": "".join(_PLAIN)}
DEFAULT_TEMPLATE = "chatml"
# The same with marks around what an assistant says. Only transformers reads such marks, so no tokenizer gets them.
_MARKS = ("{%- if message.role == 'assistant' %}{%- generation %}", "{%- endgeneration %}{%- else %}", "{%- endif %}\n")
MARKED = {
    "".join(parts): f"{parts[0]}{_MARKS[0]}{parts[1]}{_MARKS[1]}{parts[1]}{_MARKS[2]}{parts[2]}"
    for parts in (_CHATML, _PLAIN)
}
_CONTROL = re.compile(r"<\|[^\s|<>]+\|>")  # how templates usually spell the tokens that are theirs alone
# Conversations that a template is tried with, for the tokens that it writes; some know no system, no tools or no calls.
_SYSTEM, _USER, _ANSWER, _RESULT = ({"role": role, "content": "x"} for role in ("system", "user", "assistant", "tool"))
_CALL = {"tool_calls": [{"id": "x", "type": "function", "function": {"name": "x", "arguments": {}}}]}
_TOOL = {"type": "function", "function": {"name": "x", "description": "x", "parameters": {"type": "object"}}}
_USUAL = [([_SYSTEM, _USER, _ANSWER], None), ([_USER, _ANSWER], None)]
_WITH_TOOLS = [
    ([_SYSTEM, _USER, _ANSWER], [_TOOL]),
    *(
        ([_USER, call | _CALL, _RESULT | {"name": "x", "tool_call_id": "x"}, _ANSWER], [_TOOL])
        for call in ({"role": "assistant"}, _ANSWER)
    ),
]


def give_chat_template(tokenizer: PreTrainedTokenizerBase, template: str) -> list[str]:
    """Give a tokenizer a chat template, in place, with the special tokens that it writes.

    Args:
        template: "chatml", "plain", or the text of a template in Jinja. What it writes in the form `<|name|>` becomes
            a special token.

    Returns:
        The tokens that are new in the vocabulary: the model's embedding needs a row for each.

    Raises:
        ValueError: the template cannot be read, or needs an end token that the tokenizer has not got.
    """
    if template == "plain" and tokenizer.eos_token is None:
        raise ValueError("the plain template ends answers with the tokenizer's end token, of which there is none.")
    before, tokenizer.chat_template = tokenizer.chat_template, TEMPLATES.get(template, template)
    try:
        names = _CONTROL.findall(_render_probes(tokenizer))
    except ValueError:
        tokenizer.chat_template = before
        raise
    return add_extra_tokens(tokenizer, list(dict.fromkeys(names)))


def _render_probes(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a template writes of all that it can; raises ValueError where that is nothing."""
    texts, refused = [], ValueError()
    for messages, tools in [*_USUAL, *(_WITH_TOOLS if "tool" in tokenizer.chat_template else [])]:
        try:
            texts.append(render_chat(tokenizer, messages, tools))
        except ValueError as error:
            refused = error
    if not texts:
        raise refused
    return "".join(texts)


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None = None,
    add_generation_prompt: bool = False,
) -> str:
    """Return messages as the tokenizer's template writes them; behind them, if asked for, the beginning of an answer.

    Raises:
        ValueError: the template is broken, or refuses the messages.
    """
    options = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
    try:
        return tokenizer.apply_chat_template(list(messages), tools=list(tools) if tools else None, **options)
    except (jinja2.TemplateError, TypeError, KeyError, AttributeError, ValueError, ArithmeticError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the chat template cannot write it ({why})") from error


def special_tokens_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List the special tokens of a vocabulary, by what a text spells them as."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


def spelt_tokens(special: Sequence[str], value: Any) -> list[str]:
    """List the special tokens that texts within a value spell out: behind a template they would be read as such."""
    if isinstance(value, str):
        return [token for token in special if token in value]
    if isinstance(value, dict):
        value = list(value.values())
    found = [token for each in value for token in spelt_tokens(special, each)] if isinstance(value, list) else []
    return list(dict.fromkeys(found))


def spelt_sentence(
    special: Sequence[str], messages: Sequence[Message | str], tools: Sequence[dict[str, Any]] | None = None
) -> str | None:
    """Say which special token a conversation, or one of several texts, spells out; None where none does."""
    spelt = spelt_tokens(special, [*messages, *(tools or [])])
    if not spelt:
        return None
    return f"a text in it spells the special token {spelt[0]!r}, which would be read as that: write it otherwise"
