"""Small models in folders, with the tokenizer and the chat template that other libraries ask for."""

from pathlib import Path
from typing import Any

import pytest
from helpers.models import make_model, tiny_config
from helpers.text import sentences
from transformers import PreTrainedTokenizerBase

from weft import WeftForCausalLM, WeftForMaskedLM, WeftForSequenceClassification
from weft.tokenizer.train import train_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
FOLDERS: dict[str, tuple[type, dict[str, Any]]] = {
    "causal": (WeftForCausalLM, {}),
    "masked": (WeftForMaskedLM, {"is_causal": False}),
    "hybrid": (WeftForMaskedLM, {"is_causal": False, "masked_next_token": True}),
    "classifier": (WeftForSequenceClassification, {"is_causal": False, "num_labels": 1}),
}


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return sentences(48, words=8)


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(texts), "bpe", 320, model_max_length=96)


@pytest.fixture(scope="session")
def folders(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What kind of model it is -> its folder."""
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    root = tmp_path_factory.mktemp("models")
    for name, (model_class, fields) in FOLDERS.items():
        model = make_model(tiny_config(vocab_size=len(tokenizer), **ids, **fields), model_class=model_class)
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    (root / "causal" / "chat_template.jinja").write_text(TEMPLATE)
    return {name: root / name for name in FOLDERS}
