"""The batches that Weft and stock classes are measured on: random tokens in rows, in documents, or in texts."""

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from weft.losses import IGNORE_INDEX
from weft.recipes.finetuning.collation import EncodedExample, PackingCollator

MASKED_SHARE, PADDING, FIRST = 0.15, 0, 2  # ids from FIRST on are drawn


def text_lengths(number: int, fewest: int, most: int) -> list[int]:
    """Tokens of so many texts, the same in each process."""
    return torch.randint(fewest, most + 1, (number,), generator=torch.Generator().manual_seed(1)).tolist()


def document_places(rows: int, length: int, fewest: int, most: int) -> torch.Tensor:
    """Places in their documents of the tokens of packed rows, [rows, length]; the last document of a row is cut."""
    draw, places = torch.Generator().manual_seed(1), torch.empty(rows, length, dtype=torch.long)
    for row in places:
        start = 0
        while start < length:
            tokens = min(length - start, int(torch.randint(fewest, most + 1, (), generator=draw)))
            row[start : start + tokens] = torch.arange(tokens)
            start += tokens
    return places


def random_rows(vocabulary: int, rows: int, length: int, is_masked: bool) -> dict[str, torch.Tensor]:
    """Full rows and what is to be predicted: all tokens, or a share of random places."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(FIRST, vocabulary, (rows, length), generator=draw)
    labels = ids
    if is_masked:
        labels = ids.where(torch.rand(ids.shape, generator=draw) < MASKED_SHARE, IGNORE_INDEX)
    return {"input_ids": ids, "labels": labels}


def in_documents(batch: dict[str, torch.Tensor], places: torch.Tensor) -> dict[str, torch.Tensor]:
    """Full rows as packed documents, told apart by places that start anew, whose first tokens nothing predicts."""
    return {**batch, "labels": batch["labels"].where(places > 0, IGNORE_INDEX), "position_ids": places}


def at_places(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Full rows with the places that have a target named, as the recipes give a masked batch."""
    labels = batch["labels"].flatten()
    places = (labels != IGNORE_INDEX).nonzero()[:, 0]
    return {**batch, "labels": labels[places], "predict_from": places}


def classifier_batch(vocabulary: int, lengths: list[int], packed: bool) -> dict[str, torch.Tensor]:
    """Texts of random tokens and their classes, laid out as the fine-tuning recipes do: packed for Weft, or padded to
    the longest for stock classes."""
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(FIRST, vocabulary, (tokens,), generator=draw).tolist() for tokens in lengths]
    items = [EncodedExample([ids], number, target=number % 2) for number, ids in enumerate(texts)]
    batch, layout = PackingCollator(plain_tokenizer(vocabulary), packed, with_types=False).lay_out(items)
    return {**batch, "labels": torch.tensor([item.target for item in layout.items])}


def plain_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are their own numbers, for recipes that ask one for its padding and its size."""
    words = Tokenizer(models.WordLevel({str(number): number for number in range(vocabulary)}, str(PADDING)))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token=str(PADDING))
