"""What lies in the folder of a checkpoint but its weights, looked at before it is loaded, and its tokenizer."""

import json
from pathlib import Path
from typing import Any

import transformers

from weft.recipes.common.errors import first_line, refusing
from weft.recipes.common.files import GIT_LFS_ADVICE, is_git_lfs_pointer

CONFIG, ADAPTER = "config.json", "adapter_config.json"
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.spm", "*.tiktoken", "tekken.json", "bpe.codes")
TOKENIZER_CONFIG = "tokenizer_config.json"
PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")  # of transformers 5 and 4
JSON_OBJECTS = (CONFIG, "tokenizer.json", TOKENIZER_CONFIG, "vocab.json")
HTML = (b"<!doctype html", b"<html")


class BrokenFileError(OSError):
    """What stands in the way of loading a folder, and what to do, as the end of a sentence about the folder."""


def check_config_file(name: str) -> None:
    """Raise BrokenFileError where a folder has no config.json that can be read; ids of the Hub are not looked at."""
    folder = Path(name)
    if not folder.is_dir():
        return
    if not (folder / CONFIG).is_file():
        if (folder / ADAPTER).is_file():
            raise BrokenFileError(adapter_sentence(folder))
        raise BrokenFileError(f"it has no {CONFIG}: give a folder that save_pretrained wrote")
    read_json_object(folder / CONFIG)


def check_tokenizer_files(name: str) -> None:
    """Raise BrokenFileError where a folder has no file of a tokenizer, or one that is something else instead."""
    folder = Path(name)
    if not folder.is_dir():
        return
    files = tokenizer_files(folder)
    if not files:
        raise BrokenFileError(
            "it has no tokenizer.json or other file of a tokenizer: save the one that it was trained with into it"
        )
    config = folder / CONFIG  # read for the class of a tokenizer, where there is one
    for file in [*files, config] if config.is_file() else files:
        read_json_object(file) if file.name in JSON_OBJECTS else check_content(file)
    if [file.name for file in files] == [TOKENIZER_CONFIG]:
        used = str(read_json_object(files[0]).get("tokenizer_class"))
        if used.endswith(("Fast", "Backend")):  # those of bytes and of characters need no other file
            raise BrokenFileError(f"it has the settings of a tokenizer ({TOKENIZER_CONFIG}), but not tokenizer.json")


def load_tokenizer(name: str, trust_remote_code: bool = False) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer of a folder or id of the Hub; raises RecipeError."""
    # a broken file can raise anything, tokenizers' own plain Exception among it
    with refusing(f"tokenizer {name!r} cannot be loaded", Exception, advice="check its name or folder."):
        check_tokenizer_files(name)
        if _is_plain_tokenizer(Path(name)):  # of which AutoTokenizer makes the same, after importing torch
            return transformers.PreTrainedTokenizerFast.from_pretrained(name)
        return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)


def _is_plain_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of the plain class, as the recipes train and keep them, and no model but
    Weft, which might ask for another class."""
    if not all((folder / name).is_file() for name in ("tokenizer.json", TOKENIZER_CONFIG)):
        return False
    if (folder / CONFIG).exists() and read_json_object(folder / CONFIG).get("model_type") != "weft":
        return False
    config = read_json_object(folder / TOKENIZER_CONFIG)
    return "auto_map" not in config and config.get("tokenizer_class") in PLAIN_CLASSES


def tokenizer_files(folder: Path) -> list[Path]:
    """The files in a folder of which a tokenizer is made."""
    return sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()})


def adapter_sentence(folder: Path) -> str:
    base = read_json_object(folder / ADAPTER).get("base_model_name_or_path")
    return (
        f"it holds a PEFT adapter for {base!r} and no weights of a model: merge it first (load both with "
        "PeftModel.from_pretrained, then merge_and_unload and save_pretrained), or load it with PEFT"
    )


def read_json_object(path: Path) -> dict[str, Any]:
    check_content(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BrokenFileError(f"{path.name} is not JSON ({first_line(error)}): write or download it again") from error
    if not isinstance(value, dict):
        raise BrokenFileError(
            f"{path.name} holds no JSON object but {type(value).__name__}: write or download it again"
        )
    return value


def check_content(path: Path) -> None:
    """Raise BrokenFileError for a file that is empty, a pointer of Git LFS or a page of the web."""
    if path.stat().st_size == 0:
        raise BrokenFileError(f"{path.name} is empty: write or download it again")
    if is_git_lfs_pointer(path):
        raise BrokenFileError(f"{path.name} is {GIT_LFS_ADVICE}")
    with path.open("rb") as handle:
        if handle.read(64).lstrip().lower().startswith(HTML):
            raise BrokenFileError(f"{path.name} is an HTML page, not the file itself: download it again")
