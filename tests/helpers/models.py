"""Tiny models with weights that make every part of the network matter."""

import copy
from typing import Any

import torch
from packaging.version import Version
from transformers import PreTrainedModel

from weft import (
    WeftConfig,
    WeftForCausalLM,
    WeftForMaskedLM,
    WeftForMultipleChoice,
    WeftForPreTraining,
    WeftForQuestionAnswering,
    WeftForSequenceClassification,
    WeftForTokenClassification,
    WeftModel,
)

SLIDING = "sliding_attention"
FULL = "full_attention"

# With a length left open PyTorch 2.11 does not export grouped queries, nor those of stock Llama.
EXPORTED = {} if Version(torch.__version__) >= Version("2.12") else {"num_key_value_heads": 4}

# What one stack is used as: the class, and the config fields that matter to it. The heads disagree with `is_causal` of
# their config, which they must not follow.
ROLES: dict[str, tuple[type[PreTrainedModel], dict[str, Any]]] = {
    "causal head": (WeftForCausalLM, {"is_causal": False}),
    "bidirectional base": (WeftModel, {"is_causal": False}),
    "masked head": (WeftForMaskedLM, {"is_causal": True}),
    "masked head, shifted": (WeftForMaskedLM, {"is_causal": False, "masked_next_token": True}),
    "pretraining head": (
        WeftForPreTraining,
        {"is_causal": True, "type_vocab_size": 2, "lm_head_transform": True, "lm_head_bias": True},
    ),
}
ENCODERS = [role for role in ROLES if role != "causal head"]

# The fine-tuning heads, which follow `is_causal` of their config.
TASKS: dict[str, type[PreTrainedModel]] = {
    "sequence": WeftForSequenceClassification,
    "token": WeftForTokenClassification,
    "question": WeftForQuestionAnswering,
    "choice": WeftForMultipleChoice,
}


def tiny_config(**changes: Any) -> WeftConfig:
    """Two layers, four query heads on two key-value heads, 61 token ids; `changes` overrides any field."""
    fields = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    return WeftConfig(**{**fields, **changes})


def shake(model: PreTrainedModel, seed: int = 0, std: float = 0.2) -> PreTrainedModel:
    """Give every parameter, norms and biases included, a large random value.

    Initial weights are so small that attention is nearly uniform and biases are zero, which hides mistakes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator) * std
            parameter.copy_(noise + 1 if "norm" in name else noise)
    return model


def make_model(
    config: WeftConfig | None = None, backend: str = "sdpa", model_class: type = WeftForCausalLM, seed: int = 0
) -> PreTrainedModel:
    """A model in evaluation mode with `shake`n weights that computes attention with `backend`.

    It gets a copy of the config, because the backend is stored there.
    """
    config = tiny_config() if config is None else copy.deepcopy(config)
    return shake(model_class._from_config(config, attn_implementation=backend), seed).eval()


def make_role(role: str, backend: str = "sdpa", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny model in one of the roles above."""
    model_class, fields = ROLES[role]
    return make_model(tiny_config(**{**fields, **changes}), backend, model_class, seed)


def make_task(task: str, backend: str = "sdpa", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny model with a fine-tuning head, of three labels unless `changes` say otherwise, in float64."""
    return make_model(tiny_config(**{"num_labels": 3, **changes}), backend, TASKS[task], seed).double()


def random_ids(*shape: int, vocab_size: int = 61, seed: int = 0) -> torch.Tensor:
    """Token ids from 3 up: 0, 1 and 2 are left for padding, start and end."""
    return torch.randint(3, vocab_size, shape, generator=torch.Generator().manual_seed(seed))
