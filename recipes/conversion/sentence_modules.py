"""What makes an embedding model of a checkpoint for sentence-transformers: its pooling and what comes behind it.

modules.json               the modules, one behind the other; the first is the checkpoint
1_Pooling/, 2_Normalize/   the settings of each, and its weights, where it has any
config_sentence_transformers.json, sentence_bert_config.json   prompts, similarity and the longest input
"""

import contextlib
import shutil
from pathlib import Path

from transformers.utils import cached_file

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.sentence_folders import MODULES, OF_LIBRARY, read_modules

LIBRARY = "sentence_transformers."
SETTINGS = (OF_LIBRARY, "sentence_bert_config.json")
OF_MODULE = ("config.json", "model.safetensors")
UNSAFE = "pytorch_model.bin"


def find_modules(checkpoint: str) -> list[dict[str, str]]:
    """Type and folder of the modules behind a checkpoint, a folder or an id of the Hub; none where it is no embedding
    model.

    Raises:
        RecipeError: they cannot be read; one comes with code of its own, or has weights that are no safetensors.
    """
    file = _file(checkpoint, MODULES)
    if file is None:
        return []
    with refusing(f"{MODULES} of {checkpoint} cannot be read", ValueError, TypeError, KeyError):
        found = read_modules(file)
    for one in found:
        if Path(one["path"]).name != one["path"] or one["path"] == "..":
            raise RecipeError(
                f"{checkpoint} has the module {one['path']!r}, which is no folder of its own: mend {MODULES}."
            )
        if not one["type"].startswith(LIBRARY):
            raise RecipeError(
                f"{checkpoint} has the module {one['type']}, which is no part of sentence-transformers: remove it from "
                f"{MODULES} to convert the model alone."
            )
        if _file(checkpoint, f"{one['path']}/{UNSAFE}") and not _file(checkpoint, f"{one['path']}/{OF_MODULE[1]}"):
            raise RecipeError(
                f"{checkpoint} keeps weights of {one['path']} in {UNSAFE}: load it with SentenceTransformer and save "
                "it again, which writes safetensors."
            )
    return found


def copy_modules(checkpoint: str, folder: Path) -> list[str]:
    """Put the modules behind a checkpoint behind its conversion in a folder; their names."""
    found = find_modules(checkpoint)
    if not found:
        return []
    for name in (MODULES, *SETTINGS, *(f"{one['path']}/{file}" for one in found for file in OF_MODULE)):
        file = _file(checkpoint, name)
        if file is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
    return [one["type"].rpartition(".")[2] for one in found]


def _file(checkpoint: str, name: str) -> Path | None:
    """A file of a folder or an id of the Hub; None where there is no such one."""
    with contextlib.suppress(OSError):
        found = cached_file(checkpoint, name)
        return Path(found) if found else None
    return None
