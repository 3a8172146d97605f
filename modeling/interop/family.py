"""What a family of models is to Weft: a table of config fields and one of weights, read in both directions."""

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

import weft
from weft import WeftConfig
from weft.interop.earlier import FULL, SLIDING, earlier_fields
from weft.interop.tying import copies
from weft.interop.weights import Weight, prefixed, with_layers


class InteropError(ValueError):
    """A checkpoint that cannot be converted; the message is a sentence for the user.

    Attributes:
        fields: names of the WeftConfig fields that the family cannot express; empty for other errors.
    """

    def __init__(self, message: str, fields: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


# head -> (the Weft class, transformers' names of that head's class for each family)
HEADS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "seq2seq": ("WeftForConditionalGeneration", modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    "causal": ("WeftForCausalLM", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "masked": ("WeftForMaskedLM", modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    "sequence": ("WeftForSequenceClassification", modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    "tokens": ("WeftForTokenClassification", modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES),
    "question": ("WeftForQuestionAnswering", modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES),
    "choice": ("WeftForMultipleChoice", modeling_auto.MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES),
    "pretraining": ("WeftForPreTraining", modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES),
    "base": ("WeftModel", modeling_auto.MODEL_MAPPING_NAMES),
}
LANGUAGE_MODELS = ("seq2seq", "causal", "masked", "pretraining")
TASKS = ("sequence", "tokens", "choice", "question")

# Fields that have the same name and meaning in nearly every family.
COMMON = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "tie_word_embeddings", "initializer_range"),
    *("pad_token_id", "bos_token_id", "eos_token_id"),
)
LABELS = ("id2label", "label2id", "problem_type")

# Fields that do not change what a model computes, and fields that do so only under a condition.
NEUTRAL = {"initializer_range", "use_cache", "decoder_start_token_id", "pad_token_id", "bos_token_id", "eos_token_id"}
ONLY_IF: dict[str, Callable[[WeftConfig], bool]] = {
    **dict.fromkeys(("rope_parameters",), lambda c: c.position_embedding_type == "rope"),
    "position_interleaved": lambda c: c.position_embedding_type in ("rope", "sinusoidal"),
    "position_offset": lambda c: c.position_embedding_type == "learned",
    **dict.fromkeys(
        ("relative_attention_num_buckets", "relative_attention_max_distance", "relative_attention_per_layer"),
        lambda c: c.position_embedding_type == "t5",
    ),
    **dict.fromkeys(
        ("position_buckets", "max_relative_positions", "pos_att_type", "norm_rel_ebd"),
        lambda c: c.position_embedding_type == "disentangled",
    ),
    "max_position_embeddings": lambda c: c.position_embedding_type not in ("t5", "alibi", "none"),
    "attention_scale": lambda c: c.position_embedding_type != "disentangled",
    "qk_norm_over": lambda c: c.qk_norm,
    "attention_gate_over": lambda c: c.attention_gate,
    "norm_bias": lambda c: c.norm_type == "layernorm" and c.norm_affine,
    "norm_offset": lambda c: c.norm_type == "rmsnorm",
    "sliding_window": lambda c: "sliding_attention" in c.layer_types,
    **dict.fromkeys(
        (
            *("linear_num_key_heads", "linear_key_head_dim", "linear_num_value_heads", "linear_value_head_dim"),
            *("linear_conv_kernel_dim", "linear_allow_neg_eigval", "linear_norm_eps", "linear_norm_position"),
        ),
        lambda c: "linear_attention" in c.layer_types,
    ),
    **dict.fromkeys(("recurrent_cell", "recurrent_hidden_size"), lambda c: "recurrent" in c.layer_types),
    "lm_head_transform_bias": lambda c: c.lm_head_transform,
    "num_decoder_layers": lambda c: c.is_encoder_decoder,
    **dict.fromkeys(
        ("classifier_transform_norm", "classifier_transform_bias", "classifier_transform_tokens"),
        lambda c: c.classifier_transform is not None,
    ),
}


@dataclass(frozen=True)
class Head:
    """One head of a family.

    Attributes:
        weights: of the head, by full names in both models.
        config: WeftConfig fields that this head of the family has, beside those of the family.
        dropped: patterns of stock tensors that Weft has no place for and that the head's output does not depend on.
    """

    weights: Sequence[Weight] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    dropped: Sequence[str] = ()


@dataclass(frozen=True)
class Family:
    """A family, by transformers' `model_type`.

    Attributes:
        fields: Weft field -> stock field of the same meaning (for those of `same`, under the same name).
        same: names of fields that both have.
        config: WeftConfig fields that make the family what it is.
        requires: stock fields with the values that Weft can express, each a value or a tuple of them; the first one is
            written on the way out.
        to_weft: WeftConfig fields that are computed from a stock config; may raise InteropError.
        to_stock: stock fields that are computed from a WeftConfig; may raise InteropError.
        body: name of the body inside the stock models with a head, with its dot.
        weights: of the body.
        heads: which heads are converted, by the names of `HEADS`.
        layer_types: what may mix tokens in its layers.
        ignored: patterns of stock tensors that are computed, not learnt.
        tied: whether an exported model with a head for tokens has the embedding as head.
        released: tensors as the family's own files have them, from a stock model's, where transformers writes others.
        earlier: fields of config.json under the names that transformers 4 reads, computed from a stock config.
        earlier_fault: what transformers 4 computes otherwise all the same, if anything, from a stock config.
    """

    model_type: str
    weights: Sequence[Weight]
    heads: Mapping[str, Head]
    body: str = "model."
    same: Sequence[str] = COMMON
    fields: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    to_weft: Callable[[PreTrainedConfig], dict[str, Any]] = lambda config: {}
    to_stock: Callable[[WeftConfig], dict[str, Any]] = lambda config: {}
    layer_types: Sequence[str] = ("full_attention", "sliding_attention")
    ignored: Sequence[str] = ()
    tied: Callable[[WeftConfig], bool] = lambda config: config.tie_word_embeddings
    released: Callable[[dict[str, torch.Tensor], PreTrainedConfig], dict[str, torch.Tensor]] | None = None
    earlier: Callable[[PreTrainedConfig], dict[str, Any]] = earlier_fields
    earlier_fault: Callable[[PreTrainedConfig], str | None] = lambda config: None

    def table(self) -> dict[str, str]:
        """Weft field -> stock field."""
        return {**{name: name for name in self.same}, **self.fields}

    def import_config(self, stock: PreTrainedConfig, head: str) -> WeftConfig:
        """The Weft config that computes what a stock config does.

        Raises:
            InteropError: it cannot, because of fields that are named.
        """
        self._check_head(head)
        in_the_way = []
        for name, allowed in self.requires.items():
            values = allowed if isinstance(allowed, tuple) else (allowed,)
            found = getattr(stock, name, values[0])
            if not any(found == value for value in values):
                in_the_way.append(f"{name}={found!r} (only {' or '.join(map(repr, values))})")
        if in_the_way:
            raise InteropError(
                f"this {self.model_type} checkpoint cannot be expressed in Weft: {'; '.join(in_the_way)}."
            )
        table = {name: there for name, there in self.table().items() if hasattr(stock, there)}
        given = {name: copy.deepcopy(getattr(stock, there)) for name, there in table.items()}  # configs change dicts
        if head not in TASKS and "sequence" in self.heads:  # a head that the model is given later is the family's too
            given |= self.heads["sequence"].config
        given |= {**self.config, **self.heads[head].config, **self.to_weft(stock)}
        if head in ("sequence", "tokens"):
            given |= {name: getattr(stock, name) for name in LABELS}
        try:
            return WeftConfig(**given)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise InteropError(f"this {self.model_type} checkpoint cannot be expressed in Weft: {reason}") from error

    def export_config(self, config: WeftConfig, head: str) -> PreTrainedConfig:
        """The stock config that computes what a Weft config does.

        Raises:
            InteropError: there is none; it names the fields that stand in the way.
        """
        self._check_head(head)
        others = sorted({*config.layer_types} - {*self.layer_types})
        if others:
            told = f"layer_types has {' and '.join(others)}"
            raise InteropError(f"this model cannot be expressed as {self.model_type}: {told}.", ["layer_types"])
        given = {name: value[0] if isinstance(value, tuple) else value for name, value in self.requires.items()}
        given |= {there: copy.deepcopy(getattr(config, name)) for name, there in self.table().items()}
        given |= self.to_stock(config)
        if head in ("sequence", "tokens"):
            given |= {name: getattr(config, name) for name in LABELS}
        try:
            stock = transformers.AutoConfig.for_model(self.model_type, **given)
            stock.tie_word_embeddings = config.tie_word_embeddings  # T5's class forgets it
            back = self.import_config(stock, head)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise InteropError(f"this model cannot be expressed as {self.model_type}: {reason}") from error
        fields = [name for name in relevant_fields(config, head) if _meaning(config, name) != _meaning(back, name)]
        if fields:
            told = (f"{name}={getattr(config, name)!r} (it would be {getattr(back, name)!r})" for name in fields)
            raise InteropError(f"this model cannot be expressed as {self.model_type}: {'; '.join(told)}.", fields)
        if head in LANGUAGE_MODELS:
            stock.tie_word_embeddings = self.tied(config)
        return stock

    def stock_class(self, head: str) -> type[PreTrainedModel]:
        """transformers' class of this family with a head."""
        name = HEADS[head][1][self.model_type]
        return getattr(transformers, name[0] if isinstance(name, tuple | list) else name)

    def all_weights(self, head: str, config: WeftConfig) -> list[Weight]:
        """Every entry of the table for a model with a head."""
        layers = max(config.num_hidden_layers, config.num_decoder_layers or 0)
        body = self.weights if head == "base" else prefixed(self.weights, self.body, "model.")
        return with_layers([*body, *self.heads[head].weights], layers)

    def import_weights(self, stock: Mapping[str, torch.Tensor], model: nn.Module, head: str) -> list[str]:
        """Load a stock model's tensors into a Weft model; returns the names of those that had no place (`dropped`).

        Raises:
            InteropError: tensors that are missing or left over, or copies of a tied one that differ.
        """
        own = model.state_dict()
        found: dict[str, torch.Tensor] = {}
        used = set()
        for entry in self.all_weights(head, model.config):
            if entry.stock not in stock or entry.weft[0] not in own:
                continue
            used.add(entry.stock)
            parts = entry.layout.split(stock[entry.stock], [own[name].shape for name in entry.weft], model.config)
            for name, part in zip(entry.weft, parts, strict=True):
                if name in found and not torch.equal(found[name], part):
                    raise InteropError(f"{entry.stock} differs from its tied copy, and Weft has one place for both.")
                found[name] = part
        left = [name for name in stock if name not in used and not _matches(name, self.ignored)]
        dropped = [name for name in left if _matches(name, self.heads[head].dropped)]
        left = [name for name in left if name not in dropped]
        missing = sorted(own.keys() - found.keys())
        if left or missing:
            raise InteropError(
                f"the weights do not fit: {_list(left) or 'none'} left over, {_list(missing) or 'none'} missing."
            )
        model.load_state_dict(found, strict=True)
        return dropped

    def export_weights(self, model: PreTrainedModel, stock: PreTrainedModel, head: str) -> None:
        """Load a Weft model's tensors into a stock model.

        Raises:
            InteropError: tensors that are missing or left over.
        """
        own, target = model.state_dict(), stock.state_dict()
        found: dict[str, torch.Tensor] = {}
        used: set[str] = set()
        for entry in self.all_weights(head, model.config):
            if entry.stock in target and all(name in own for name in entry.weft):
                found[entry.stock] = entry.layout.join([own[name] for name in entry.weft], model.config).contiguous()
                used |= set(entry.weft)
        for twin, source in copies(stock):
            if twin in found:
                found.setdefault(source, found[twin])
        free = [*self.ignored, *self.heads[head].dropped]
        missing = [name for name in target if name not in found and not _matches(name, free)]
        left = sorted(own.keys() - used)
        if left or missing:
            raise InteropError(
                f"the weights do not fit: {_list(left) or 'none'} left over, {_list(missing) or 'none'} missing."
            )
        stock.load_state_dict(found, strict=False)

    def _check_head(self, head: str) -> None:
        if head not in self.heads:
            known = ", ".join(HEADS[name][0] for name in self.heads)
            raise InteropError(f"{HEADS[head][0]} is not converted for {self.model_type}: choose among {known}.")


def weft_class(head: str) -> type[PreTrainedModel]:
    """Weft's class of a head."""
    return getattr(weft, HEADS[head][0])


def find_head(architecture: str, model_type: str) -> str:
    """The head of a class of transformers or Weft, by its name; raises InteropError for one that is not known."""
    if architecture == "WeftEncoderDecoderModel":  # what AutoModel makes of a config with is_encoder_decoder
        return "base"
    for head, (own, names) in HEADS.items():
        theirs = names.get(model_type)
        if architecture in (theirs if isinstance(theirs, tuple | list) else (theirs, own)):
            return head
    known = ", ".join(own for own, _ in HEADS.values())
    raise InteropError(f"a checkpoint of the class {architecture} is not converted: there is {known}.")


def relevant_fields(config: WeftConfig, head: str) -> list[str]:
    """WeftConfig fields that decide what a model with this head computes."""
    names = [each.name for each in dataclasses.fields(WeftConfig) if each.name in WeftConfig.__annotations__]
    unused = set(NEUTRAL) | {"masked_next_token"} if head != "masked" else set(NEUTRAL)
    if head not in LANGUAGE_MODELS:
        unused |= {"final_logit_softcapping", "tie_word_embeddings"} | {n for n in names if n.startswith("lm_head")}
    if head not in TASKS:
        unused |= {name for name in names if name.startswith("classifier")}
    if head not in ("sequence", "choice"):
        unused.add("classifier_pooling")
    if head in ("causal", "masked", "pretraining"):
        unused.add("is_causal")  # the class decides
    return [name for name in names if name not in unused and ONLY_IF.get(name, lambda _: True)(config)]


def flat_rope(config: WeftConfig, layer_type: str = FULL) -> dict[str, Any]:
    """Rotary parameters of the layers of a type."""
    sets = config.rope_parameters_by_layer_type()
    return dict(sets.get(layer_type, sets.get("all", {})))


def whole_or_part(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary parameters that say what share of each head is turned: where nothing is said it is all, but some stock
    configs then take a smaller one for granted."""
    return {"partial_rotary_factor": 1.0, **rope}


def _meaning(config: WeftConfig, name: str) -> Any:
    """A field's value; rotary parameters for each type of attention layer, however they are written, and the scale of
    scores as a number."""
    if name == "attention_scale" and config.attention_scale is None:
        return config.head_dim**-0.5
    if name != "rope_parameters":
        return getattr(config, name)
    return {each: whole_or_part(flat_rope(config, each)) for each in {FULL, SLIDING} & set(config.layer_types)}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
