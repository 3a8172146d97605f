"""A data collator for transformers' own Trainer and any encoder-decoder: texts in, corrupted pairs out.

    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForSeq2SeqLM.from_pretrained(name)
    collator = DenoisingCollator(tokenizer, SpanDenoiser.of(tokenizer), model.config.decoder_start_token_id)
    Trainer(model, arguments, train_dataset=tokenised_texts, data_collator=collator)

The model makes the decoder's inputs of the labels, as those of transformers do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.datasets.counter_rng import make_key
from weft.recipes.pretraining.datasets.denoising.frame import Frame
from weft.recipes.pretraining.datasets.denoising.pieces import Denoiser, Piece


class DenoisingCollator:
    """Corrupts each text of a batch, and pads sources and targets.

    A text is `input_ids`, with or without start and end tokens. Cut texts before, so that a model takes them (for span
    corruption at `longest_text`): nothing is cut here.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        denoiser: Denoiser,
        decoder_start_token_id: int | None = None,
        seed: int = 0,
        pad_to_multiple_of: int = 1,
    ) -> None:
        """Args:
            decoder_start_token_id: of the model's config; targets leave it out where texts begin with it.
            seed: of the corruption of texts that have a number.

        Raises:
            ValueError: the tokenizer has no padding or no end token.
        """
        if tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no padding token: set its pad_token.")
        self.pad, self.denoiser, self.seed = tokenizer.pad_token_id, denoiser, seed
        self.frame = Frame.of(tokenizer, decoder_start_token_id)
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            examples: `input_ids` of each; `sentence_begins` (a bool for each token of the text alone) where sentences
                are permuted; and, for masks that depend on nothing else, `document`, its number, and `pass_number`.
                Without a number masks are drawn from torch's generator, which Trainer seeds and restores.

        Returns:
            input_ids and attention_mask [texts, tokens of the longest source], labels [texts, tokens of the longest
            target], which are -100 on padding.
        """
        pairs = [self.frame.put_around(self.denoiser(self._piece(example))) for example in examples]
        sources, targets = zip(*pairs)
        inputs = self._padded(sources, self.pad)
        mask = self._padded([np.ones_like(source) for source in sources], 0)
        return {"input_ids": inputs, "attention_mask": mask, "labels": self._padded(targets, IGNORE_INDEX)}

    def _piece(self, example: Mapping[str, Any]) -> Piece:
        tokens = self.frame.strip(np.asarray(example["input_ids"], dtype=np.int64))
        if not len(tokens):
            raise ValueError("a text has no token: leave empty texts out.")
        if "document" in example:
            key = make_key(self.seed, int(example.get("pass_number", 0)), int(example["document"]))
        else:
            key = make_key(int(torch.randint(2**63 - 1, ())))
        sentences = example.get("sentence_begins")
        sentences = None if sentences is None else np.asarray(sentences, dtype=bool)
        if sentences is not None and len(sentences) != len(tokens):
            raise ValueError(
                f"sentence_begins has {len(sentences)} values for a text of {len(tokens)} tokens: give one for each, "
                "start and end tokens left out."
            )
        return Piece(tokens, 0, len(tokens), key, sentences)

    def _padded(self, rows: Sequence[np.ndarray], fill: int) -> torch.Tensor:
        unit = self.pad_to_multiple_of
        longest = -(-max(map(len, rows)) // unit) * unit
        padded = [np.pad(row, (0, longest - len(row)), constant_values=fill) for row in rows]
        return torch.from_numpy(np.stack(padded))
