"""Texts to vectors, by a folder of sentence-transformers or by the mean of any encoder's last states."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import snapshot_download

from weft.recipes.common.checkpoint_files import TOKENIZER_FILES, BrokenFileError, check_config_file, read_json_object
from weft.recipes.common.errors import RecipeError, optional_package, refusing
from weft.recipes.common.options import refuse_missing_folder
from weft.recipes.common.sentence_folders import MODULES, OF_VECTORS, read_modules, saved_as
from weft.recipes.data.segmentation import Offsets, word_spans
from weft.recipes.searching.passages import LEAST_TOKENS

MODEL_FILES = ("*.safetensors", "config*.json", MODULES, "sentence_*_config.json", *TOKENIZER_FILES)
LONGEST_OF_ANY = 1 << 16  # tokens; a model that says more has no limit of its own


def is_trained_for_search(folder: Path) -> bool:
    """Whether sentence-transformers saved a model of vectors there, which mostly means that these were trained."""
    return saved_as(folder) == OF_VECTORS


def model_folder(name: str) -> Path:
    """The folder of a model; of an id of the Hub the one that its files are, or have been, fetched into.

    Raises:
        RecipeError: there is no such folder, and the Hub does not give such a model.
    """
    if Path(name).is_dir():
        return Path(name)
    refuse_missing_folder("model", name)
    with refusing(f"model {name!r} cannot be fetched", OSError, ValueError, advice="give the folder of a model."):
        wanted = [*MODEL_FILES, "*/config.json"]
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["onnx/*", "openvino/*"]))


def model_files(folder: Path) -> list[Path]:
    """List the files that decide which vectors a model gives; raises RecipeError."""
    places, kind = [folder], saved_as(folder)
    if kind not in (None, OF_VECTORS):
        raise RecipeError(
            f"model {str(folder)!r} is a {kind} of sentence-transformers, which gives no vectors that can be "
            f"compared: give a {OF_VECTORS}, or an encoder."
        )
    if kind is not None:
        with refusing(f"model {str(folder)!r} cannot be loaded", OSError, ValueError, TypeError, KeyError):
            places += [folder / module["path"] for module in read_modules(folder / MODULES)]
    found = {path for place in places for pattern in MODEL_FILES for path in place.glob(pattern) if path.is_file()}
    return sorted(found)


class Embedder:
    """A model that gives each text a vector of length 1."""

    def __init__(self, folder: str, device: str | None = None) -> None:
        """Load a model; raises RecipeError.

        Args:
            folder: of sentence-transformers, or of a Weft or stock encoder with its tokenizer.
            device: None: a GPU if there is one.
        """
        library = optional_package("sentence_transformers", "searching by meaning")
        from weft.recipes.common.checkpoints import UNLOADABLE  # with torch, which no refusal waits for

        local = {"local_files_only": True}
        weights = local | {"use_safetensors": True}
        with refusing(f"model {folder!r} cannot be loaded", *UNLOADABLE), _quiet():
            if is_trained_for_search(Path(folder)):
                self.model = library.SentenceTransformer(folder, device=device, model_kwargs=weights, **local)
            else:
                self.model = _mean_of_states(folder, device, weights)
        self.size = int(self.model.get_embedding_dimension())
        longest = self.model.max_seq_length
        self.longest = LONGEST_OF_ANY if longest is None else int(min(longest, LONGEST_OF_ANY))
        self.longest -= self._added_tokens()
        if self.longest < LEAST_TOKENS:
            raise RecipeError(
                f"model {folder!r} reads {longest:,} tokens, of which {self.longest} are left beside its prompt and "
                f"special tokens: give one that leaves {LEAST_TOKENS}."
            )

    def offsets(self, text: str) -> Offsets:
        """The first character of each token and the one after its last; of its word where the tokenizer cannot tell."""
        tokenizer = self.model.tokenizer
        if not getattr(tokenizer, "is_fast", False):
            words = word_spans(text).tolist()
            return [word for word in words for _ in tokenizer.tokenize(text[slice(*word)]) or [""]]
        options = {"add_special_tokens": False, "truncation": False, "verbose": False}
        return tokenizer(text, return_offsets_mapping=True, **options)["offset_mapping"]

    def of_passages(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        """Embed texts that are searched [texts, size] float32."""
        return self._embed(self.model.encode_document, texts, batch_size)

    def of_questions(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Embed texts that are searched for [texts, size] float32."""
        return self._embed(self.model.encode_query, texts, batch_size)

    def _embed(self, encode: Any, texts: Sequence[str], batch_size: int) -> np.ndarray:
        options = {"normalize_embeddings": True, "convert_to_numpy": True, "show_progress_bar": False}
        vectors = np.asarray(encode(list(texts), batch_size=batch_size, **options), np.float32)
        if not np.isfinite(vectors).all():
            raise RecipeError("the model gives vectors that are not finite numbers: give another one.")
        return vectors

    def _added_tokens(self) -> int:
        """Number of tokens that stand around a passage: special ones, those of a prompt, and one between words."""
        tokenizer, prompt = self.model.tokenizer, self.model.prompts.get("document") or ""
        special = tokenizer.num_special_tokens_to_add() if hasattr(tokenizer, "num_special_tokens_to_add") else 0
        return special + (len(self.offsets(prompt)) if prompt else 0) + 1


def _mean_of_states(folder: str, device: str | None, weights: dict[str, Any]) -> Any:
    """The mean over the last states of a model's tokens, as sentence-transformers computes it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    from weft.recipes.common.checkpoints import check_files

    check_config_file(folder)
    if read_json_object(Path(folder) / "config.json").get("is_encoder_decoder"):
        raise BrokenFileError("it is an encoder-decoder: give an encoder, or a folder of sentence-transformers")
    check_files(folder)
    # said, for a model with a chat template would be given a message instead of the text
    of_text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    options = {"modality_config": of_text, "module_output_name": "token_embeddings"}
    stack = Transformer(folder, model_kwargs=weights, processor_kwargs={"local_files_only": True}, **options)
    return SentenceTransformer(modules=[stack, Pooling(stack.get_embedding_dimension(), "mean")], device=device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep both libraries quiet while a model is loaded: they warn of heads that it needs no more, above all."""
    import transformers

    from weft.recipes.common.checkpoints import silenced

    transformers.logging.disable_progress_bar()
    with silenced("transformers"), silenced("sentence_transformers"):
        yield
