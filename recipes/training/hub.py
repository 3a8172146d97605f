"""Publish a run: the folder that `from_pretrained` loads, and its checkpoints as revisions."""

from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from weft.recipes.common.errors import RecipeError, first_line
from weft.recipes.common.files import read_json
from weft.recipes.training.checkpoint_folders import TRAINING_ONLY, checkpoints_of, step_of
from weft.recipes.training.model_card import name_in_card

REVISIONS = "revisions.json"  # further names of a run's checkpoints
# What a reader of the published model needs; optimizer states, logs, pickles and texts of the data stay at home.
PUBLISHED = ("*.safetensors", "*.json", "*.py", "README.md", "*.png", "*.model", "*.txt", "*.jinja")
PRIVATE = (
    *(REVISIONS, "run.json", "plan.json", "trainer_state.json"),
    *("predictions.json", "nbest.json", "na_prob.json", "predicted.json", TRAINING_ONLY),
)
# Folders beside the model that its card speaks of: plots of other splits, an adapter by itself, and a sampler.
PUBLISHED_FOLDERS = (".", "test", "validation_mismatched", "adapter", "custom_generate", "diffusion/custom_generate")
MODULES = "[1-9]_*"  # of an embedding model: pooling and what comes behind it


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a repository (raises RecipeError: it is neither NAME nor OWNER/NAME)."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RecipeError(f"{name!r} is not the name of a Hub repository: give NAME or OWNER/NAME.") from error


def publish(folder: Path, name: str, revisions: str = "false", private: bool = False) -> str:
    """Upload a finished folder (weights, config, code, tokenizer, card and metrics), and tell its address.

    Args:
        folder: a `from_pretrained` folder.
        name: NAME or OWNER/NAME of the repository, made if it is not there.
        revisions: "true": also upload each checkpoint-N in it as revision step-N; "words": and as chck_NM too, where it
            is the first that has seen so many words; "false": neither.
        private: make a new repository private.

    Raises:
        RecipeError: nothing to publish, no such right, or no connection; never shows the token.
    """
    check_name(name)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise RecipeError(f"{folder} has no config.json with weights beside it: give the folder of a finished run.")
    names = _names_of_revisions(folder, revisions)
    api = huggingface_hub.HfApi()
    try:
        repository = api.create_repo(name, private=private or None, exist_ok=True)
        for checkpoint, branches in names.items():
            for branch in branches:
                api.create_branch(repository.repo_id, branch=branch, exist_ok=True)
                _upload(api, checkpoint, repository.repo_id, branch, f"Checkpoint of {branch.replace('-', ' ')}")
        name_in_card(folder / "README.md", repository.repo_id)
        _upload(api, folder, repository.repo_id, None, "Publish the trained model")
    except Exception as error:  # whatever went wrong on the way, the run is whole and can be published later
        again = (f" --hub_revisions {revisions}" if revisions != "false" else "") + (" --private" if private else "")
        raise RecipeError(
            f"{name} could not be published: {first_line(error)}. The run is whole in {folder}: try again with "
            f"`python recipes/publish.py {folder} {name}{again}`."
        ) from error
    return str(repository)


def _names_of_revisions(folder: Path, revisions: str) -> dict[Path, list[str]]:
    """The checkpoints to upload, each with the names of its revisions."""
    if revisions == "false":
        return {}
    if revisions == "words" and not (folder / REVISIONS).is_file():
        raise RecipeError(
            f"{folder} has no checkpoints by words: train with --hub_revisions words, or publish by steps."
        )
    further = read_json(folder / REVISIONS) if revisions == "words" else {}
    return {one: [f"step-{step_of(one)}", *further.get(one.name, [])] for one in checkpoints_of(folder)}


def _upload(api: "huggingface_hub.HfApi", folder: Path, repo_id: str, revision: str | None, message: str) -> None:
    places = [folder / name for name in PUBLISHED_FOLDERS if (folder / name).is_dir()]
    places += [path for path in sorted(folder.glob(MODULES)) if path.is_dir()]
    files = [path for place in places for path in place.iterdir() if path.is_file() and path.name not in PRIVATE]
    api.upload_folder(
        folder_path=folder,
        repo_id=repo_id,
        revision=revision,
        commit_message=message,
        allow_patterns=[
            str(path.relative_to(folder)) for path in files if any(fnmatch(path.name, pattern) for pattern in PUBLISHED)
        ],
    )
