"""What is learnt from: rows as the columns that a loss of sentence-transformers reads, and that loss."""

import math
import random
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.word_index import WordIndex
from weft.recipes.finetuning.embeddings.arguments import (
    LABELLED,
    PAIRS,
    RERANKER_NEGATIVES,
    SCORED,
    SIMCSE,
    TEXT,
    TITLE,
    TRIPLETS,
    TSDAE,
    EmbeddingArguments,
    EmbeddingFiles,
)
from weft.recipes.finetuning.embeddings.documents import damaged
from weft.recipes.finetuning.embeddings.evaluation_sets import as_pairs
from weft.recipes.finetuning.embeddings.reading import Row

LOSS_FILE = "loss.safetensors"  # in a checkpoint, the weights of a loss that has any
MARGIN = 0.2  # of cosine distances, by which texts of one label are nearer than those of two
DECODER = {"num_hidden_layers": 2, "is_decoder": True, "add_cross_attention": True}  # of TSDAE, thrown away in the end


def prepare_rows(rows: Sequence[Row], files: EmbeddingFiles, embedding: EmbeddingArguments) -> list[Row]:
    """Training rows as they are learnt from: documents as pairs, pairs with their hard negatives.

    Raises:
        RecipeError: nothing is left, or what was asked for does not fit the rows.
    """
    kind = rows[0].kind
    if kind == TEXT and files.unsupervised != TSDAE:
        texts = [row.texts[0] for row in rows]
        rows = as_pairs(rows) if files.unsupervised == TITLE else [Row(PAIRS, (text, text)) for text in texts]
        if not rows:
            raise RecipeError("no training document has more than a title: give longer ones, or --unsupervised simcse.")
        kind = PAIRS
    elif kind != TEXT and files.unsupervised != TITLE:
        raise RecipeError(f"unsupervised is {files.unsupervised}, but the training rows are {kind}: leave it out.")
    number = files.hard_negatives
    if number is None:
        number = RERANKER_NEGATIVES if embedding.reranker and kind == PAIRS else 0
    if number and kind != PAIRS:
        raise RecipeError(f"hard_negatives are found for pairs, but the training rows are {kind}: leave it out.")
    if number and files.unsupervised == SIMCSE:
        raise RecipeError("hard_negatives are found for pairs of two texts, and simcse has one: leave it out.")
    if embedding.mini_batch_size and kind not in (PAIRS, TRIPLETS):
        raise RecipeError(f"mini_batch_size is for pairs and triplets, but the training rows are {kind}: leave it out.")
    if embedding.matryoshka and kind == TEXT:
        raise RecipeError("matryoshka is given, and tsdae restores texts from whole vectors: leave one of them out.")
    if embedding.reranker and kind == LABELLED:
        raise RecipeError("a reranker learns from pairs, triplets or scored pairs, but the training rows are labelled.")
    if kind == TRIPLETS:
        fewest = min(len(row.texts) for row in rows)
        return [row._replace(texts=row.texts[:fewest]) for row in rows]
    return with_hard_negatives(rows, number, files.split_seed) if number else list(rows)


def with_hard_negatives(rows: Sequence[Row], number: int, seed: int) -> list[Row]:
    """Triplets of pairs: with the texts that BM25 ranks first among those that belong to other queries.

    Where it finds too few, others are drawn.

    Raises:
        RecipeError: there are not so many other texts.
    """
    documents = list(dict.fromkeys(row.texts[1] for row in rows))
    belongs: dict[str, set[str]] = {}
    for row in rows:
        belongs.setdefault(row.texts[0], {row.texts[0]}).add(row.texts[1])
    words, draw = WordIndex.of(documents), random.Random(seed)
    negatives: dict[str, list[str]] = {}
    for query, own in belongs.items():
        found = (documents[place] for place in words.best(query, number + len(own))[0])
        chosen = [text for text in found if text not in own][:number]
        others = iter(draw.sample(documents, min(len(documents), number + len(own) + len(chosen))))
        while len(chosen) < number:
            text = next(others, None)
            if text is None:
                raise RecipeError(
                    f"hard_negatives is {number}, but the training rows have {len(documents)} texts: give fewer."
                )
            if text not in own and text not in chosen:
                chosen.append(text)
        negatives[query] = chosen
    return [Row(TRIPLETS, (*row.texts, *negatives[row.texts[0]])) for row in rows]


def columns_of(rows: Sequence[Row], reranker: bool, passes: int, seed: int) -> dict[str, list[Any]]:
    """Prepared rows by column, in the order in which the loss takes the columns.

    Args:
        passes: over the rows, each of which damages documents in another way.
        seed: of that.
    """
    kind = rows[0].kind
    if kind == TEXT:
        ruins = damaged([row.texts[0] for row in rows], passes, seed)
        return {"damaged": [one for one, _ in ruins], "original": [other for _, other in ruins]}
    texts = list(zip(*(row.texts for row in rows)))
    if kind == LABELLED:
        names = sorted({str(row.target) for row in rows})
        return {"text": list(texts[0]), "label": [names.index(str(row.target)) for row in rows]}
    if kind == SCORED:
        scores = np.array([row.target for row in rows], dtype=np.float64)
        low, high = scores.min(), scores.max()
        scores = (scores - low) / (high - low) if high > low else np.ones_like(scores)
        return {"sentence1": list(texts[0]), "sentence2": list(texts[1]), "label": scores.tolist()}
    if reranker:
        flat = [(row.texts[0], text, float(place == 0)) for row in rows for place, text in enumerate(row.texts[1:])]
        return dict(zip(("query", "text", "label"), map(list, zip(*flat))))
    names = ("anchor", "positive", *(f"negative_{number}" for number in range(1, len(texts) - 1)))
    return {name: list(column) for name, column in zip(names, texts)}


def describe_loss(kind: str, embedding: EmbeddingArguments) -> str:
    """The loss in words."""
    if embedding.reranker:
        return "binary cross-entropy of relevance"
    name = {
        SCORED: "CoSENT, the order of scores",
        LABELLED: f"all triplets of a batch, margin {MARGIN:g}",
        TEXT: "TSDAE, texts restored from the vectors of their ruins",
    }.get(kind, "each text told from the others of its batch")
    cached = f", in parts of {embedding.mini_batch_size} texts (GradCache)" if embedding.mini_batch_size else ""
    sizes = f", also of the first {' '.join(map(str, embedding.matryoshka))} numbers" if embedding.matryoshka else ""
    return f"{name}{cached}{sizes}"


def make_loss(model: Any, kind: str, embedding: EmbeddingArguments) -> nn.Module:
    """The loss of the library for prepared rows of a kind."""
    from sentence_transformers.sentence_transformer import losses

    if embedding.reranker:
        from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

        return BinaryCrossEntropyLoss(model)
    scale = 1 / embedding.temperature
    if kind == SCORED:
        loss = losses.CoSENTLoss(model, scale=scale)
    elif kind == LABELLED:
        distance = losses.BatchHardTripletLossDistanceFunction.cosine_distance
        loss = losses.BatchAllTripletLoss(model, distance_metric=distance, margin=MARGIN)
    elif kind == TEXT:
        loss = _denoising(model, losses)
    elif embedding.mini_batch_size:
        size = embedding.mini_batch_size
        loss = losses.CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=size)
    else:
        loss = losses.MultipleNegativesRankingLoss(model, scale=scale)
    if not embedding.matryoshka:
        return loss
    sizes = [model.get_embedding_dimension(), *sorted(set(embedding.matryoshka), reverse=True)]
    return losses.MatryoshkaLoss(model, loss, sizes)


def _denoising(model: Any, losses: Any) -> nn.Module:
    """TSDAE with a small new decoder of its own, since not every family reads another's states."""
    from transformers import BertConfig, BertLMHeadModel

    tokenizer, config = model.tokenizer, model.transformers_model.config
    size, name = config.hidden_size, config._name_or_path
    heads = next(heads for heads in range(max(1, size // 64), 0, -1) if size % heads == 0)
    decoder = BertConfig(
        vocab_size=max(len(tokenizer), config.vocab_size),
        hidden_size=size,
        num_attention_heads=heads,
        intermediate_size=4 * size,
        max_position_embeddings=model.max_seq_length + 2,
        pad_token_id=tokenizer.pad_token_id,
        **DECODER,
    )
    with tempfile.TemporaryDirectory() as folder:
        BertLMHeadModel(decoder).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        config._name_or_path = folder  # where the loss looks for the tokenizer of the model
        try:
            return losses.DenoisingAutoEncoderLoss(model, folder, tie_encoder_decoder=False)
        finally:
            config._name_or_path = name


def passes_of(steps: int, rows_per_step: int, rows: int) -> int:
    """The passes over the rows that so many steps begin."""
    return max(1, math.ceil(steps * rows_per_step / rows))


def own_weights(loss: nn.Module, model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of a loss that are not the model's, by name."""
    of_model = {id(parameter) for parameter in model.parameters()}
    return {name: parameter for name, parameter in loss.named_parameters() if id(parameter) not in of_model}
