"""Conversations to items: their tokens, those that are learnt, and what had no room."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.data.conversations import ASSISTANT, Conversation, weights_of
from weft.recipes.finetuning.collation import EncodedExample
from weft.tokenizer.chat_templates import render_chat, special_tokens_of, spelt_sentence
from weft.tokenizer.conversation_tokens import ConversationTokens, encode_conversations


@dataclass(frozen=True)
class LastAnswer:
    """Where the last answer of an item begins: its first token, and its number among the messages."""

    token: int
    message: int


@dataclass
class SplitCounts:
    """Counts of a split: tokens, those that are learnt, conversations that lost turns or had no room at all, and the
    faults of those that a template cannot write."""

    tokens: int = 0
    learnt: int = 0
    shortened: int = 0
    too_long: int = 0
    broken: list[str] = field(default_factory=list)
    stops: dict[int, int] = field(default_factory=dict)  # the tokens that end answers, and how many they end


def encode_learnt(
    conversations: Sequence[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    longest: int,
    on_all: bool,
    skips: bool,
    counts: SplitCounts,
) -> list[EncodedExample]:
    """The items of conversations; one that is too long loses its last turns, and is left out where not even the first
    answer has room.

    Args:
        longest: tokens of an item at most.
        on_all: all tokens are learnt, not the answers' alone.
        skips: conversations that cannot be rendered or masked are counted instead of refused.

    Raises:
        RecipeError: a conversation cannot be rendered, or it cannot be told which tokens are the assistant's.
    """
    items = []
    encoded = encode_conversations(
        tokenizer, [each.messages for each in conversations], [each.tools for each in conversations]
    )
    for number, (conversation, tokens) in enumerate(zip(conversations, encoded, strict=True)):
        weights = weights_of(conversation.messages)
        if not isinstance(tokens, str):
            weights = weights[-len(tokens.answers) :]  # as a template marks them, see `_last_answer`
            if 0 in weights and len(weights) < len(tokens.answers):
                tokens = "the chat template marks parts of answers, so that it cannot be told which have weight 0"
        if isinstance(tokens, str):
            fault = f"{conversation.where}: {tokens}."
            if not skips:
                raise RecipeError(fault)
            counts.broken.append(fault)
            continue
        kept = tokens.cut_to(longest)
        if kept is None or not any(weights[: len(kept.answers)]):
            counts.too_long += 1
            continue
        counts.shortened += len(kept.answers) < len(tokens.answers)
        labels = labels_of(kept, on_all, weights)
        counts.tokens += len(labels)
        counts.learnt += sum(label != IGNORE_INDEX for label in labels)
        for _, end in kept.answers:
            counts.stops[kept.ids[end - 1]] = counts.stops.get(kept.ids[end - 1], 0) + 1
        items.append(EncodedExample([kept.ids], number, labels, info=_last_answer(conversation, tokens, kept)))
    return items


def _last_answer(conversation: Conversation, tokens: ConversationTokens, kept: ConversationTokens) -> LastAnswer:
    """Counted from the end, since a template with marks need not mark each answer, earlier ones above all."""
    answers = [number for number, message in enumerate(conversation.messages) if message["role"] == ASSISTANT]
    lost = len(tokens.answers) - len(kept.answers)
    return LastAnswer(kept.answers[-1][0], answers[max(0, len(answers) - 1 - lost)])


def labels_of(tokens: ConversationTokens, on_all: bool, weights: Sequence[int] = ()) -> list[int]:
    """The token that each place is to be, -100 where none is learnt; nothing comes before the first.

    Args:
        weights: of the answers, one of weight 0 is not learnt; without any all are.
    """
    labels = [*tokens.ids] if on_all else [IGNORE_INDEX] * len(tokens.ids)
    for number, (first, end) in enumerate(tokens.answers):
        is_learnt = weights[number] if weights else True
        labels[first:end] = tokens.ids[first:end] if is_learnt else [IGNORE_INDEX] * (end - first)
    return [IGNORE_INDEX, *labels[1:]]


def encode_prompts(
    conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, longest: int
) -> list[EncodedExample]:
    """Conversations to answer, up to where the answer begins.

    Raises:
        RecipeError: the template refuses one, a text in it spells a special token, or it is too long.
    """
    items, special = [], special_tokens_of(tokenizer)
    for number, each in enumerate(conversations):
        if sentence := spelt_sentence(special, each.messages, each.tools):
            raise RecipeError(f"{each.where}: {sentence}.")
        with refusing(each.where, ValueError, say=str):
            text = render_chat(tokenizer, each.messages, each.tools, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        if len(ids) > longest:
            raise RecipeError(f"{each.where}: {len(ids):,} tokens, but max_length is {longest:,}: give more, or less.")
        items.append(EncodedExample([ids], number))
    return items
