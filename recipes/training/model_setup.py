"""The model that a run trains: a new one from a preset, a config and single fields, or one that exists."""

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftConfig, WeftPreTrainedModel
from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.checkpoints import check_files, load_whole
from weft.recipes.common.errors import RecipeError, one_line, refusing
from weft.recipes.training.model_arguments import CHANGEABLE_FIELDS as CHANGEABLE_FIELDS
from weft.recipes.training.model_arguments import DEFAULT_EXTRAS as DEFAULT_EXTRAS
from weft.recipes.training.model_arguments import PRESETS, ModelArguments, read_config, refuse_longer
from weft.tokenizer.vocabulary import number_of_ids

PAIR_HEADS = ("pooler.", "seq_relationship.")  # what only sentence pairs have, which may be new

VOCABULARY_UNIT = 64  # matrices with a multiple of it are multiplied faster; ids beyond the tokenizer's never occur


def make_config(
    arguments: ModelArguments,
    fields: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    role: dict[str, Any],
    length_field: str = "sequence_length",
) -> WeftConfig:
    """The config of the model to train.

    Args:
        fields: WeftConfig fields that were given one by one; they win.
        tokenizer: gives the vocabulary, padded to a multiple of 64, and the special ids.
        sequence_length: the longest input in training, and the model's unless `fields` say otherwise.
        role: WeftConfig fields that follow from what is trained.
        length_field: the field that gives sequence_length.

    Raises:
        RecipeError: the shape is not possible, or the existing model's vocabulary is smaller than the tokenizer's.
    """
    if arguments.model_name_or_path is not None:
        return _existing_config(arguments, fields, tokenizer, sequence_length, role)
    shape = read_config(arguments.config_name) if arguments.config_name else PRESETS[arguments.preset]
    from_tokenizer = {
        "vocab_size": -(-number_of_ids(tokenizer) // VOCABULARY_UNIT) * VOCABULARY_UNIT,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    shape = {"max_position_embeddings": sequence_length, **shape, **fields}
    return _checked({**shape, **from_tokenizer, **role}, sequence_length, length_field)


def describe_added(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """The line of a plan that names which of `DEFAULT_EXTRAS` a new model with these fields has, if any."""
    names = ", ".join(name for name in DEFAULT_EXTRAS if fields.get(name))
    return [("added", f"{names} (a lower loss; false for a model to export to a stock class)")] if names else []


def check_existing(name: str, model_class: type[WeftPreTrainedModel]) -> None:
    """Look at the config of an existing model, and at its tensors without their values, before work is done for it.

    Raises:
        RecipeError: it is not Weft's, or what `make_model` would refuse of its files.
    """
    check_files(name)
    _own_content(name)
    load_whole(model_class, name, PAIR_HEADS, device_map="meta")


def make_model(
    arguments: ModelArguments, config: WeftConfig, model_class: type[WeftPreTrainedModel]
) -> PreTrainedModel:
    """A new model with random weights from torch's global generator, or the existing one; weights are float32.

    Raises:
        RecipeError: it cannot be loaded, or the attention backend cannot compute it.
    """
    backend = {} if arguments.attn_implementation is None else {"attn_implementation": arguments.attn_implementation}
    with refusing("the model cannot be made", OSError, ValueError, ImportError, say=one_line):
        if arguments.model_name_or_path is None:
            return model_class._from_config(config, **backend)
    options = {"config": config, "dtype": torch.float32, **backend}
    model = load_whole(model_class, arguments.model_name_or_path, PAIR_HEADS, **options)[0]
    if model.can_generate():
        generation = model.generation_config
        for name in ("bos_token_id", "eos_token_id"):
            setattr(generation, name, _same_or(getattr(generation, name), getattr(config, name)))
    return model


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model: all of them, those that are multiplied with each token outside of the head, and the head's
    output matrix (which may be shared with the embedding)."""

    total: int
    body: int
    head: int


def count_parameters(config: WeftConfig, model_class: type[WeftPreTrainedModel]) -> ParameterCounts:
    """Parameters of a model of this shape; an embedding is looked up, not multiplied."""
    with torch.device("meta"):
        model = model_class(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    embeddings = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Embedding))
    head = model.get_output_embeddings().weight.numel()
    return ParameterCounts(total, total - embeddings - (0 if config.tie_word_embeddings else head), head)


def _own_content(name: str) -> dict[str, Any]:
    """What the config.json of an existing model holds; raises RecipeError where it is not Weft's."""
    with refusing(f"model {name!r} cannot be loaded", OSError, ValueError):
        content, _ = PreTrainedConfig.get_config_dict(name)
    if content.get("model_type") != WeftConfig.model_type:
        raise RecipeError(
            f"model {name!r} is of type {content.get('model_type')!r}: only Weft models can be trained further here."
        )
    return content


def _existing_config(
    arguments: ModelArguments,
    fields: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    sequence_length: int,
    role: dict[str, Any],
) -> WeftConfig:
    name = arguments.model_name_or_path
    check_files(name)
    content, own = _own_content(name), load_tokenizer(name)
    if _without_mask(own) != _without_mask(tokenizer):
        raise RecipeError(
            f"model {name!r} and the corpus have different tokenizers: prepare the corpus with the model's own "
            f"(--tokenizer_name {name})."
        )
    ids = number_of_ids(tokenizer)
    if content["vocab_size"] < ids:
        raise RecipeError(
            f"model {name!r} has {content['vocab_size']} token ids and its tokenizer {ids}, the mask token included if "
            "it needs one: train a new one."
        )
    if content.get("type_vocab_size", 0) < role.get("type_vocab_size", 0):
        raise RecipeError(f"model {name!r} has no token types, which sentence pairs need: train a new one.")
    role = {**role, "type_vocab_size": content.get("type_vocab_size", 0)}
    own_ids = {name: _same_or(content.get(name), getattr(tokenizer, name)) for name in ("bos_token_id", "eos_token_id")}
    refuse_longer(content, fields, sequence_length, name)
    return _checked({**content, **own_ids, **fields, **role}, sequence_length)


def _same_or(before: int | list[int] | None, now: int | list[int] | None) -> int | list[int] | None:
    """What a config has said of a special token before, where that is or includes what holds now."""
    return before if isinstance(before, list) and now in before else now


def _without_mask(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """A vocabulary but for the mask token, which a tokenizer may be given for a masked objective."""
    return {token: number for token, number in tokenizer.get_vocab().items() if token != tokenizer.mask_token}


def _checked(content: dict[str, Any], sequence_length: int, length_field: str = "sequence_length") -> WeftConfig:
    with refusing("no such model", ValueError, TypeError, KeyError, StrictDataclassError, say=one_line):
        config = WeftConfig(**content)
    refuse_longer(config.to_dict(), {}, sequence_length, None, length_field)
    return config
