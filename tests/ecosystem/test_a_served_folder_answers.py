"""`transformers serve` answers from a folder of Weft, in OpenAI's form on loopback, as the model itself does."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from weft.recipes.generation.answers import write_answers
from weft.tokenizer.chat_templates import give_chat_template

pytest.importorskip("openai", reason="transformers serve needs transformers[serving]")

# It looks for a model's class in transformers alone, so that Weft's has to be named there.
PROGRAM = (
    "from weft import WeftForCausalLM; import transformers; transformers.WeftForCausalLM = WeftForCausalLM; "
    "from transformers.cli.transformers import main; main()"
)
PATIENCE = 240  # seconds to start and to load
TOKENS = 12


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def folder(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its answers with a token of the chat template."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = AutoTokenizer.from_pretrained(folders["causal"])
    tokenizer.chat_template = None
    new = give_chat_template(tokenizer, "chatml")
    model = AutoModelForCausalLM.from_pretrained(folders["causal"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for weights in model.parameters():
            weights += torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)) * 0.2
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(new)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    port = free_port()
    words = ["serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--trust-remote-code"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=60)


def ask(server: str, folder: Path, messages: list[dict[str, str]]) -> str:
    body = {"model": str(folder), "messages": messages, "max_tokens": TOKENS, "temperature": 0, "stream": False}
    request = urllib.request.Request(
        f"{server}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]


def test_answers_are_those_of_the_model(server: str, folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    talks = [[{"role": "user", "content": "the river"}]]
    talks.append([*talks[0], {"role": "assistant", "content": "a stone"}, {"role": "user", "content": "why"}])
    prompts = [tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False) for talk in talks]
    expected = write_answers(model, tokenizer, prompts, TOKENS)
    assert [ask(server, folder, talk).strip() for talk in talks] == expected and all(expected)
