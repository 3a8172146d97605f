"""The model that a run trains: a new one from a preset, a config and single fields, or one that exists."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from weft import WeftConfig, WeftForCausalLM
from weft.recipes.common.errors import RecipeError

# Width, depth and heads; everything else is WeftConfig's default.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
    "mini": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2},
    "small": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4},
    "medium": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 8},
}

# What may be changed on a model that exists: nothing that its weights depend on.
CHANGEABLE_FIELDS = ("attention_dropout", "hidden_dropout", "max_position_embeddings", "rope_parameters")


@dataclass
class ModelArguments:
    """Which model to train."""

    preset: str = field(
        default="tiny",
        metadata={
            "help": "shape of a new model: "
            + ", ".join(f"{name} ({p['num_hidden_layers']} x {p['hidden_size']})" for name, p in PRESETS.items())
        },
    )
    config_name: str | None = field(
        default=None, metadata={"help": "folder or file with a config.json of a Weft model, instead of a preset"}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "an existing Weft checkpoint (folder or Hub id) to train on"}
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={"help": "attention backend: sdpa (the default), eager, flex_attention, flash_attention_2"},
    )

    def check(self, model_fields: dict[str, Any]) -> None:
        """Refuse combinations that contradict each other.

        Raises:
            RecipeError: an unknown preset, a missing config, or fields that an existing model cannot change.
        """
        if self.preset not in PRESETS:
            raise RecipeError(f"preset {self.preset!r} is unknown: choose one of {', '.join(PRESETS)}.")
        if self.config_name is not None and self.model_name_or_path is not None:
            raise RecipeError("both config_name and model_name_or_path are given: choose one.")
        if self.config_name is not None:
            _read_config(self.config_name)
        fixed = [name for name in model_fields if name not in CHANGEABLE_FIELDS]
        if self.model_name_or_path is not None and fixed:
            raise RecipeError(
                f"{', '.join(fixed)} cannot be changed on {self.model_name_or_path}, whose weights depend on it: leave "
                f"it out, or train a new model (changeable: {', '.join(CHANGEABLE_FIELDS)})."
            )


def make_config(
    arguments: ModelArguments,
    fields: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    is_causal: bool,
) -> WeftConfig:
    """The config of the model to train.

    Args:
        fields: WeftConfig fields that were given one by one; they win.
        tokenizer: gives the vocabulary and the special ids.
        sequence_length: the longest input in training, and the model's unless `fields` say otherwise.

    Raises:
        RecipeError: the shape is not possible, or the existing model's vocabulary is smaller than the tokenizer's.
    """
    if arguments.model_name_or_path is not None:
        return _existing_config(arguments, fields, tokenizer, sequence_length, is_causal)
    shape = _read_config(arguments.config_name) if arguments.config_name else PRESETS[arguments.preset]
    from_tokenizer = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "is_causal": is_causal,
    }
    return _checked({"max_position_embeddings": sequence_length, **shape, **fields, **from_tokenizer}, sequence_length)


def make_model(arguments: ModelArguments, config: WeftConfig) -> PreTrainedModel:
    """A new model with random weights from torch's global generator, or the existing one; weights are float32.

    Raises:
        RecipeError: it cannot be loaded, or the attention backend cannot compute it.
    """
    backend = {} if arguments.attn_implementation is None else {"attn_implementation": arguments.attn_implementation}
    try:
        if arguments.model_name_or_path is None:
            return WeftForCausalLM._from_config(config, **backend)
        return AutoModelForCausalLM.from_pretrained(
            arguments.model_name_or_path, config=config, dtype=torch.float32, **backend
        )
    except (OSError, ValueError, ImportError) as error:
        raise RecipeError(f"the model cannot be made: {' '.join(str(error).split())}") from error


def count_parameters(config: WeftConfig) -> tuple[int, int]:
    """Parameters of a model of this shape: all of them, and those that are multiplied with each token.

    A matrix shared by embedding and head counts once in both; an embedding of its own is looked up, not multiplied.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    return total, total if config.tie_word_embeddings else total - embedding


def _existing_config(
    arguments: ModelArguments,
    fields: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    is_causal: bool,
) -> WeftConfig:
    name = arguments.model_name_or_path
    try:
        content, _ = PreTrainedConfig.get_config_dict(name)
        own_vocabulary = AutoTokenizer.from_pretrained(name).get_vocab()
    except (OSError, ValueError) as error:
        raise RecipeError(f"model {name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if content.get("model_type") != WeftConfig.model_type:
        raise RecipeError(
            f"model {name!r} is of type {content.get('model_type')!r}: only Weft models can be trained further here."
        )
    if own_vocabulary != tokenizer.get_vocab():
        raise RecipeError(
            f"model {name!r} and the corpus have different tokenizers: prepare the corpus with the model's own "
            f"(--tokenizer_name {name})."
        )
    if content["vocab_size"] < len(tokenizer):
        raise RecipeError(f"model {name!r} has {content['vocab_size']} token ids and its tokenizer {len(tokenizer)}.")
    return _checked({**content, **fields, "is_causal": is_causal}, sequence_length)


def _checked(content: dict[str, Any], sequence_length: int) -> WeftConfig:
    try:
        config = WeftConfig(**content)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise RecipeError(f"no such model: {' '.join(str(error).split())}") from error
    if sequence_length > config.max_position_embeddings:
        raise RecipeError(
            f"sequence_length={sequence_length} is longer than the model's max_position_embeddings="
            f"{config.max_position_embeddings}: shorten it, or give --max_position_embeddings {sequence_length}."
        )
    return config


def _read_config(path: str) -> dict[str, Any]:
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecipeError(f"config_name {path!r} is not a config.json or a folder with one ({error}).") from error
    content = content if isinstance(content, dict) else {}
    known = {name: value for name, value in content.items() if name in WeftConfig.__annotations__}
    if content.get("model_type", "weft") != "weft" or not known:
        raise RecipeError(f"config_name {path!r} is not the config of a Weft model.")
    return known
