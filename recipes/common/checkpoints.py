"""Checkpoints are loaded whole, or refused: a tensor that a file lacks would be random numbers, without a word."""

from collections.abc import Sequence
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from weft.interop.tying import fill_copies, head_matrix, tell_tying
from weft.recipes.common.errors import RecipeError, refusing

# What transformers raises for a checkpoint that is missing, broken, or of a kind that it does not know.
UNLOADABLE = (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, SafetensorError)


def load_whole(
    model_class: Any, name: str, may_be_new: Sequence[str] = (), advice: str = "give a whole one", **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model, every tensor of it from the checkpoint.

    Args:
        model_class: a model's or an Auto class.
        name: folder or id of the Hub.
        may_be_new: beginnings of the names of tensors that a checkpoint may lack, such as those of another head.
        options: of `from_pretrained`.

    Returns:
        The model, and the names of tensors that the checkpoint has and the model has no place for.

    Raises:
        RecipeError: it cannot be loaded, or lacks tensors; names them.
    """
    with refusing(f"model {name!r} cannot be loaded", *UNLOADABLE):
        model, info = model_class.from_pretrained(name, output_loading_info=True, **options)
    absent = set(info["missing_keys"])
    absent -= set(fill_copies(model, absent))
    tell_tying(model)
    missing = sorted(key for key in absent if not key.startswith(tuple(may_be_new)))
    unused = sorted(info["unexpected_keys"])
    if missing:
        holds = f" (and holds {listed(unused)}, which it has no place for)" if unused else ""
        if missing == [head_matrix(model)]:
            advice += ', or write "tie_word_embeddings": true into its config.json if the embedding is its head as well'
        raise RecipeError(
            f"model {name!r} lacks {listed(missing)}, which {type(model).__name__} needs{holds}: {advice}."
        )
    return model, unused


def listed(names: Sequence[str], most: int = 3) -> str:
    """Some names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
