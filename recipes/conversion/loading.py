"""A checkpoint to convert: its config, its head, its weights and its tokenizer."""

import contextlib
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftConfig
from weft.interop import families, find_family, find_head, weft_class
from weft.recipes.common.checkpoint_files import load_tokenizer, tokenizer_files
from weft.recipes.common.checkpoints import UNLOADABLE, load_config, load_whole
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import some_of
from weft.tokenizer.special_tokens import for_role

# Of `from_pretrained`: the dtype of the file, and attention written out, so that two models sum alike.
EAGER = {"dtype": "auto", "attn_implementation": "eager"}


def load_weft_config(checkpoint: str) -> WeftConfig:
    """The config of a Weft checkpoint; raises RecipeError for one of another family."""
    config = load_config(checkpoint)
    if config.model_type != WeftConfig.model_type:
        raise RecipeError(f"{checkpoint} is {config.model_type!r}, no Weft checkpoint: use import for it first.")
    return config


def language_model_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of what reads and writes text in a model of texts and images, if that is of a known family."""
    text = config.get_text_config()
    if text is config or text.model_type not in families():
        return config
    text.tie_word_embeddings = text.tie_word_embeddings or config.tie_word_embeddings
    text.architectures = [find_family(text.model_type).stock_class("causal").__name__]
    return text


def head_of(config: PreTrainedConfig) -> str:
    """The head that a checkpoint was saved with; raises RecipeError and InteropError."""
    if not config.architectures:
        raise RecipeError(
            "config.json does not say which class was saved, and so which head the checkpoint has: add it as "
            '"architectures", such as ["LlamaForCausalLM"].'
        )
    return find_head(config.architectures[0], config.model_type)


def load_model(model_class: Any, checkpoint: str, **options: Any) -> tuple[PreTrainedModel, list[str]]:
    """The model in evaluation mode, and the names of what it has no place for.

    Args:
        model_class: a model's class.
        options: of `from_pretrained`, instead of those of EAGER or beside them.
    """
    model, unused = load_whole(model_class, checkpoint, **{**EAGER, **options})
    return model.eval(), unused


def load_weft(checkpoint: str, head: str, **options: Any) -> PreTrainedModel:
    """The Weft model of a checkpoint with all that it holds; raises RecipeError for tensors that have no place."""
    model, unused = load_model(weft_class(head), checkpoint, **options)
    if unused:
        raise RecipeError(f"{checkpoint} holds {some_of(unused)}, for which {type(model).__name__} has no place.")
    return model


def find_tokenizer(checkpoint: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a checkpoint, None where there is none; raises RecipeError for one that cannot be loaded."""
    folder = Path(checkpoint)
    if folder.is_dir():
        return load_tokenizer(checkpoint) if tokenizer_files(folder) else None
    with contextlib.suppress(*UNLOADABLE):
        return AutoTokenizer.from_pretrained(checkpoint)
    return None


def tokenizer_for(checkpoint: str, config: WeftConfig, head: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer to write beside an exported model: that of a causal model does not close a text."""
    tokenizer = find_tokenizer(checkpoint)
    if tokenizer is not None and head == "causal" and config.masked_next_token and tokenizer.bos_token:
        return for_role(tokenizer, "decoder")  # that of a model of both roles closes each text
    return tokenizer
