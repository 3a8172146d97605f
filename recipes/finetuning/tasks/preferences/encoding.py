"""Prompts and answers as tokens: each answer behind its prompt, as the model would write it."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.preferences.reading import Preference
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
        RecipeError: the chat template cannot write a conversation; names the row.
    """
    encode = _of_conversations if preferences and preferences[0].is_conversation else _of_texts
    found = []
    for example, (sequences, prompt) in enumerate(encode(preferences, tokenizer)):
        whole = [len(ids) - prompt for ids in sequences]
        cut = [ids[:max_length] for ids in sequences]
        if prompt < max_length and (len(cut) == 1 or cut[0] != cut[1]):
            found.append(EncodedPreference(example, cut, prompt, whole))
    return found


def _of_texts(
    preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[list[list[int]], int]]:
    """Prompt and answer as one text between the tokenizer's start and end token. The answer begins where the tokens
    stop being those of the prompt alone: a token may reach over the place between both."""
    prompts = tokenizer([each.prompt for each in preferences], verbose=False).input_ids
    texts = iter(
        tokenizer([each.prompt + said for each in preferences for said in each.answers], verbose=False).input_ids
    )
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    found = []
    for preference, prompt in zip(preferences, prompts):
        sequences = [next(texts) for _ in preference.answers]
        sequences = [ids if ids[-1:] == end else [*ids, *end] for ids in sequences]
        found.append((sequences, min(_in_common(prompt, ids) for ids in sequences)))
    return found


def _of_conversations(
    preferences: Sequence[Preference], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[list[list[int]], int]]:
    """Prompt and answer by the chat template, up to the token that ends the answer."""
    conversations = [[*each.prompt, *said] for each in preferences for said in each.answers]
    encoded = iter(encode_conversations(tokenizer, conversations))
    found = []
    for preference in preferences:
        earlier = sum(message["role"] == "assistant" for message in preference.prompt)
        sequences, prompts = [], []
        for _ in preference.answers:
            tokens = next(encoded)
            if isinstance(tokens, str):
                raise RecipeError(f"{preference.where}: {tokens}.")
            sequences.append(tokens.ids)
            prompts.append(tokens.answers[earlier][0])
        found.append((sequences, min(_in_common(sequences[0][: min(prompts)], ids) for ids in sequences)))
    return found


def _in_common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    unequal = (place for place, (one, other) in enumerate(zip(first, second)) if one != other)
    return next(unequal, min(len(first), len(second)))
