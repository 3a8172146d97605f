"""The files of a checkpoint's weights, looked at before they are loaded: one sentence for what no loader can read."""

import pickle
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open

from weft.recipes.common.checkpoint_files import (
    ADAPTER,
    BrokenFileError,
    adapter_sentence,
    check_content,
    read_json_object,
)
from weft.recipes.common.errors import first_line
from weft.recipes.common.processes import is_first_of_machine
from weft.recipes.common.wording import counted, some_of

# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
AS_SAFETENSORS = "load it where it was made, and save its tensors with safetensors.torch.save_file"


def check_weights_files(name: str) -> None:
    """Refuse a folder whose weights cannot be read, and say so where they are a pickle.

    Only the beginnings of files of safetensors are read.

    Raises:
        BrokenFileError: there are none, or only those of an adapter; a file of them is missing, cut off, a page or a
            pointer instead, or a pickle of more than tensors.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    found = next((folder / each for each in WEIGHTS if (folder / each).is_file()), None)
    if found is None:
        if (folder / ADAPTER).is_file():
            raise BrokenFileError(adapter_sentence(folder))
        others = sorted(path.name for path in folder.glob("*") if path.suffix in (".h5", ".msgpack", ".gguf", ".pth"))
        holds = f" (it holds {', '.join(others)})" if others else ""
        raise BrokenFileError(f"it holds no weights that can be read{holds}: {WEIGHTS[0]} or {WEIGHTS[2]} is needed")
    files = list(_shards(found)) if found.suffix == ".json" else [found]
    for file in files:
        check_content(file)
        (_check_safetensors if file.suffix == ".safetensors" else _check_pickle)(file)
    if files[0].suffix != ".safetensors":
        _say_pickle(str(files[0]), len(files) - 1)


def _shards(index: Path) -> Iterator[Path]:
    """The files that an index names; raises BrokenFileError where some are missing."""
    table = read_json_object(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise BrokenFileError(f"{index.name} names no files in its weight_map: write or download it again")
    names = sorted(set(table.values()))
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise BrokenFileError(
            f"it lacks {some_of(missing)} of the {counted(len(names), 'file')} that {index.name} names: download it "
            "whole"
        )
    yield from (index.parent / name for name in names)


def _check_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise BrokenFileError(
            f"{path.name} is no whole file of safetensors ({first_line(error)}): write or download it again"
        ) from error


def _check_pickle(path: Path) -> None:
    """Read a pickle as weights only and without its numbers, where its format allows that."""
    try:
        torch.load(path, map_location="meta", weights_only=True, mmap=is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise BrokenFileError(
            f"{path.name} is a pickle that holds more than tensors, or is broken; loading it could run any code, "
            f"so it is refused: {AS_SAFETENSORS}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise BrokenFileError(
            f"{path.name} cannot be read ({first_line(error)}): write or download it again"
        ) from error


@cache
def _say_pickle(path: str, more: int) -> None:
    if is_first_of_machine():
        which = f"{path} and {more:,} more are pickles" if more else f"{path} is a pickle"
        print(f"note: {which}, of which only tensors are loaded (weights_only)", file=sys.stderr)
