"""The search that needs nothing: an index of the text that Python carries, made on the first question."""

import importlib.util
from pathlib import Path

from weft.recipes.common.files import remove_folder
from weft.recipes.common.sentence_folders import MODULES
from weft.recipes.searching.build import BuildArguments, build
from weft.recipes.searching.embedder import is_trained_for_search, model_files, model_folder
from weft.recipes.searching.index import ABOUT, SearchIndex
from weft.recipes.searching.stamps import same_content, stamps_of

TRAINED = "runs/embeddings*"  # as finetune_embeddings.py leaves them
PRETRAINED = ("runs/pretrain_mlm", "runs/pretrain_clm")  # as pretraining does
WORDS_ALONE = "passages are found by the words of the question alone"


def open_python_index(folder: Path, model: str | None, device: str | None) -> SearchIndex:
    """Open the index of a model, or build it, and say in a line which model that is and what to expect of it.

    Args:
        folder: where there is an index for each model.
        model: None: the newest of `TRAINED` if there is any and sentence-transformers is installed, else none. A model
            of `PRETRAINED` is taken only if it is named, since its vectors find less than words do.

    Raises:
        RecipeError: the model cannot be loaded.
    """
    trained = [place for place in Path().glob(TRAINED) if is_trained_for_search(place)]
    trained = [str(place) for place in sorted(trained, key=lambda place: (place / MODULES).stat().st_mtime_ns)]
    able = importlib.util.find_spec("sentence_transformers") is not None
    chosen = model or (trained[-1] if trained and able else None)
    print(_expect(chosen, bool(trained)), flush=True)
    index = folder / (Path(chosen).resolve().name if chosen else "words")
    _forget_other_model(index, chosen)
    if not (index / ABOUT).is_file():
        print(f"building {index}: the first question takes longer", flush=True)
    return build(BuildArguments(index, builtin=True, stem="english", model=chosen, device=device))


def _expect(model: str | None, is_there: bool) -> str:
    """Which model answers, and how well."""
    if model is None and is_there:
        return f"no model, since sentence-transformers is not there (pip install sentence-transformers): {WORDS_ALONE}"
    if model is None:
        pretrained = next((name for name in PRETRAINED if (Path(name) / "config.json").is_file()), None)
        return f"no model{f' ({pretrained} is not trained for search)' if pretrained else ''}: {WORDS_ALONE}"
    if is_trained_for_search(model_folder(model)):
        return f"model {model}, saved by sentence-transformers: passages are found by meaning and by words"
    return (
        f"model {model}, which is not trained for search: {WORDS_ALONE}; --by both asks its vectors too, and finds less"
    )


def _forget_other_model(index: Path, model: str | None) -> None:
    """Remove an index of our own whose model has been trained again since."""
    if model is None or not (index / ABOUT).is_file():
        return
    known, folder = SearchIndex(index).about["model"]["files"], model_folder(model)
    if not same_content(stamps_of(model_files(folder), known, folder), known):
        print(f"{model} is another model than before: {index} is built again", flush=True)
        remove_folder(index)
