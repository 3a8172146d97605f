"""The command line of embeddings, read and checked without torch, so that a refusal comes at once."""

import importlib.util
from collections.abc import Sequence

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import ModelSetupArguments
from weft.recipes.finetuning.command import check_fields, parse_fields
from weft.recipes.finetuning.embeddings.arguments import (
    FASTTEXT,
    LEARNING_RATE,
    OF_NEW,
    PYDOC,
    EmbeddingArguments,
    EmbeddingFiles,
    EmbeddingTraining,
)

# Fields of every fine-tuning that mean nothing here.
REFUSED = {
    "batching": "texts are padded to the longest of a batch",
    "predict_file": "embed texts with SentenceTransformer(folder).encode",
    **dict.fromkeys(("lora_rank", "lora_alpha", "lora_dropout"), "embeddings are trained whole here: leave it out"),
    "layer_decay": "all layers learn at one rate here: leave it out",
}
GROUPS = [EmbeddingTraining, EmbeddingFiles, EmbeddingArguments, ModelSetupArguments]


def read_command(description: str | None, argv: Sequence[str] | None = None) -> Parsed:
    """Parse and check the command line (raises RecipeError: a field or a file is not what it has to be)."""
    parsed = parse_fields(description, GROUPS, argv)
    training, files, embedding = (parsed[kind] for kind in (EmbeddingTraining, EmbeddingFiles, EmbeddingArguments))
    for name, reason in REFUSED.items():
        if name in parsed.given:
            raise RecipeError(f"{name} is given: {reason}.")
    if files.task is None and files.train_file is None and files.dataset_name is None:
        files.task = PYDOC
    check_fields(parsed)
    embedding.check_with(files)
    if training.learning_rate is None:
        is_new = parsed[ModelSetupArguments].model_name_or_path is None
        training.learning_rate = OF_NEW if is_new else LEARNING_RATE
    refuse_missing_packages(files)
    return parsed


def refuse_missing_packages(files: EmbeddingFiles) -> None:
    """Raise RecipeError, with the command that installs them, where optional packages are not there."""
    needed = {"sentence-transformers": True, "gensim": FASTTEXT in files.baselines}
    missing = [
        name for name, used in needed.items() if used and importlib.util.find_spec(name.replace("-", "_")) is None
    ]
    if missing:
        without = "" if missing[0] == "sentence-transformers" else " (or leave what needs it out of baselines)"
        raise RecipeError(f"this recipe needs {' and '.join(missing)}: pip install {' '.join(missing)}{without}.")
