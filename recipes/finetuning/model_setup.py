"""The model that is fine-tuned, and its tokenizer: Weft's or another family's, pretrained or new."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import regex
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from weft import WeftConfig, WeftPreTrainedModel
from weft.recipes.common.checkpoints import UNLOADABLE, check_files, check_unused, load_config, load_reporting
from weft.recipes.common.errors import RecipeError, one_line, refusing
from weft.recipes.common.positions import position_limit_of
from weft.recipes.common.wording import some_of
from weft.recipes.data.tokenization import load_tokenizer
from weft.recipes.finetuning.arguments import ModelSetupArguments
from weft.recipes.finetuning.task import ModelTask
from weft.recipes.training.model_setup import CHANGEABLE_FIELDS, ModelArguments, make_config
from weft.tokenizer.special_tokens import find_start_and_end, for_role
from weft.tokenizer.train import train_tokenizer
from weft.tokenizer.vocabulary import check_rows, number_of_ids

DEFAULT_LENGTH, SAMPLE_TEXTS = 512, 1000
# What a Weft model gets for fine-tuning unless told otherwise: few examples, seen several times.
DROPOUT = {"hidden_dropout": 0.1, "classifier_dropout": 0.1}
PRETRAINED_PART = "classifier_transform"
CHANGEABLE = (*CHANGEABLE_FIELDS, "classifier_pooling", "classifier_dropout")


@dataclass
class ModelSetup:
    """What every seed starts from.

    Attributes:
        config: of the model to make, with what follows from the data.
        keep_head: whether the head of the existing model fits the data's labels.
        new_weights: parameters of the existing model that start anew, known once `make_model` was called.
    """

    task: ModelTask
    arguments: ModelSetupArguments
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    keep_head: bool
    new_weights: list[str] = field(default_factory=list)

    @property
    def is_weft(self) -> bool:
        return self.config.model_type == WeftConfig.model_type

    @property
    def source(self) -> str:
        """Where the weights come from, in words."""
        if self.arguments.model_name_or_path is not None:
            return f"from {self.arguments.model_name_or_path}"
        return f"new, shaped as {self.arguments.config_name}" if self.arguments.config_name else "new"

    def fit_length(self, longest: int) -> None:
        """Let a Weft model take inputs as long as the data's longest, unless its positions are learned."""
        if self.is_weft and longest > self.config.max_position_embeddings:
            self.config.max_position_embeddings = longest
        if self.is_weft:
            self.tokenizer.model_max_length = self.config.max_position_embeddings

    def make_model(self, seed: int) -> PreTrainedModel:
        """The model a seed begins with; what is new in it depends on the seed, weights are float32.

        Raises:
            RecipeError: it cannot be loaded, lacks more than a head and, in other families, a pooler, or is Weft's and
                holds tensors without a place.
        """
        set_seed(seed)
        auto_class = getattr(transformers, self.task.auto_class)
        options: dict[str, Any] = {"trust_remote_code": self.arguments.trust_remote_code}
        if self.arguments.attn_implementation is not None:
            options["attn_implementation"] = self.arguments.attn_implementation
        name = self.arguments.model_name_or_path
        with refusing(f"model {name or 'of this shape'!r} cannot be made", *UNLOADABLE):
            if name is None:
                model = auto_class.from_config(self.config, dtype=torch.float32, **options)
                return self.task.prepare_model(model)
        model, info = load_reporting(auto_class, name, config=self.config, dtype=torch.float32, **options)
        new = {*info.missing, *info.other_shapes}
        prefix = f"{model.base_model_prefix}." if self.task.has_own_head else ""
        # poolers start anew in other families: pretraining often saves none
        new_pooler = self.task.has_own_head and not self.is_weft
        body = [key for key in info.missing if key.startswith(prefix) and not (new_pooler and "pooler" in key)]
        body += [shape for key, shape in info.shapes_told().items() if key.startswith(prefix)]
        if body:
            raise RecipeError(f"model {name!r} has no weights for {some_of(body)}: it is not whole, give another.")
        check_unused(name, model, info.unused)
        if not self.keep_head:
            pretrained = self._pretrained_head(info.missing)
            _start_head_anew(model, pretrained)
            parts = (part for part in head_modules(model) if part[0] not in pretrained)
            new |= {f"{head}.{key}" for head, module in parts for key in module.state_dict()}
        self.new_weights = sorted(new)
        return self.task.prepare_model(model)

    def _pretrained_head(self, missing: list[str]) -> tuple[str, ...]:
        """Parts of the head that the checkpoint has from its pretraining, as an imported BERT has its pooler."""
        before = (self.config.architectures or [""])[0]
        tuned = before.endswith(("Classification", "QuestionAnswering", "MultipleChoice"))
        lacks = any(key.startswith(f"{PRETRAINED_PART}.") for key in missing)
        return () if tuned or lacks or not self.is_weft else (PRETRAINED_PART,)


def set_up_model(
    task: ModelTask, arguments: ModelSetupArguments, fields: dict[str, Any], max_length: int | None
) -> ModelSetup:
    """Load config and tokenizer, or make them, before any training.

    Args:
        fields: WeftConfig fields that were given one by one.
        max_length: as asked for; None: 512, or less where the model's limit is.

    Raises:
        RecipeError: it cannot be loaded, fields do not apply to it, or it cannot take so long inputs.
    """
    name = arguments.model_name_or_path
    if name is None:
        return _new(task, arguments, fields, max_length)
    given = [
        option
        for option in ("config_name", "tokenizer_name", "causal", "special_tokens")
        if getattr(arguments, option) != ModelSetupArguments.__dataclass_fields__[option].default
    ]
    if given:
        raise RecipeError(f"{', '.join(given)} cannot be given with model_name_or_path, which has its own: choose one.")
    config = load_config(name, arguments.trust_remote_code)
    tokenizer = load_tokenizer(name, arguments.trust_remote_code)
    check_files(name)
    with refusing(f"model {name!r} cannot be trained", ValueError, say=str):
        check_rows(tokenizer, getattr(config, "vocab_size", None) or number_of_ids(tokenizer))
    keep_head = task.align_labels(config)
    if config.model_type == WeftConfig.model_type:
        fixed = [field for field in fields if field not in CHANGEABLE]
        if fixed:
            raise RecipeError(
                f"{', '.join(fixed)} cannot be changed on {name}, whose weights depend on it: leave it out "
                f"(changeable: {', '.join(CHANGEABLE)})."
            )
        dropout = {field: value for field, value in DROPOUT.items() if not getattr(config, field)}
        _set(config, {**dropout, **fields})
        tokenizer = _for_task(task, tokenizer, config.type_vocab_size > 1)
    elif fields:
        raise RecipeError(
            f"{', '.join(fields)} can only be given for Weft models, and {name} is {config.model_type!r}."
        )
    tokenizer = _with_padding(task.prepare_tokenizer(tokenizer), name)
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    length = _checked_length(max_length, config, tokenizer, name)
    _set(config, task.config_fields())
    return ModelSetup(task, arguments, config, tokenizer, length, keep_head)


def _with_padding(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Families that were trained without padding (GPT-2, for one) get their end token for it."""
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise RecipeError(f"the tokenizer of {name} has no padding token and no end token to pad with.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _checked_length(
    max_length: int | None, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, name: str
) -> int:
    limit = length_limit(config, tokenizer)
    if max_length is not None and max_length > limit:
        raise RecipeError(f"max_length is {max_length}, but {name} takes {limit} tokens at most: give less.")
    return max_length or default_length(config, tokenizer)


def _new(task: ModelTask, arguments: ModelSetupArguments, fields: dict[str, Any], max_length: int | None) -> ModelSetup:
    source = arguments.tokenizer_name or arguments.config_name
    if source is not None:
        if arguments.special_tokens:
            raise RecipeError(
                f"special_tokens are given with the tokenizer of {source}, which is trained already: leave them out."
            )
        tokenizer = load_tokenizer(source, arguments.trust_remote_code)
    else:
        kind_of_tokenizer = arguments.tokenizer_type or _suitable_tokenizer(task)
        with refusing(None, ValueError, say=str):
            tokenizer = train_tokenizer(
                task.texts(), kind_of_tokenizer, arguments.vocab_size, special_tokens=arguments.special_tokens or ()
            )
    existing = (
        None if arguments.config_name is None else load_config(arguments.config_name, arguments.trust_remote_code)
    )
    if existing is not None and existing.model_type != WeftConfig.model_type:
        if fields:
            raise RecipeError(f"{', '.join(fields)} can only be given for Weft models, not {arguments.config_name}.")
        task.align_labels(existing)
        tokenizer = _with_padding(task.prepare_tokenizer(tokenizer), str(source))
        vocabulary = max(existing.vocab_size, number_of_ids(tokenizer))
        _set(existing, {"vocab_size": vocabulary, "pad_token_id": tokenizer.pad_token_id, **task.config_fields()})
        length = _checked_length(max_length, existing, tokenizer, str(arguments.config_name))
        return ModelSetup(task, arguments, existing, tokenizer, length, keep_head=True)
    max_length = max_length or DEFAULT_LENGTH
    role: dict[str, Any] = {"is_causal": arguments.causal}
    if existing is not None:
        role |= {"is_causal": existing.is_causal, "type_vocab_size": existing.type_vocab_size}
        max_positions = max(max_length, existing.max_position_embeddings)
        fields = {"max_position_embeddings": max_positions, **fields}
    tokenizer = task.prepare_tokenizer(_for_task(task, tokenizer, role.get("type_vocab_size", 0) > 1))
    role |= task.config_fields()
    model_arguments = ModelArguments(preset=arguments.preset, config_name=arguments.config_name)
    model_arguments.check(fields)
    config = make_config(model_arguments, {**DROPOUT, **fields}, tokenizer, max_length, role, "max_length")
    task.align_labels(config)
    return ModelSetup(task, arguments, config, tokenizer, max_length, keep_head=True)


def _for_task(task: ModelTask, tokenizer: PreTrainedTokenizerBase, token_types: bool) -> PreTrainedTokenizerBase:
    return as_encoder(tokenizer, token_types) if task.closes_texts else tokenizer


def _suitable_tokenizer(task: ModelTask) -> str:
    """Byte-level BPE; but where parts of a mostly Chinese text are to be found WordPiece, in which each Han character
    is a token: a longer one may reach over the end of an answer, which then cannot be given."""
    if not task.finds_spans:
        return "bpe"
    sample = "".join(itertools.islice(task.texts(), SAMPLE_TEXTS))
    han = len(regex.findall(r"\p{Han}", sample))
    return "wordpiece" if 2 * han > len(sample) else "bpe"


def head_modules(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    """The children that are not the pretrained body, by name."""
    for name, child in model.named_children():
        if name != model.base_model_prefix and any(True for _ in child.parameters()):
            yield name, child


def _start_head_anew(model: PreTrainedModel, but: tuple[str, ...] = ()) -> None:
    for name, head in head_modules(model):
        for module in head.modules() if name not in but else ():
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False
            module._is_hf_initialized = False
            model._init_weights(module)


def as_encoder(tokenizer: PreTrainedTokenizerBase, token_types: bool = False) -> PreTrainedTokenizerBase:
    """Start and end token around each text: the end token is what a causal model is read at.

    A tokenizer that has only one of them or none goes on as it is: the model knows no other texts.
    """
    if None in find_start_and_end(tokenizer):
        return tokenizer
    with refusing(None, ValueError, say=str):
        return for_role(tokenizer, "encoder", token_types)


def default_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of a sequence at most where max_length is not given."""
    return min(DEFAULT_LENGTH, length_limit(config, tokenizer))


def length_limit(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that a model takes at most; of Weft's positions only those that are learned have an end."""
    if config.model_type == WeftConfig.model_type:
        return config.max_position_embeddings if config.position_embedding_type == "learned" else 1 << 30
    known = [getattr(config, "max_position_embeddings", None), position_limit_of(config), tokenizer.model_max_length]
    return int(min(limit for limit in (*known, 1 << 30) if limit))


def _set(config: PreTrainedConfig, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        with refusing(f"{name}={value!r} is not possible", ValueError, TypeError, say=one_line):
            setattr(config, name, value)
    if isinstance(config, WeftConfig) and hasattr(config, "validate"):
        with refusing("no such model", ValueError, say=one_line):
            config.validate()


def is_weft_model(model: PreTrainedModel) -> bool:
    """Whether a model isolates packed documents."""
    return isinstance(model, WeftPreTrainedModel)
