"""How a model of another family reads packed rows so that no document sees another: found by trying."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.distillation.reading import (
    Reader,
    gather,
    packed_rows,
    single_documents,
    single_pairs,
)

Answer = Callable[..., torch.Tensor]  # of inputs of the model's forward, [rows, tokens, width]
LENGTHS = (5, 7)  # tokens of the documents to try
DIFFERENCE = {torch.bfloat16: 5e-2}  # that rounding makes, of the largest number; 1e-3 of wider types
MOST = 1 << 10  # tokens at once


def readers_of(model: PreTrainedModel) -> list[Reader]:
    """The ways in which a model may read a batch, the fastest first; the last has each document by itself."""
    pad = model.config.get_text_config().pad_token_id
    pad = pad if isinstance(pad, int) else 0
    if model.config.is_encoder_decoder:
        return [partial(single_pairs, pad=pad, shift=model.prepare_decoder_input_ids_from_labels)]
    packed = [packed_rows] if "position_ids" in inspect.signature(model.forward).parameters else []
    return [*packed, partial(single_documents, pad=pad)]


def batch_of(documents: Sequence[torch.Tensor]) -> Batch:
    """One row of documents [tokens], each of which is its own target where a model reads pairs."""
    ids = torch.cat(list(documents))[None]
    positions = torch.cat([torch.arange(len(each)) for each in documents])[None]
    batch = {"input_ids": ids, "position_ids": positions, "attention_mask": torch.ones_like(ids)}
    of_targets = {"decoder_position_ids": positions, "decoder_attention_mask": torch.ones_like(ids)}
    return {**batch, **of_targets, "labels": ids}


def draw_documents(tokens: Sequence[int]) -> list[torch.Tensor]:
    """Two documents of random tokens, and two of the same lengths with other tokens in every place."""
    ids, draw = torch.tensor(tokens), torch.Generator().manual_seed(0)
    places = [torch.randint(len(ids), (length,), generator=draw) for length in LENGTHS]
    return [ids[each] for each in places] + [ids[(each + 1) % len(ids)] for each in places]


def choose_reader(readers: Sequence[Reader], answer: Answer, documents: Sequence[torch.Tensor], name: str) -> Reader:
    """The first of these readers with which a document has the same answers beside another one as alone.

    Args:
        documents: as `draw_documents` makes them.
        name: of the model, for messages.

    Raises:
        RecipeError: there is none, or answers are not finite.
    """
    first, second, *others = documents
    alone, cut = readers[-1], len(first)
    expected = torch.cat([_answers(alone, answer, [each]) for each in (first, second)])
    if not expected.isfinite().all():
        raise RecipeError(f"{name} makes numbers that are not finite: give another.")
    tolerance = DIFFERENCE.get(expected.dtype, 1e-3) * expected.abs().max()
    for reader in readers:
        found = _answers(reader, answer, [first, second])
        # to the last bit, since shapes are the same: a small leak is one too; documents in rows of their own have none
        is_isolated = reader is alone or (
            torch.equal(found[cut:], _answers(reader, answer, [others[0], second])[cut:])
            and torch.equal(found[:cut], _answers(reader, answer, [first, others[1]])[:cut])
        )
        if is_isolated and (found - expected).abs().max() <= tolerance:
            return reader
    raise RecipeError(
        f"{name} computes something else for a text beside padding than for the text alone: give another."
    )


def check_direction(reader: Reader, answer: Answer, document: torch.Tensor, is_causal: bool, name: str) -> None:
    """Raises RecipeError where a model sees what comes after a token and should not, or the other way round."""
    changed = document.clone()
    changed[-1] = document[0] if document[0] != document[-1] else document[1]
    one, other = (_answers(reader, answer, [each])[:-1] for each in (document, changed))
    if torch.equal(one, other) == is_causal:
        return
    if is_causal:
        raise RecipeError(f"{name} sees what comes after a token, which it is to predict: give a causal model.")
    raise RecipeError(f"{name} does not see what comes after a masked token: give a masked model.")


def _answers(reader: Reader, answer: Answer, documents: Sequence[torch.Tensor]) -> torch.Tensor:
    batch = batch_of(documents)
    return gather(answer, reader(batch, MOST), batch["input_ids"].numel())
