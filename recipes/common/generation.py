"""Text out of a checkpoint, for the recipe that generates and for the samples of a model card."""

from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def start_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """A prompt as training saw documents: the start token, if the tokenizer has one, then the text.

    Without a start token, an empty prompt begins with a line end, or with the first id where there is none.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    ids = start + tokenizer(prompt, add_special_tokens=False).input_ids
    return ids or tokenizer("\n", add_special_tokens=False).input_ids or [0]


@torch.no_grad()
def generate_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], **options: Any
) -> list[str]:
    """Continue prompts in one left-padded batch.

    Args:
        options: of `model.generate` (max_new_tokens, do_sample, temperature ...).

    Returns:
        Prompt and continuation, without special tokens.
    """
    rows = [start_ids(tokenizer, prompt) for prompt in prompts]
    longest = max(len(row) for row in rows)
    pad = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    out = model.generate(input_ids=ids, attention_mask=mask, pad_token_id=pad, **options)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in out]
