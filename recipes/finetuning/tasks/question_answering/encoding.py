"""Questions and their contexts in tokens."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.question_answering.reading import Question
from weft.recipes.finetuning.tasks.question_answering.spans import ContextWindow
from weft.tokenizer.special_tokens import find_start_and_end, separate_pairs


@dataclass
class WindowCounts:
    """What became of a split's questions in tokens."""

    windows: int = 0
    cut_questions: int = 0
    long_answers: int = 0
    inexact_answers: int = 0
    missed_answers: int = 0
    stride: int = 0


def is_exact(question: Question, window: ContextWindow, target: tuple[int, int]) -> bool:
    """Whether the target's tokens hold an answer and nothing else but blanks."""
    start, end = window.offsets[target[0] - window.first, 0], window.offsets[target[1] - window.first, 1]
    return question.context[start:end].strip() in (answer.text for answer in question.answers)


def beginnings(texts: list[str], tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[str]:
    """The beginnings of texts that have more tokens than allowed."""
    encodings = tokenizer(texts, add_special_tokens=False).encodings
    return [
        text if len(encoding.ids) <= tokens else text[: encoding.offsets[tokens - 1][1]]
        for text, encoding in zip(texts, encodings)
    ]


def closes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a special token stands behind a question and its context."""
    return tokenizer("a", "b", return_special_tokens_mask=True)["special_tokens_mask"][-1:] == [1]


def closing(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that closes a context; one that does not gets its end token there, or its padding token.

    Raises:
        RecipeError: it has neither.
    """
    if closes(tokenizer):
        return tokenizer
    end = find_start_and_end(tokenizer)[1] or tokenizer.pad_token
    if end is None:
        raise RecipeError(
            "the tokenizer has no special token to put behind a context, where a causal model says that there is no "
            "answer: give a model whose tokenizer has an end or a padding token."
        )
    separate_pairs(tokenizer, end, closed=True)
    return tokenizer


def window_of(tokens: Any, question: Question) -> ContextWindow:
    """Where the context stands in an encoding of question and context; raises RecipeError where it has no token."""
    parts = tokens.sequence_ids
    if 1 not in parts:
        raise RecipeError(f"{question.where}: the tokenizer makes no token of the context: mend or drop it.")
    first = parts.index(1)
    last = len(parts) - parts[::-1].index(1)
    return ContextWindow(first, np.array(tokens.offsets[first:last], dtype=np.int32).reshape(-1, 2))
