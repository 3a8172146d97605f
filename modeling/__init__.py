"""Weft: one attention and positional-encoding stack as a Hugging Face model family.

Importing this package registers Weft with transformers' Auto classes, so that checkpoints load without remote code. Its
classes are imported when they are first asked for, and torch and transformers with them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .registration import import_models, register

if TYPE_CHECKING:
    from .configuration_weft import WeftConfig
    from .losses import IGNORE_INDEX
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
    "IGNORE_INDEX",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    own = {"WeftConfig": ".configuration_weft", "IGNORE_INDEX": ".losses"}.get(name)
    return getattr(importlib.import_module(own, __name__) if own else import_models(), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
