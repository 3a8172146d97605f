"""Checkpoints are loaded whole, or refused: a tensor that a file lacks would be random numbers, without a word."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from weft import WeftPreTrainedModel
from weft.interop.tying import fill_copies, head_matrix, tell_tying
from weft.recipes.common.checkpoint_files import BrokenFileError, check_config_file
from weft.recipes.common.checkpoint_weights import check_weights_files
from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.wording import some_of


@dataclass(frozen=True)
class LoadingInfo:
    """What became of the tensors of a checkpoint.

    Attributes:
        missing: names of those that the model has and the checkpoint lacks, which have random values.
        unused: names of those that the model has no place for.
        other_shapes: name -> shape in the checkpoint and in the model, where these differ; values are random too.
    """

    missing: list[str]
    unused: list[str]
    other_shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def shapes_told(self) -> dict[str, str]:
        """Name -> name and both shapes in words, of tensors of other shapes."""
        return {
            name: f"{name} ({list(found)} in the file, {list(needed)} in the model)"
            for name, (found, needed) in self.other_shapes.items()
        }


# What transformers raises for a checkpoint that is missing, broken, or of a kind that it does not know.
UNLOADABLE = (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, SafetensorError)


def check_files(name: str) -> None:
    """Look at config and weights of a folder before work is done for it; raises RecipeError where they are broken."""
    with refusing(f"model {name!r} cannot be loaded", BrokenFileError):
        check_config_file(name)
        check_weights_files(name)


def load_config(name: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The config of a folder or id of the Hub; raises RecipeError."""
    with refusing(f"model {name!r} cannot be loaded", *UNLOADABLE):
        check_config_file(name)
        return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)


def load_reporting(model_class: Any, name: str, **options: Any) -> tuple[PreTrainedModel, LoadingInfo]:
    """Load a model, and tell what its file lacks, holds beside it, and holds in another shape.

    Args:
        model_class: a model's or an Auto class.
        name: folder or id of the Hub.
        options: of `from_pretrained`.

    Raises:
        RecipeError: its files cannot be read.
    """
    with refusing(f"model {name!r} cannot be loaded", *UNLOADABLE), silenced("transformers"):
        check_weights_files(name)
        model, info = model_class.from_pretrained(
            name, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    other_shapes = {key: (tuple(found), tuple(needed)) for key, found, needed in info["mismatched_keys"]}
    missing = set(info["missing_keys"]) - other_shapes.keys()
    missing -= set(fill_copies(model, missing))
    tell_tying(model)
    return model, LoadingInfo(sorted(missing), sorted(info["unexpected_keys"]), other_shapes)


def load_whole(
    model_class: Any, name: str, may_be_new: Sequence[str] = (), advice: str = "give a whole one", **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model, every tensor of it from the checkpoint; for what is not said here see `load_reporting`.

    Args:
        may_be_new: beginnings of the names of tensors that a checkpoint may lack, such as those of another head.

    Returns:
        The model, and the names of tensors that the checkpoint has and the model has no place for.

    Raises:
        RecipeError: it cannot be loaded, lacks tensors, has some of another shape, or is Weft's and holds some in its
            layers that no class has a place for; names them.
    """
    model, info = load_reporting(model_class, name, **options)
    missing = [key for key in info.missing if not key.startswith(tuple(may_be_new))]
    if missing:
        holds = f" (and holds {some_of(info.unused)}, which it has no place for)" if info.unused else ""
        if missing == [head_matrix(model)]:
            advice += ', or write "tie_word_embeddings": true into its config.json if the embedding is its head as well'
        raise RecipeError(
            f"model {name!r} lacks {some_of(missing)}, which {type(model).__name__} needs{holds}: {advice}."
        )
    if info.other_shapes:
        raise RecipeError(
            f"model {name!r} has other shapes than its config.json says: {some_of(list(info.shapes_told().values()))}."
        )
    check_unused(name, model, info.unused)
    return model, info.unused


def check_unused(name: str, model: PreTrainedModel, unused: Sequence[str]) -> None:
    """Refuse a Weft checkpoint with tensors in its layers that no class has a place for, and warn of a stock one's.

    Heads of another task may be left out, as may poolers; without the others, a model computes something else.

    Raises:
        RecipeError: it is Weft's; names the tensors.
    """
    body = [key for key in unused if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key]
    if not body:
        return
    sentence = f"model {name!r} holds {some_of(body)}, for which {type(model).__name__} has no place"
    if isinstance(model, WeftPreTrainedModel):
        raise RecipeError(f"{sentence}: it is another model than its config.json says. Rename or remove them.")
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"warning: {sentence}: they are left out", file=sys.stderr)


@contextlib.contextmanager
def silenced(library: str) -> Iterator[None]:
    """Keep a library's warnings back."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
