"""The folder of a model of tokens: config.json, model.safetensors, and its tokenizer in tokenizer/."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerBase

from weft.recipes.classical.hidden_markov import HiddenMarkovModel
from weft.recipes.classical.ngrams import NGramModel
from weft.recipes.classical.token_model import TokenModel
from weft.recipes.common.checkpoint_files import CONFIG, BrokenFileError, load_tokenizer, read_json_object
from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.files import write_json
from weft.tokenizer.vocabulary import number_of_ids

FORMAT_VERSION = 1
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer"
KIND, VERSION = "token_model", "format_version"
CLASSES: dict[str, type[TokenModel]] = {each.KIND: each for each in (NGramModel, HiddenMarkovModel)}


def save_token_model(model: TokenModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model and the tokenizer of its tokens into a folder that is there."""
    tokenizer.save_pretrained(folder / TOKENIZER)
    save_file(model.arrays(), folder / WEIGHTS)
    write_json(folder / CONFIG, {KIND: model.KIND, VERSION: FORMAT_VERSION, **model.settings()})


def holds_token_model(folder: str | Path) -> bool:
    """Whether a folder was written by `save_token_model`, as its config.json says."""
    path = Path(folder) / CONFIG
    try:
        return path.is_file() and KIND in read_json_object(path)
    except BrokenFileError:
        return False


def load_token_model(folder: str | Path) -> tuple[TokenModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer; raises RecipeError where the folder is broken or of another version."""
    folder, what = Path(folder), f"{folder} cannot be loaded"
    with refusing(what, BrokenFileError, FileNotFoundError):
        config: dict[str, Any] = read_json_object(folder / CONFIG)
    model_class = CLASSES.get(config.get(KIND))
    if model_class is None or config.get(VERSION) != FORMAT_VERSION:
        raise RecipeError(
            f"{folder} holds a model of tokens of kind {config.get(KIND)!r} and version {config.get(VERSION)!r}, this "
            f"program reads {', '.join(CLASSES)} of version {FORMAT_VERSION}: make it again with recipes/baselines.py."
        )
    with refusing(what, OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError):
        model = model_class.from_saved(config, load_file(folder / WEIGHTS))
    tokenizer = load_tokenizer(str(folder / TOKENIZER))
    if number_of_ids(tokenizer) > model.vocab_size:
        raise RecipeError(
            f"{folder} has a model of {model.vocab_size} tokens and a tokenizer of {number_of_ids(tokenizer)}: they do "
            "not belong together, so make it again with recipes/baselines.py."
        )
    return model, tokenizer
