"""Conversations to tokens, and which of these an assistant wrote: decided from what its template renders, or refused.

A template with `{% generation %}` marks says itself what an assistant writes, and so do our own. Of any other, an
answer is what stands between the prompt for it (the messages before it, rendered with add_generation_prompt) and the
special token that ends the messages with it. Each must be the beginning of the whole, in characters and in tokens: a
model that is asked then sees the very tokens that it was trained behind.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from weft.tokenizer.chat_templates import MARKED, Message, render_chat, special_tokens_of, spelt_sentence

AT_ONCE = 1000  # conversations that are tokenised together
ASSISTANT = "assistant"
Span = tuple[int, int]  # [first, behind the last), of characters or of tokens
_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


@dataclass(frozen=True)
class ConversationTokens:
    """A conversation as a model reads it, to the end of its last answer.

    Attributes:
        ids: token ids, those of the template among them.
        answers: the tokens of each answer; the last one tells generation to stop.
    """

    ids: list[int]
    answers: list[Span]

    def cut_to(self, longest: int) -> "ConversationTokens | None":
        """The turns of which all tokens have room, to the end of an answer; None where not even the first one has."""
        kept = [answer for answer in self.answers if answer[1] <= longest]
        return ConversationTokens(self.ids[: kept[-1][1]], kept) if kept else None


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    tools: Sequence[Sequence[dict[str, Any]] | None] | None = None,
) -> list[ConversationTokens | str]:
    """Render and tokenise conversations.

    Args:
        tokenizer: with a chat template.
        tools: that each conversation may call.

    Returns:
        The tokens of each, or the sentence that says why there are none.
    """
    result: list[ConversationTokens | str] = []
    given = list(tools) if tools is not None else [None] * len(conversations)
    for first in range(0, len(conversations), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        result += _encode(tokenizer, conversations[part], given[part])
    return result


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    tools: Sequence[Sequence[dict[str, Any]] | None],
) -> list[ConversationTokens | str]:
    special = special_tokens_of(tokenizer)
    names = "|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"\b\B"
    stop = re.compile(rf"({names})(?:{names}|\s)*\Z")
    rendered = [_render(tokenizer, special, stop, *each) for each in zip(conversations, tools, strict=True)]
    whole = [one for one in rendered if not isinstance(one, str)]
    pieces = [piece for text, spans in whole for piece in _pieces(text, spans)]
    texts = iter(_ids_of(tokenizer, [text for text, _ in whole]))
    parts = iter(_ids_of(tokenizer, pieces))
    result: list[ConversationTokens | str] = []
    for one in rendered:
        if isinstance(one, str):
            result.append(one)
            continue
        text, spans = one
        ids, of_pieces = next(texts), [next(parts) for _ in _pieces(text, spans)]
        result.append(_placed(tokenizer, text, spans, ids, of_pieces))
    return result


def _render(
    tokenizer: PreTrainedTokenizerBase,
    special: Sequence[str],
    stop: re.Pattern[str],
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None,
) -> tuple[str, list[Span]] | str:
    """The text of a conversation to the end of its last answer, and the characters of each answer; or a sentence."""
    if sentence := spelt_sentence(special, messages, tools):
        return sentence
    template = tokenizer.get_chat_template(tools=tools)
    template = MARKED.get(template, template)
    try:
        if _MARK.search(template):
            text, spans = _marked_spans(tokenizer, template, messages, tools)
        else:
            text, spans = _prefix_spans(tokenizer, stop, messages, tools)
        spans = [(first, first + _end_of(stop, text[first:end])) for first, end in spans]
    except ValueError as error:
        return str(error)
    return text[: spans[-1][1]], spans


def _marked_spans(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None,
) -> tuple[str, list[Span]]:
    render_chat(tokenizer, messages, tools)  # which says why where it cannot be done
    (text,), (spans,) = render_jinja_template(
        conversations=[list(messages)],
        tools=list(tools) if tools else None,
        chat_template=template,
        return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    spans = [(first, end) for first, end in spans if end > first]
    if not spans:
        raise ValueError("the chat template marks nothing in it as written by the assistant ({% generation %})")
    return text, spans


def _prefix_spans(
    tokenizer: PreTrainedTokenizerBase,
    stop: re.Pattern[str],
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None,
) -> tuple[str, list[Span]]:
    whole, spans = render_chat(tokenizer, messages, tools), []
    for number, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        prompt = render_chat(tokenizer, messages[:number], tools, add_generation_prompt=True)
        done = render_chat(tokenizer, messages[: number + 1], tools)
        done = done[: _end_of(stop, done)]
        if not (done.startswith(prompt) and whole.startswith(done)):
            what = "an answer without the prompt for it" if whole.startswith(done) else "messages anew for later ones"
            raise ValueError(
                f"the chat template writes {what}, so that it cannot be told which tokens are the assistant's: give a "
                "template that marks them by {% generation %} and {% endgeneration %}"
            )
        spans.append((len(prompt), len(done)))
    return whole, spans


def _end_of(stop: re.Pattern[str], text: str) -> int:
    """Where an answer at the end of a text ends: behind the first special token that only others and blanks follow."""
    found = stop.search(text)
    if found is None:
        raise ValueError(
            "the chat template ends an answer with no special token, so that generation would not know where to stop: "
            "give one that writes such a token there, such as {{ eos_token }}"
        )
    return found.end(1)


def _pieces(text: str, spans: Sequence[Span]) -> list[str]:
    """A text cut where answers begin and end."""
    places = [0, *(place for span in spans for place in span)]
    return [text[first:end] for first, end in itertools.pairwise(places)]


def _ids_of(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, verbose=False).input_ids if texts else []


def _placed(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    spans: Sequence[Span],
    ids: list[int],
    pieces: list[list[int]],
) -> ConversationTokens | str:
    """The tokens of each answer. Where the text is cut they are those of its pieces, for nearly all tokenizers; of
    others (SentencePiece puts a blank before each text) each beginning of the text is tokenised by itself."""
    if [token for piece in pieces for token in piece] == ids:
        ends = [len(pieces[0])]
        for piece in pieces[1:]:
            ends.append(ends[-1] + len(piece))
    else:
        beginnings = _ids_of(tokenizer, [text[:place] for span in spans for place in span])
        ends = [len(beginning) for beginning in beginnings]
        for beginning, place in zip(beginnings, (place for span in spans for place in span)):
            if ids[: len(beginning)] != beginning:
                around = text[max(0, place - 12) : place + 12]
                return (
                    f"a token reaches over the place in {around!r} where an answer begins or ends, so that nobody can "
                    "tell whose it is: give a chat template that ends the prompt before a blank or by a special token"
                )
    answers = list(zip(ends[::2], ends[1::2]))
    if any(first >= end for first, end in answers):
        return "an answer in it has no token"
    return ConversationTokens(ids, answers)
