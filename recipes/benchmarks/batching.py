"""Time of the same training steps under different ways of making a batch, for the benchmark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftConfig, WeftForConditionalGeneration, WeftForSequenceClassification
from weft.losses import sequence_classification_loss
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.tables import read_records, text_of
from weft.recipes.data.tokenization import load_tokenizer
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample, PackingCollator
from weft.recipes.finetuning.dataset import TrainingOrder
from weft.recipes.finetuning.model_setup import as_encoder
from weft.recipes.finetuning.tasks.seq2seq.batches import PairCollator, decoder_batch
from weft.recipes.finetuning.tasks.seq2seq.encoding import PairCounts, encode_sources, encode_targets
from weft.recipes.training.model_setup import ModelArguments, make_config
from weft.recipes.training.throughput import seconds_of

FIXED_LENGTH, PAIR_LENGTH, WARM_UP = 128, 512, 2
ENCODER = {"is_causal": False, "num_labels": 2, "problem_type": "single_label_classification"}


def batching_sides(
    path: Path, text_column: str, tokenizer_name: str, preset: str, batch_size: int, steps: int
) -> dict[str, Callable[[], float]]:
    """Ways of making a batch, each a function that trains `steps` steps and returns the seconds they took.

    All train models of the same shape with the same AdamW. "weft" packs, "pad to 128" is what transformers' run_glue.py
    does, "dynamic padding" pads the same batches to their longest example, "length-grouped" the batches of a run that
    brings examples of like length together. The first three take the same batches; a call goes on where the last one
    ended.

    Raises:
        RecipeError: the tokenizer cannot be loaded or has no start and end token, the file cannot be read or holds too
            few examples, or there is no such preset.
    """
    tokenizer = as_encoder(load_tokenizer(tokenizer_name))
    texts = [text_of(record, text_column, "text_column") for record in read_records(path)]
    encoded = tokenizer(texts, truncation=True, max_length=FIXED_LENGTH).input_ids
    items = [EncodedExample([ids], number, target=number % 2) for number, ids in enumerate(encoded)]
    _check_number(path, items, batch_size)
    fixed = PackingCollator(tokenizer, packed=False, pad_to=FIXED_LENGTH)
    settings = {**_settings(PackingCollator, tokenizer, batch_size), "pad to 128": (fixed, 0)}
    config = _shape(preset, {"hidden_dropout": 0.1, **ENCODER}, tokenizer, FIXED_LENGTH)

    def get_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor], layout: BatchLayout) -> torch.Tensor:
        labels = torch.tensor([item.target for item in layout.items])
        return sequence_classification_loss(model(**batch).logits, labels, "single_label_classification")

    return {
        name: _side(WeftForSequenceClassification, config, items, *setting, batch_size, steps, get_loss)
        for name, setting in settings.items()
    }


def pair_sides(
    source: Path, target: Path, tokenizer_name: str, preset: str, batch_size: int, steps: int
) -> dict[str, Callable[[], float]]:
    """The same of an encoder-decoder that learns the lines of `target` from those of `source`; raises RecipeError also
    for files that do not have as many lines."""
    tokenizer = as_encoder(load_tokenizer(tokenizer_name))
    sources, targets = (path.read_text(encoding="utf-8").splitlines() for path in (source, target))
    if len(sources) != len(targets):
        raise RecipeError(
            f"{source} has {len(sources)} lines and {target} {len(targets)}: give lines that belong together."
        )
    encoded = encode_sources(sources, tokenizer, PAIR_LENGTH, PairCounts())
    written = encode_targets(targets, tokenizer, tokenizer.bos_token_id, PAIR_LENGTH, PairCounts())
    items = [EncodedExample([ids], number, target=said) for number, (ids, said) in enumerate(zip(encoded, written))]
    _check_number(source, items, batch_size)
    settings = _settings(PairCollator, tokenizer, batch_size)
    start = {"is_encoder_decoder": True, "decoder_start_token_id": tokenizer.bos_token_id}
    config = _shape(preset, start, tokenizer, PAIR_LENGTH)

    def get_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor], layout: BatchLayout) -> torch.Tensor:
        decoder = decoder_batch(layout, config.decoder_start_token_id, tokenizer.pad_token_id)
        return model(**batch, **decoder, use_cache=False).loss

    return {
        name: _side(WeftForConditionalGeneration, config, items, *setting, batch_size, steps, get_loss)
        for name, setting in settings.items()
    }


def _settings(
    kind: type[PackingCollator], tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> dict[str, tuple[PackingCollator, int]]:
    """Ways of making a batch: what lays it out, and the size of groups of like length."""
    packed, padded = kind(tokenizer, packed=True), kind(tokenizer, packed=False)
    return {"weft": (packed, 0), "dynamic padding": (padded, 0), "length-grouped": (padded, batch_size)}


def _check_number(path: Path, items: list[EncodedExample], batch_size: int) -> None:
    if len(items) < batch_size:
        raise RecipeError(f"{path} holds {len(items)} examples: the benchmark needs a batch of {batch_size} or more.")


def _shape(preset: str, fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase, length: int) -> WeftConfig:
    arguments = ModelArguments(preset=preset)
    arguments.check({})
    return make_config(arguments, {}, tokenizer, length, fields)


def _side(
    model_class: type[PreTrainedModel],
    config: WeftConfig,
    items: list[EncodedExample],
    collator: PackingCollator,
    group: int,
    batch_size: int,
    steps: int,
    get_loss: Callable[[PreTrainedModel, dict[str, torch.Tensor], BatchLayout], torch.Tensor],
) -> Callable[[], float]:
    """A model in training, as a function that trains it `steps` steps further and returns the seconds."""
    torch.manual_seed(0)
    model = model_class(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    rows = TrainingOrder(items, seed=0, number=1 << 40, group=group)
    place = 0

    def step() -> None:
        nonlocal place
        batch, layout = collator.lay_out([rows[index] for index in range(place, place + batch_size)])
        place += batch_size
        get_loss(model, batch, layout).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds_of(WARM_UP, step)
    return lambda: seconds_of(steps, step)
