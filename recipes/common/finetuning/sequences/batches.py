"""Batches of an encoder and a decoder: their rows hold the same pairs, one each or, packed, several."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from weft.losses import IGNORE_INDEX
from weft.recipes.common.finetuning.batches import Batcher, Item, Layout


class PairBatcher(Batcher):
    """Lays the sources out, packed so that there is room for the targets too."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, packed: bool) -> None:
        # a tokenizer may name token types although no encoder-decoder reads them
        super().__init__(tokenizer, packed, with_types=False)

    def sizes(self, item: Item) -> tuple[int, ...]:
        """Tokens in the encoder's row and in the decoder's."""
        return item.tokens, len(item.target or ())


def decoder_batch(layout: Layout, start: int, pad: int) -> dict[str, torch.Tensor]:
    """What the decoder reads and is to say, in the rows in which the encoder has the sources.

    Args:
        layout: of the sources; the targets of its items are token ids.
        start: the token that the decoder begins with.
        pad: the token for places without one.

    Returns:
        labels, decoder_input_ids and decoder_attention_mask [rows, tokens]; packed also decoder_position_ids, which
        begin anew with each target.
    """
    ends = [0] * layout.shape[0]
    starts = []
    for row, item in zip(layout.rows, layout.items, strict=True):
        starts.append(ends[row])
        ends[row] += len(item.target)
    shape = (layout.shape[0], max(ends))
    targets = [item.target for item in layout.items]

    def place(values: Sequence[Any], fill: int) -> torch.Tensor:
        tensor = torch.full(shape, fill, dtype=torch.long)
        for row, first, of_tokens in zip(layout.rows, starts, values):
            tensor[row, first : first + len(of_tokens)] = torch.tensor(of_tokens, dtype=torch.long)
        return tensor

    batch = {
        "labels": place(targets, IGNORE_INDEX),
        "decoder_input_ids": place([[start, *ids[:-1]] for ids in targets], pad),
        "decoder_attention_mask": place([[1] * len(ids) for ids in targets], 0),
    }
    if layout.packed:
        batch["decoder_position_ids"] = place([range(len(ids)) for ids in targets], 0)
    return batch
