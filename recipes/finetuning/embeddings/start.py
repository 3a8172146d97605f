"""What a training starts from: a checkpoint or new weights under a pooling, or an embedding model as it is."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig
from transformers.utils import cached_file

from weft import WeftConfig
from weft.recipes.common.checkpoint_files import CONFIG
from weft.recipes.common.checkpoints import UNLOADABLE, check_files, load_config, load_whole
from weft.recipes.common.errors import RecipeError, one_line, refusing
from weft.recipes.common.sentence_folders import MODULES, OF_VECTORS, read_modules, saved_as
from weft.recipes.common.wording import some_of
from weft.recipes.finetuning.adapters import freeze
from weft.recipes.finetuning.arguments import ModelSetupArguments
from weft.recipes.finetuning.embeddings.arguments import AUTO, LAST_TOKEN, MEAN, USUAL_LENGTH, EmbeddingArguments
from weft.recipes.finetuning.embeddings.task import EmbeddingTask
from weft.recipes.finetuning.model_setup import DEFAULT_LENGTH, DROPOUT, ModelSetup, set_up_model


class Start:
    """What every seed starts from.

    Attributes:
        setup: of a model to be put under a pooling or a head; None: the checkpoint is an embedding model.
        config: of the model.
        pooling: of a model that has none yet; seen from the config of a checkpoint before it bears the name of a body.
    """

    def __init__(
        self,
        task: EmbeddingTask,
        arguments: ModelSetupArguments,
        embedding: EmbeddingArguments,
        max_length: int | None,
        fields: dict[str, Any],
    ) -> None:
        """Load or make config and tokenizer.

        Args:
            max_length: tokens of a text, if that is asked for.
            fields: of WeftConfig that were given one by one.

        Raises:
            RecipeError: fields do not apply, or the model cannot be trained.
        """
        self.task, self.arguments, self.embedding, self.max_length = task, arguments, embedding, max_length
        name, self.setup = arguments.model_name_or_path, None
        if name is not None and not embedding.reranker and _has_modules(name):
            self.config = self._checked(name, fields)
        else:
            self.setup = self._set_up(fields)
            self.config = self.setup.config
        size = getattr(self.config, "hidden_size", None)
        larger = [wanted for wanted in embedding.matryoshka if size is not None and wanted >= size]
        if larger:
            raise RecipeError(f"matryoshka has {larger[0]}, but vectors have {size} numbers: give smaller sizes.")
        before = (self.config.architectures or [""])[0]
        is_causal = self.config.is_causal if self.is_weft else before.endswith(("CausalLM", "LMHeadModel"))
        self.pooling = embedding.pooling if embedding.pooling != AUTO else LAST_TOKEN if is_causal else MEAN

    def _set_up(self, fields: dict[str, Any]) -> ModelSetup:
        """A checkpoint or new weights, of which a model is to be made."""
        setup = set_up_model(self.task, self.arguments, fields, self.max_length)
        if setup.config.is_encoder_decoder and setup.is_weft:
            name = self.arguments.model_name_or_path or self.arguments.config_name
            raise RecipeError(f"{name} is an encoder-decoder: give an encoder or a decoder.")
        if self.max_length is None:
            setup.max_length = min(setup.max_length, USUAL_LENGTH)
        setup.fit_length(setup.max_length)
        return setup

    def _checked(self, name: str, fields: dict[str, Any]) -> PreTrainedConfig:
        """The config of an embedding model, which goes on with its own pooling and what comes behind it."""
        own = [
            *(each for each in ("config_name", "tokenizer_name", "special_tokens") if getattr(self.arguments, each)),
            *(["pooling"] if self.embedding.pooling != AUTO else []),
            *([] if self.embedding.normalize else ["normalize"]),
            *fields,
        ]
        if own:
            raise RecipeError(
                f"{', '.join(own)} cannot be given with {name}, an embedding model with its own: leave it out."
            )
        config = load_config(name, self.arguments.trust_remote_code)
        check_files(name)
        trusted = self.arguments.trust_remote_code and config.model_type != WeftConfig.model_type
        load_whole(AutoModel, name, ("pooler.",), dtype=torch.float32, trust_remote_code=trusted)
        limit = getattr(config, "max_position_embeddings", None) or DEFAULT_LENGTH
        if self.max_length is not None and self.max_length > limit:
            raise RecipeError(f"max_length is {self.max_length}, but {name} takes {limit} tokens at most: give less.")
        return config

    @property
    def source(self) -> str:
        """Where the weights come from, in words."""
        return self.setup.source if self.setup is not None else f"from {self.arguments.model_name_or_path}"

    @property
    def is_weft(self) -> bool:
        return self.config.model_type == WeftConfig.model_type

    @property
    def trusted(self) -> bool:
        """Whether code that comes with the checkpoint is run; Weft's is installed."""
        return self.arguments.trust_remote_code and not self.is_weft

    def make(self, seed: int) -> Any:
        """The model of sentence-transformers that a seed begins with; raises RecipeError where it cannot be made."""
        what = f"model {self.arguments.model_name_or_path or 'of this shape'!r} cannot be made"
        with refusing(what, *UNLOADABLE, TypeError, say=one_line):
            model = self._put_together(seed) if self.setup is not None else self._loaded()
        freeze(model.transformers_model, self.arguments)
        prompts = {"query": self.embedding.query_prompt, "document": self.embedding.document_prompt}
        model.prompts.update({name: text for name, text in prompts.items() if text})
        model.model_card_data.local_files_only = True  # it would ask the Hub for the model's name
        return model

    def _loaded(self) -> Any:
        import sentence_transformers

        name = self.arguments.model_name_or_path
        model = sentence_transformers.SentenceTransformer(
            name,
            device="cpu",
            trust_remote_code=self.trusted,
            local_files_only=Path(name).is_dir(),
            model_kwargs=self._model_options(),
            config_kwargs=self._dropout(),
        )
        if self.max_length is not None:
            model.max_seq_length = self.max_length
        return model

    def _put_together(self, seed: int) -> Any:
        """A model and tokenizer, saved where the library loads them from, with what comes behind them."""
        import sentence_transformers
        from sentence_transformers.base.modules import Normalize, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        model = self.setup.make_model(seed)
        lacking = [key for key in self.setup.new_weights if "pooler" not in key]
        if lacking and self.arguments.model_name_or_path and not self.embedding.reranker:
            raise RecipeError(
                f"model {self.arguments.model_name_or_path!r} lacks {some_of(lacking)}: give a whole one."
            )
        task = "sequence-classification" if self.embedding.reranker else "feature-extraction"
        trusted = {"trust_remote_code": self.trusted}
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            self.setup.tokenizer.save_pretrained(folder)
            first = Transformer(
                folder,
                transformer_task=task,
                model_kwargs={**trusted, **self._model_options()},
                processor_kwargs=trusted,
                config_kwargs=trusted,
            )
        first.model.config._name_or_path = self.arguments.model_name_or_path or ""
        first.max_seq_length = self.setup.max_length
        if self.embedding.reranker:
            return sentence_transformers.CrossEncoder(modules=[first], device="cpu")
        modules = [first, Pooling(first.get_embedding_dimension(), self.pooling)]
        modules += [Normalize()] if self.embedding.normalize else []
        return sentence_transformers.SentenceTransformer(modules=modules, device="cpu")

    def _model_options(self) -> dict[str, Any]:
        backend = self.arguments.attn_implementation
        return {"dtype": torch.float32, **({} if backend is None else {"attn_implementation": backend})}

    def _dropout(self) -> dict[str, Any]:
        """Of a Weft model that has none."""
        return {n: v for n, v in DROPOUT.items() if not getattr(self.config, n)} if self.is_weft else {}


def pooling_of(name: str) -> str | None:
    """How an embedding model, a folder or an id of the Hub, pools its tokens; None where it is none.

    Raises:
        RecipeError: it does not pool, or in several ways at once.
    """
    if not _has_modules(name):
        return None
    from sentence_transformers.sentence_transformer.modules import Pooling

    with refusing(f"model {name!r} cannot be looked at", *UNLOADABLE, TypeError, say=one_line):
        modules = read_modules(Path(cached_file(name, MODULES)))
        places = [one["path"] for one in modules if one["type"].endswith(".Pooling")]
        found = [Pooling.load_config(name, subfolder=place).get("pooling_mode", MEAN) for place in places]
    if len(found) != 1 or not isinstance(found[0], str):
        raise RecipeError(f"model {name!r} pools in another way than mean, first or last token: give another.")
    return found[0]


def _has_modules(name: str) -> bool:
    """Whether a folder or id of the Hub is an embedding model of sentence-transformers."""
    if Path(name).is_dir():
        return saved_as(Path(name)) == OF_VECTORS and (Path(name) / CONFIG).is_file()
    from sentence_transformers.util import is_sentence_transformer_model

    with refusing(f"model {name!r} cannot be looked at", *UNLOADABLE, say=one_line):
        return is_sentence_transformer_model(name)
