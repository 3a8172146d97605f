"""Time of the same training steps under different ways of making a batch, for the benchmark."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from weft import WeftForSequenceClassification
from weft.losses import sequence_classification_loss
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.finetuning.batches import Batcher, Item
from weft.recipes.common.finetuning.models import as_encoder
from weft.recipes.common.finetuning.training import TrainingItems
from weft.recipes.common.models import ModelArguments, make_config
from weft.recipes.common.tables import read_records, text_of
from weft.recipes.common.tokenising import load_tokenizer

FIXED_LENGTH, WARM_UP = 128, 2


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
    items = [Item([ids], number, target=number % 2) for number, ids in enumerate(encoded)]
    if len(items) < batch_size:
        raise RecipeError(f"{path} holds {len(items)} examples: the benchmark needs a batch of {batch_size} or more.")
    settings = {
        "weft": (Batcher(tokenizer, packed=True), 0),
        "pad to 128": (Batcher(tokenizer, packed=False, pad_to=FIXED_LENGTH), 0),
        "dynamic padding": (Batcher(tokenizer, packed=False), 0),
        "length-grouped": (Batcher(tokenizer, packed=False), batch_size),
    }
    arguments = ModelArguments(preset=preset)
    arguments.check({})
    role = {"is_causal": False, "num_labels": 2, "problem_type": "single_label_classification"}
    config = make_config(arguments, {"hidden_dropout": 0.1}, tokenizer, FIXED_LENGTH, role)

    def side(batcher: Batcher, group: int) -> Callable[[], float]:
        torch.manual_seed(0)
        model = WeftForSequenceClassification(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        rows = TrainingItems(items, seed=0, number=1 << 40, group=group)
        place = 0

        def step() -> None:
            nonlocal place
            batch, layout = batcher.lay_out([rows[index] for index in range(place, place + batch_size)])
            place += batch_size
            labels = torch.tensor([item.target for item in layout.items])
            loss = sequence_classification_loss(model(**batch).logits, labels, "single_label_classification")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        for _ in range(WARM_UP):
            step()

        def measure() -> float:
            began = time.perf_counter()
            for _ in range(steps):
                step()
            return time.perf_counter() - began

        return measure

    return {name: side(*setting) for name, setting in settings.items()}
