"""What sentence-transformers saves beside a checkpoint: the class that the whole is of, and the modules behind."""

import json
from pathlib import Path

from weft.recipes.common.checkpoint_files import read_json_object
from weft.recipes.common.errors import refusing

MODULES, OF_LIBRARY = "modules.json", "config_sentence_transformers.json"
OF_VECTORS = "SentenceTransformer"  # the class of models that give vectors


def saved_as(folder: Path) -> str | None:
    """The class of sentence-transformers whose model a folder is; None: it is none's. Raises RecipeError."""
    if not (folder / MODULES).is_file():
        return None
    with refusing(f"model {str(folder)!r} cannot be loaded", OSError, ValueError):
        about = read_json_object(folder / OF_LIBRARY) if (folder / OF_LIBRARY).is_file() else {}
    return str(about.get("model_type", OF_VECTORS))


def read_modules(file: Path) -> list[dict[str, str]]:
    """Type and folder of each module behind a checkpoint.

    Args:
        file: that lists them, `MODULES`.

    Raises:
        OSError, ValueError, TypeError, KeyError: it cannot be read, or is something else.
    """
    listed = json.loads(file.read_text(encoding="utf-8"))
    return [{name: str(one[name]) for name in ("type", "path")} for one in listed if one["path"]]
