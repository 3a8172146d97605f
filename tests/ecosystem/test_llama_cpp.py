"""llama.cpp computes from a GGUF file what PyTorch computes from the checkpoint: the same tokens of a text, the same
probabilities, the same greedy continuation."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
import xllamacpp
from helpers.models import make_model, tiny_config
from helpers.text import CHINESE, EMOJI, sentences
from transformers import PreTrainedTokenizerBase

from weft.recipes import convert
from weft.tokenizer.train import train_tokenizer

LLAMA = {"qk_norm": False}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3["original_max_position_embeddings"] = 32
# What is written -> config fields; llama.cpp takes heads of an even number of pairs
WRITTEN: dict[str, dict[str, Any]] = {
    "Qwen3": {},
    "Qwen3, tied": {"tie_word_embeddings": True, "head_dim": 16},
    "Llama": LLAMA,
    "Llama with biases": {**LLAMA, "attention_bias": True, "mlp_bias": True},
    "Llama 3's positions": {**LLAMA, "rope_parameters": LLAMA3},
    "linear positions": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
}
MOST = 200  # probabilities of so many of the tokens
CODE = Path(__file__).read_text(encoding="utf-8").splitlines()
TEXTS = [
    *sentences(30, seed=5),
    *CODE,
    CHINESE,
    EMOJI,
    "It's rock'n'roll: 'those' 1234567 signs!!! --> \t x\n\n  y  ",
    "Der Webstuhl stand in der Ecke (seit 1998), größer als zuvor.",
    "हिन्दी में नहीं, ก็ไม่ได้เขียน, かな々カナー漢字abc, 한국어",
]


class LlamaCpp:
    """A file in llama.cpp, asked over loopback."""

    def __init__(self, file: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path, params.hostnames, params.port = str(file), ["127.0.0.1"], 0
        params.n_ctx, params.n_parallel, params.warmup = 256, 1, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it rounds
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server = xllamacpp.Server(params)

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        body, headers = json.dumps(fields).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.server.listening_address}/{what}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def tokens(self, text: str) -> list[int]:
        return self.ask("tokenize", content=text, add_special=True, parse_special=False)["tokens"]

    def write(self, ids: list[int], number: int) -> tuple[list[int], dict[int, dict[int, float]]]:
        """Greedy tokens, and by place the logarithms of the largest probabilities, by token; there are none where a
        token ends within a character."""
        written, logs = [], {}
        options = {"temperature": 0.0, "n_probs": MOST, "return_tokens": True, "ignore_eos": True}
        for place in range(number):
            found = self.ask("completion", prompt=ids + written, n_predict=1, **options)
            written += found["tokens"]
            for told in found.get("completion_probabilities", []):
                logs[place] = {one["id"]: one["logprob"] for one in told["top_logprobs"]}
        return written, logs


def export(monkeypatch: pytest.MonkeyPatch, folder: Path, tokenizer: PreTrainedTokenizerBase, **fields: Any) -> Any:
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model = make_model(tiny_config(vocab_size=len(tokenizer), **ids, **fields))
    model.save_pretrained(folder / "weft")
    tokenizer.save_pretrained(folder / "weft")
    monkeypatch.setattr("sys.argv", ["convert.py", "export", str(folder / "weft"), "gguf", str(folder / "model.gguf")])
    convert.main()
    return model, LlamaCpp(folder / "model.gguf")


@pytest.fixture(scope="module")
def shipped() -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(TEXTS * 2), "bpe", 380, pre_tokenizer="gpt2")


@pytest.mark.parametrize("case", WRITTEN)
def test_tokens_and_probabilities(
    case: str, shipped: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, theirs = export(monkeypatch, tmp_path, shipped, **WRITTEN[case])
    prompt = shipped(sentences(1, seed=9)[0]).input_ids[:40]
    with torch.no_grad():
        written = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=None)
        expected = model(written[:, :-1]).logits[0, len(prompt) - 1 :].log_softmax(-1)
    tokens, logs = theirs.write(prompt, 16)
    assert tokens == written[0, len(prompt) :].tolist()
    assert len(logs) >= 2
    for place, found in logs.items():
        places = torch.tensor(list(found))
        torch.testing.assert_close(torch.tensor(list(found.values())), expected[place, places], rtol=1e-4, atol=1e-4)
        assert len(found) == MOST


def test_every_text_gets_the_same_ids(
    shipped: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, theirs = export(monkeypatch, tmp_path, shipped)
    for text in TEXTS:
        assert theirs.tokens(text) == shipped(text).input_ids, text
