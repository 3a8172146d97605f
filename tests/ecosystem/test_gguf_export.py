"""convert.py writes GGUF files that hold what a model is, under llama.cpp's names and in its order of numbers; what
llama.cpp cannot compute is refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from helpers.models import make_model, tiny_config
from helpers.text import sentences
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftForMaskedLM
from weft.interop import find_family
from weft.interop.convert import export_model
from weft.recipes import convert
from weft.recipes.common.errors import RecipeError
from weft.tokenizer.train import train_tokenizer

LLAMA = {"qk_norm": False}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3["original_max_position_embeddings"] = 64
# Kind of model -> the shape that it is written as, and config fields
WRITTEN: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3": ("qwen3", {}),
    "Qwen3, wide heads, tied": ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "Llama": ("llama", LLAMA),
    "Llama with biases": ("llama", {**LLAMA, "attention_bias": True, "mlp_bias": True, "norm_eps": 1e-5}),
    "Llama 3's positions": ("llama", {**LLAMA, "rope_parameters": LLAMA3}),
    "linear positions": ("qwen3", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gates": (
        {"attention_gate": True, "value_residual": True},
        "as qwen3: attention_gate=True .*value_residual=True .*without: --attention_gate false --value_residual false",
    ),
    "biased scores": ({"position_embedding_type": "alibi"}, "position_embedding_type='alibi'"),
    "windows": ({"sliding_window": 8}, "as qwen3: sliding_window"),
    "activation": ({"hidden_act": "gelu"}, r"hidden_act='gelu' \(only 'silu'\)"),
    "biases beside QK-norm": ({"attention_bias": True}, r"as qwen3: attention_bias \(without qk_norm it can\)"),
    "yarn": (
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
        r"rope_type='yarn' \(only default, linear\)",
    ),
}


@pytest.fixture(scope="module")
def shipped() -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(sentences(48, words=8)), "bpe", 320, pre_tokenizer="gpt2")


def export(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase | None,
    fields: dict[str, Any],
    *options: str,
    **how: Any,
) -> tuple[PreTrainedModel, Path]:
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    ids = {name: getattr(tokenizer, name) for name in names} if tokenizer is not None else {}
    model = make_model(tiny_config(**{"vocab_size": 330, **ids, **fields}), **how)
    model.save_pretrained(folder / "weft")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / "weft")
    words = ["convert.py", "export", folder / "weft", "gguf", folder / "model.gguf", *options]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    convert.main()
    return model, folder / "model.gguf"


def fields_of(reader: GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


def neighbours(matrix: torch.Tensor, heads: int) -> torch.Tensor:
    """Row 2p of each head is its row p, and row 2p + 1 its row p + half: written out, number by number."""
    width = len(matrix) // heads
    rows = []
    for head in range(heads):
        for pair in range(width // 2):
            rows += [matrix[head * width + pair], matrix[head * width + pair + width // 2]]
    return torch.stack(rows)


@pytest.mark.parametrize("case", WRITTEN)
def test_a_file_holds_every_tensor_and_number(
    case: str, shipped: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, fields = WRITTEN[case]
    model, file = export(monkeypatch, tmp_path, shipped, fields)
    reader = GGUFReader(file)
    found = {each.name: torch.from_numpy(np.array(each.data)) for each in reader.tensors}
    stock = export_model(model, find_family(shape), "causal").state_dict()
    names = {"self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names |= {
        f"self_attn.{part}_{what}": f"attn_{part}{end}"
        for part in "qk"
        for what, end in (("proj", ""), ("norm", "_norm"))
    }
    names |= {"self_attn.v_proj": "attn_v", **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}}
    for name, tensor in stock.items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            assert "output.weight" not in found
            continue
        module, _, kind = name.rpartition(".")
        if module.startswith("model.layers."):
            _, _, layer, part = module.split(".", 3)
            place = f"blk.{layer}.{names[part]}.{kind}"
        else:
            place = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[
                module
            ] + f".{kind}"
        if shape == "llama" and (".q_proj." in name or ".k_proj." in name):
            tensor = neighbours(tensor, 4 if ".q_proj." in name else 2)
        torch.testing.assert_close(found.pop(place), tensor, rtol=0, atol=0)
    rope = model.config.rope_parameters
    assert found.keys() == ({"rope_freqs.weight"} if rope["rope_type"] == "llama3" else set())
    if found:
        slower = found["rope_freqs.weight"]
        assert slower[0] == 1.0 and slower[-1] == 8.0 and len(slower) == model.config.head_dim // 2
    told = fields_of(reader)
    expected = {
        "general.architecture": shape,
        f"{shape}.block_count": 2,
        f"{shape}.embedding_length": 32,
        f"{shape}.feed_forward_length": 48,
        f"{shape}.attention.head_count": 4,
        f"{shape}.attention.head_count_kv": 2,
        f"{shape}.attention.key_length": model.config.head_dim,
        f"{shape}.rope.dimension_count": model.config.head_dim,
        f"{shape}.context_length": 128,
        "general.file_type": 0,
    }
    assert {name: told[name] for name in expected} == expected
    assert told[f"{shape}.attention.layer_norm_rms_epsilon"] == pytest.approx(model.config.norm_eps)
    assert told[f"{shape}.rope.freq_base"] == rope["rope_theta"]
    assert told.get(f"{shape}.rope.scaling.factor") == (4.0 if rope["rope_type"] == "linear" else None)


def test_a_file_holds_the_tokenizer(
    shipped: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    shipped.chat_template = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    _, file = export(monkeypatch, tmp_path, shipped, {})
    told = fields_of(GGUFReader(file))
    assert (told["tokenizer.ggml.model"], told["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    tokens, kinds = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.token_type"]
    assert len(tokens) == len(kinds) == 330
    for token, number in shipped.get_vocab().items():
        assert tokens[number] == token
        assert kinds[number] == (3 if token in shipped.all_special_tokens else 1)
    assert tokens[len(shipped) :] == [f"[PAD{number}]" for number in range(len(shipped), 330)]
    assert set(kinds[len(shipped) :]) == {5}
    learnt = [" ".join(pair) for pair in json.loads(shipped.backend_tokenizer.to_str())["model"]["merges"]]
    assert told["tokenizer.ggml.merges"] == learnt
    for name in ("bos", "eos", "padding"):
        number = getattr(shipped, f"{name.replace('padding', 'pad')}_token_id")
        assert told[f"tokenizer.ggml.{name}_token_id"] == number
    assert told["tokenizer.ggml.add_bos_token"] is True and told["tokenizer.ggml.add_eos_token"] is False
    assert told["tokenizer.chat_template"] == shipped.chat_template
    assert "note:" not in capsys.readouterr().out


def test_what_llama_cpp_cuts_otherwise_is_said(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    _, file = export(monkeypatch, tmp_path, tokenizer, {})
    assert fields_of(GGUFReader(file))["tokenizer.ggml.pre"] == "gpt-2"
    assert "note: llama.cpp has no cut like this tokenizer's and gets the nearest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dtype", "options", "kind"),
    [
        (torch.bfloat16, (), GGMLQuantizationType.BF16),
        (torch.float16, (), GGMLQuantizationType.F16),
        (torch.float32, ("--int8",), GGMLQuantizationType.Q8_0),
    ],
)
def test_matrices_keep_their_dtype_or_get_eight_bits(
    dtype: torch.dtype,
    options: tuple[str, ...],
    kind: GGMLQuantizationType,
    shipped: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", _saving_as(dtype))
    model, file = export(monkeypatch, tmp_path, shipped, {"intermediate_size": 64}, *options)
    found = {each.name: each for each in GGUFReader(file).tensors}
    embedding, norm = found["token_embd.weight"], found["output_norm.weight"]
    assert (embedding.tensor_type, norm.tensor_type) == (kind, GGMLQuantizationType.F32)
    values = torch.from_numpy(dequantize(np.array(embedding.data), kind)).view(330, 32)
    torch.testing.assert_close(values, model.model.embed_tokens.weight.float(), rtol=0.01, atol=0.01)


def _saving_as(dtype: torch.dtype) -> Any:
    save = PreTrainedModel.save_pretrained
    return lambda model, *words, **options: save(model.to(dtype), *words, **options)


@pytest.mark.parametrize("case", REFUSED)
def test_what_llama_cpp_cannot_compute_is_refused_by_name(
    case: str, shipped: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields, sentence = REFUSED[case]
    with pytest.raises(RecipeError, match=f"llama.cpp cannot compute .*{sentence}"):
        export(monkeypatch, tmp_path, shipped, fields)
    assert [path.name for path in tmp_path.iterdir()] == ["weft"]


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("wordpiece", {}, r"tokenizer \(WordPiece\) is no byte-level BPE"),
        ("unigram", {}, r"tokenizer \(Unigram\) is no byte-level BPE"),
        ("bpe", {"add_prefix_space": True}, "changes text before it cuts it .*train it without add_prefix_space"),
    ],
)
def test_other_tokenizers_are_refused(
    kind: str, options: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = train_tokenizer(iter(sentences(48, words=8)), kind, 320, **options)
    with pytest.raises(RecipeError, match=sentence):
        export(monkeypatch, tmp_path, other, {})
    assert [path.name for path in tmp_path.iterdir()] == ["weft"]


def test_other_heads_names_and_folders_without_a_tokenizer_are_refused(
    shipped: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"llama\.cpp gets causal models only"):
        export(monkeypatch, tmp_path / "masked", shipped, {"is_causal": False}, model_class=WeftForMaskedLM)
    with pytest.raises(RecipeError, match=r"it has no tokenizer, without which llama\.cpp loads no file"):
        export(monkeypatch, tmp_path / "none", None, {})
    with pytest.raises(RecipeError, match=r"has 3\d\d ids and the model only 99"):
        export(monkeypatch, tmp_path / "few", shipped, {"vocab_size": 99})
    monkeypatch.setattr("sys.argv", ["convert.py", "export", str(tmp_path / "none" / "weft"), "gguf", "model.bin"])
    with pytest.raises(RecipeError, match=r"give a name that ends in .gguf"):
        convert.main()
