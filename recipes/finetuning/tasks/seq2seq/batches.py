"""Batches of an encoder and a decoder: their rows hold the same pairs, one each or, packed, several."""

import torch
from transformers import PreTrainedTokenizerBase

from weft.losses import IGNORE_INDEX
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample, PackingCollator, in_place


class PairCollator(PackingCollator):
    """Lays the sources out, packed so that there is room for the targets too."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, packed: bool) -> None:
        # a tokenizer may name token types although no encoder-decoder reads them
        super().__init__(tokenizer, packed, with_types=False)

    def sizes(self, item: EncodedExample) -> tuple[int, ...]:
        """Tokens in the encoder's row and in the decoder's."""
        return item.tokens, len(item.target or ())


def decoder_batch(layout: BatchLayout, start: int, pad: int) -> dict[str, torch.Tensor]:
    """What the decoder reads and is to say, in the rows in which the encoder has the sources.

    Args:
        layout: of the sources; the targets of its items are token ids.
        start: the token that the decoder begins with.
        pad: the token for places without one.

    Returns:
        labels, decoder_input_ids and decoder_attention_mask [rows, tokens]; packed also decoder_position_ids, which
        begin anew with each target.
    """
    targets = [item.target for item in layout.items]
    ends, starts = [0] * layout.shape[0], []
    for row, ids in zip(layout.rows, targets, strict=True):
        starts.append(ends[row])
        ends[row] += len(ids)
    places = BatchLayout(layout.items, layout.rows, starts, [len(ids) for ids in targets], (layout.shape[0], max(ends)))
    batch = {
        "labels": in_place(places, targets, IGNORE_INDEX),
        "decoder_input_ids": in_place(places, [[start, *ids[:-1]] for ids in targets], pad),
        "decoder_attention_mask": in_place(places, [[1] * length for length in places.lengths], 0),
    }
    if layout.packed:
        batch["decoder_position_ids"] = in_place(places, [range(length) for length in places.lengths], 0)
    return batch
