"""Answers of a model behind rendered conversations, many at a time."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.common.positions import position_limit
from weft.recipes.generation.generate_text import write_ids

AT_ONCE = 16


@torch.no_grad()
def write_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[str]:
    """What a model writes greedily behind prompts, each up to a token at which its generation_config stops.

    Args:
        prompts: token ids, to where an answer begins.
        max_new_tokens: of an answer at most, and less where the model has no more positions.

    Returns:
        The texts of the answers, without special tokens, in the order of the prompts.
    """
    pad = tokenizer.pad_token_id
    answers = [""] * len(prompts)
    for batch, room in _batches([len(prompt) for prompt in prompts], max_new_tokens, position_limit(model)):
        longest = len(prompts[batch[0]])
        padding = [longest - len(prompts[number]) for number in batch]
        rows = [[pad] * missing + [*prompts[number]] for number, missing in zip(batch, padding)]
        mask = [[0] * missing + [1] * (longest - missing) for missing in padding]
        written = write_ids(
            model,
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            pad_token_id=pad,
            max_new_tokens=room,
            do_sample=False,
            num_beams=1,
        )
        for number, row in zip(batch, written[:, longest:].tolist()):
            answers[number] = tokenizer.decode(row, skip_special_tokens=True).strip()
    return answers


def _batches(lengths: Sequence[int], most: int, limit: int | None) -> Iterator[tuple[list[int], int]]:
    """Yield the numbers of prompts that are answered together, longest first, and the tokens that there is room for
    behind each of them; prompts that leave no room are left out."""

    def room(number: int) -> int:
        return most if limit is None else min(most, limit - lengths[number] + 1)

    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    for tokens, group in itertools.groupby(order, room):  # a longer prompt beside it must not shorten an answer
        numbers = list(group)
        if tokens > 0:
            yield from ((numbers[first : first + AT_ONCE], tokens) for first in range(0, len(numbers), AT_ONCE))
