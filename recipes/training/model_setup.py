"""The model that a run trains: a new one from a preset, a config and single fields, or one that exists."""

import copy
from collections.abc import Sequence
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
from weft.recipes.training.model_arguments import (
    PRESETS,
    ModelArguments,
    read_config,
    refuse_longer,
    repeat_layer_types,
)
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
        return _existing_config(arguments, fields, tokenizer, sequence_length, role, length_field)
    shape = read_config(arguments.config_name) if arguments.config_name else PRESETS[arguments.preset]
    from_tokenizer = {
        "vocab_size": _padded_vocabulary(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    shape = {"max_position_embeddings": sequence_length, **shape, **fields}
    if fields.get("layer_types"):
        layers = shape.get("num_hidden_layers", WeftConfig.num_hidden_layers)
        shape["layer_types"] = repeat_layer_types(fields["layer_types"], layers)
    return _checked({**shape, **from_tokenizer, **role}, sequence_length, length_field)


def describe_added(fields: dict[str, Any]) -> list[tuple[str, str]]:
    """The line of a plan that names which of `DEFAULT_EXTRAS` a new model with these fields has, if any."""
    names = ", ".join(name for name in DEFAULT_EXTRAS if fields.get(name))
    return [("added", f"{names} (a lower loss; false for a model to export to a stock class)")] if names else []


def check_existing(name: str, model_class: type[WeftPreTrainedModel]) -> None:
    """Look at the config of an existing model, and at its tensors without their values, before work is done for it.

    Raises:
        RecipeError: it is not Weft's, has another number of stacks, or what `make_model` would refuse of its files.
    """
    check_files(name)
    has_encoder = bool(existing_content(name).get("is_encoder_decoder"))
    if has_encoder != model_class.has_encoder:
        found, needed = ("one stack", "an encoder-decoder")[:: -1 if has_encoder else 1]
        raise RecipeError(
            f"model {name!r} is {found}, and {needed} is trained here: give another, or leave model_name_or_path out."
        )
    load_whole(model_class, name, PAIR_HEADS, device_map="meta")


def make_model(
    arguments: ModelArguments,
    config: WeftConfig,
    model_class: type[WeftPreTrainedModel],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """A new model with random weights from torch's global generator, or the existing one; weights are float32.

    Args:
        tokenizer: tokens that the existing model's own has not got get rows, which begin as the mean of all others;
            None: the model's own.

    Raises:
        RecipeError: it cannot be loaded, or the attention backend cannot compute it.
    """
    backend = {} if arguments.attn_implementation is None else {"attn_implementation": arguments.attn_implementation}
    with refusing("the model cannot be made", OSError, ValueError, ImportError, say=one_line):
        if arguments.model_name_or_path is None:
            return model_class._from_config(config, **backend)
    name, saved = arguments.model_name_or_path, copy.deepcopy(config)
    saved.vocab_size = existing_content(name)["vocab_size"]
    model = load_whole(model_class, name, PAIR_HEADS, config=saved, dtype=torch.float32, **backend)[0]
    if config.vocab_size > saved.vocab_size:
        model.resize_token_embeddings(config.vocab_size, mean_resizing=False)
    if tokenizer is not None:
        known, ids = load_tokenizer(name).get_vocab(), tokenizer.get_vocab()
        if new := [number for token, number in ids.items() if token not in known]:
            start_rows(model, new, list(ids.values()))
    if model.can_generate():
        generation = model.generation_config
        for name in ("bos_token_id", "eos_token_id"):
            setattr(generation, name, _same_or(getattr(generation, name), getattr(config, name)))
    return model


@torch.no_grad()
def start_rows(model: PreTrainedModel, new: Sequence[int], ids: Sequence[int]) -> None:
    """Have new tokens begin as the mean of all others, at which they are neither likely nor unlikely (Hewitt, 2021:
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html).

    Args:
        ids: of the whole vocabulary.
    """
    known = sorted({*ids} - {*new})
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        for values in (getattr(module, "weight", None), getattr(module, "bias", None)):
            if values is not None:
                values[list(new)] = values[known].mean(0)


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model: all of them, those that are multiplied with each token outside of the head, the head's
    output matrix (which may be shared with the embedding), and those of the body that a decoder beside an encoder
    has."""

    total: int
    body: int
    head: int
    decoder: int = 0


def count_parameters(config: WeftConfig, model_class: type[WeftPreTrainedModel]) -> ParameterCounts:
    """Parameters of a model of this shape; an embedding is looked up, not multiplied."""
    with torch.device("meta"):
        model = model_class(config)
    total, multiplied = _count(model)
    output = model.get_output_embeddings()  # of a language model
    head = 0 if output is None else output.weight.numel()
    decoder = _count(model.model.decoder)[1] if config.is_encoder_decoder else 0
    return ParameterCounts(total, multiplied - (0 if config.tie_word_embeddings else head), head, decoder)


def _count(module: torch.nn.Module) -> tuple[int, int]:
    """All parameters, and those that are no embeddings."""
    total = sum(parameter.numel() for parameter in module.parameters())
    return total, total - sum(each.weight.numel() for each in module.modules() if isinstance(each, torch.nn.Embedding))


def existing_content(name: str) -> dict[str, Any]:
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
    length_field: str,
) -> WeftConfig:
    name = arguments.model_name_or_path
    check_files(name)
    content, own = existing_content(name), load_tokenizer(name)
    if not _agree(own, tokenizer):
        raise RecipeError(
            f"model {name!r} and the corpus have different tokenizers: prepare the corpus with the model's own "
            f"(--tokenizer_name {name})."
        )
    if content["vocab_size"] < number_of_ids(own):
        raise RecipeError(
            f"model {name!r} has {content['vocab_size']} token ids and its tokenizer {number_of_ids(own)}: they do not "
            "belong together, so give another."
        )
    if content["vocab_size"] < number_of_ids(tokenizer):
        content["vocab_size"] = _padded_vocabulary(tokenizer)
    if content.get("type_vocab_size", 0) < role.get("type_vocab_size", 0):
        raise RecipeError(f"model {name!r} has no token types, which sentence pairs need: train a new one.")
    role = {**role, "type_vocab_size": content.get("type_vocab_size", 0)}
    own_ids = {name: _same_or(content.get(name), getattr(tokenizer, name)) for name in ("bos_token_id", "eos_token_id")}
    refuse_longer(content, fields, sequence_length, name, length_field)
    return _checked({**content, **own_ids, **fields, **role}, sequence_length, length_field)


def _same_or(before: int | list[int] | None, now: int | list[int] | None) -> int | list[int] | None:
    """What a config has said of a special token before, where that is or includes what holds now."""
    return before if isinstance(before, list) and now in before else now


def _padded_vocabulary(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows of an embedding that has all ids of a tokenizer."""
    return -(-number_of_ids(tokenizer) // VOCABULARY_UNIT) * VOCABULARY_UNIT


def _agree(own: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer is a model's own, but for a mask token that only one of them has, and special tokens that an
    objective has added to it."""
    before, now = ({**each.get_vocab()} for each in (own, tokenizer))
    before.pop(own.mask_token, None)
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return all(now.get(token) == number for token, number in before.items()) and now.keys() - before.keys() <= added


def _checked(content: dict[str, Any], sequence_length: int, length_field: str = "sequence_length") -> WeftConfig:
    with refusing("no such model", ValueError, TypeError, KeyError, StrictDataclassError, say=one_line):
        config = WeftConfig(**content)
    refuse_longer(config.to_dict(), {}, sequence_length, None, length_field)
    return config
