"""How long an input a model can read at all: beyond a table of positions there is nothing to add to a token."""

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig

import weft

# What families call a table with a row for each position: GPT-2, BERT and RoBERTa, OPT and BART.
TABLES = ("wpe", "positions_embed", "position_embeddings", "position_embedding", "embed_positions")
WITH_TABLE = ("learned", "sinusoidal")


def position_limit(model: nn.Module) -> int | None:
    """The number of positions that a model has rows for; None: it has no such table, so that nothing ends."""
    if model.config.model_type == weft.WeftConfig.model_type:
        return position_limit_of(model.config)
    tables = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in TABLES and isinstance(module, nn.Embedding)
    ]
    return min((table.num_embeddings - _first_row(table) for table in tables), default=None)


def position_limit_of(config: PreTrainedConfig) -> int | None:
    """The same of the model that a config describes; one of another family is made without weights, and None is
    returned too where that cannot be."""
    if config.model_type == weft.WeftConfig.model_type:
        return config.max_position_embeddings if config.position_embedding_type in WITH_TABLE else None
    try:
        with torch.device("meta"):
            return position_limit(transformers.AutoModel.from_config(config))
    except (ValueError, KeyError, TypeError, ImportError, RuntimeError, AttributeError):
        return None


def _first_row(table: nn.Embedding) -> int:
    """The row of the first position: behind that of padding (RoBERTa), or behind two others (OPT, BART)."""
    return getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1
