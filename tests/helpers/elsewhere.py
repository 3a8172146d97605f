"""Saved folders, and processes in which the package cannot be imported that load them."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from weft import WeftForCausalLM

WORDS = ["<pad>", "<s>", "</s>", *(chr(code) for code in range(ord("a"), ord("z") + 1)), "<unk>", "<mask>"]
ROPE = {
    "default": {"rope_type": "default"},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
}

# Runs first in every other process: whatever asks for the package is told that there is none.
BLOCK_THE_PACKAGE = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "weft":
            raise ModuleNotFoundError("No module named 'weft'", name="weft")

sys.meta_path.insert(0, Nowhere())
"""


def make_folder(
    folder: Path, rope: str = "default", model_class: type = WeftForCausalLM, **changes: Any
) -> tuple[PreTrainedModel, torch.Tensor]:
    """Save a model with its tokenizer; give the model back with tokens longer than its original maximum."""
    fields = {
        "vocab_size": len(WORDS),
        "max_position_embeddings": 20,
        "rope_parameters": {**ROPE[rope], "rope_theta": 100.0},
        "sliding_window": 5,
        "layer_types": [SLIDING, FULL],
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    model = make_model(tiny_config(**{**fields, **changes}), model_class=model_class)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=20,
    ).save_pretrained(folder)
    return model, random_ids(2, 30, vocab_size=len(WORDS))


def elsewhere(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process with its own cache of remote code, without this package, network or stdin."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "home" / "modules")}
    script = BLOCK_THE_PACKAGE + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-I", "-c", script],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def succeed(code: str, tmp_path: Path) -> str:
    """What the process printed; a failure shows what it complained of."""
    done = elsewhere(code, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
