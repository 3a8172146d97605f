"""Answers of a model behind rendered conversations, many at a time."""

from collections.abc import Sequence

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
    limit, pad = position_limit(model), tokenizer.pad_token_id
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
    answers = [""] * len(prompts)
    for first in range(0, len(order), AT_ONCE):
        batch = order[first : first + AT_ONCE]
        longest = len(prompts[batch[0]])
        room = max_new_tokens if limit is None else min(max_new_tokens, limit - longest + 1)
        if room < 1:
            continue
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
