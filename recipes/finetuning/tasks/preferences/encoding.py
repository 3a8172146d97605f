"""Prompts and answers as tokens: each answer behind its prompt, as the model would write it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.preferences.reading import Preference, shared_by
from weft.tokenizer.chat_templates import special_tokens_of, spelt_sentence
from weft.tokenizer.conversation_tokens import encode_conversations


@dataclass
class EncodedPreference:
    """A prompt with each of its answers.

    Attributes:
        example: number of the example in its split.
        sequences: token ids of prompt and answer, for each answer.
        prompt: tokens of the prompt, with which all of them begin.
        whole: tokens of each answer before it was cut.
    """

    example: int
    sequences: list[list[int]]
    prompt: int
    whole: list[int]

    @property
    def is_cut(self) -> bool:
        return any(len(ids) - self.prompt < whole for ids, whole in zip(self.sequences, self.whole))


def encode_preferences(
    preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[EncodedPreference]:
    """Encode preferences, answers that are too long without their ends.

    Left out are those of which nothing could be learnt: the prompt alone fills `max_length`, or both answers are the
    same as far as there is room.

    Raises:
        RecipeError: the chat template cannot write a conversation, or a text spells a special token; names the row.
    """
    encode = _of_conversations if preferences and preferences[0].is_conversation else _of_texts
    found = []
    for example, (begin, sequences) in enumerate(encode(preferences, tokenizer)):
        prompt = shared_by([begin, *sequences])
        whole = [len(ids) - prompt for ids in sequences]
        cut = [ids[:max_length] for ids in sequences]
        if prompt < max_length and (len(cut) == 1 or cut[0] != cut[1]):
            found.append(EncodedPreference(example, cut, prompt, whole))
    return found


def _of_texts(
    preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Prompt and answer as one text between the tokenizer's start and end token. The answer begins where the tokens
    stop being those of the prompt alone: a token may reach over the place between both."""
    special = special_tokens_of(tokenizer)
    for each in preferences:
        if sentence := spelt_sentence(special, [each.prompt, *each.answers]):
            raise RecipeError(f"{each.where}: {sentence}, or give messages for the chat template.")
    prompts = tokenizer([each.prompt for each in preferences], verbose=False).input_ids
    texts = [each.prompt + said for each in preferences for said in each.answers]
    encoded = iter(tokenizer(texts, verbose=False).input_ids)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for preference, prompt in zip(preferences, prompts):
        sequences = [next(encoded) for _ in preference.answers]
        yield prompt, [ids if ids[-1:] == end else [*ids, *end] for ids in sequences]


def _of_conversations(
    preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Prompt and answer by the chat template, up to the token that ends the answer."""
    conversations = [[*each.prompt, *said] for each in preferences for said in each.answers]
    tools = [each.tools for each in preferences for _ in each.answers]
    encoded = iter(encode_conversations(tokenizer, conversations, tools))
    for preference in preferences:
        earlier = sum(message["role"] == "assistant" for message in preference.prompt)
        both = [next(encoded) for _ in preference.answers]
        if fault := next((tokens for tokens in both if isinstance(tokens, str)), None):
            raise RecipeError(f"{preference.where}: {fault}.")
        prompt = min(tokens.answers[earlier][0] for tokens in both)
        yield both[0].ids[:prompt], [tokens.ids for tokens in both]
