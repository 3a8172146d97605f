"""Weft: one attention and positional-encoding stack as a Hugging Face model family.

Importing this package registers Weft with transformers' Auto classes, so that checkpoints load without remote code.
"""

import transformers

from . import modeling_weft
from .configuration_weft import AUTO_MAP, WeftConfig
from .modeling_weft import (
    WeftForCausalLM,
    WeftForConditionalGeneration,
    WeftForMaskedLM,
    WeftForMultipleChoice,
    WeftForPreTraining,
    WeftForQuestionAnswering,
    WeftForSequenceClassification,
    WeftForTokenClassification,
    WeftModel,
    WeftPreTrainedModel,
)

__version__ = "0.1.0"
__all__ = [
    "WeftConfig",
    "WeftForCausalLM",
    "WeftForConditionalGeneration",
    "WeftForMaskedLM",
    "WeftForMultipleChoice",
    "WeftForPreTraining",
    "WeftForQuestionAnswering",
    "WeftForSequenceClassification",
    "WeftForTokenClassification",
    "WeftModel",
    "WeftPreTrainedModel",
]

transformers.AutoConfig.register(WeftConfig.model_type, WeftConfig, exist_ok=True)
for _auto_class, _reference in AUTO_MAP.items():
    if _auto_class != "AutoConfig":
        _model_class = getattr(modeling_weft, _reference.split(".")[-1])
        getattr(transformers, _auto_class).register(WeftConfig, _model_class, exist_ok=True)
