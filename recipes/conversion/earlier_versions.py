"""Exports that transformers 4 reads as well: what version 5 writes under names that it does not know."""

from pathlib import Path
from typing import Any

from weft.recipes.common.files import read_json, write_json


def make_readable_by_4(folder: Path, fields: dict[str, Any]) -> None:
    """Add fields to the config.json of an export, and name its tokenizer's class as both versions do.

    Args:
        fields: as `weft.interop` computes them for a family.
    """
    config = folder / "config.json"
    write_json(config, {**read_json(config), **fields})
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file():
        write_json(tokenizer, tokenizer_fields(read_json(tokenizer)))


def tokenizer_fields(content: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer_config.json as both versions read it.

    Version 5 names the class of a tokenizer that is all in its tokenizer.json otherwise, and lists further special
    tokens where version 4 has a table of named ones, and a list under another name.
    """
    content = dict(content)
    if content.get("tokenizer_class") == "TokenizersBackend":
        content["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = content.get("extra_special_tokens")
    if isinstance(extra, list):
        del content["extra_special_tokens"]
        content["additional_special_tokens"] = extra
    return content
