"""Exports that transformers 4 reads as well: what version 5 writes under names that it does not know."""

from pathlib import Path
from typing import Any

from weft.recipes.common.files import read_json, write_json

# What version 5 calls a tokenizer that is all in its tokenizer.json, and those to which version 4 adds a start token
# whether that file has one or not.
IN_ONE_FILE = ("TokenizersBackend", "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer")


def make_readable_by_4(folder: Path, fields: dict[str, Any]) -> None:
    """Add fields to the config.json of an export, and name its tokenizer's class as both versions do.

    Args:
        fields: as `weft.interop` computes them for a family.
    """
    config = folder / "config.json"
    write_json(config, {**read_json(config), **fields})
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file() and (folder / "tokenizer.json").is_file():
        write_json(tokenizer, tokenizer_fields(read_json(tokenizer)))


def tokenizer_fields(content: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json as both versions read it.

    The class is the one that takes tokenizer.json as it is. Version 5 lists further special tokens where version 4 has
    a table of named ones, and a list under another name.
    """
    content = dict(content)
    if content.get("tokenizer_class") in IN_ONE_FILE:
        content["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = content.get("extra_special_tokens")
    if isinstance(extra, list):
        del content["extra_special_tokens"]
        content["additional_special_tokens"] = extra
    return content
