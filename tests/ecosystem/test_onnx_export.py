"""convert.py writes ONNX graphs that ONNX Runtime computes as PyTorch computes the model, at any size and in any
pieces, in the layout that transformers.js reads, or writes nothing."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from helpers.text import CHINESE, EMOJI, sentences
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import weft
from weft.recipes import convert
from weft.recipes.common.errors import RecipeError
from weft.recipes.conversion import onnx_export, onnx_runtime

NEAR = {"rtol": 1e-4, "atol": 3e-5}
MIXED = {"num_hidden_layers": 3, "sliding_window": 4, "layer_types": [SLIDING, FULL, SLIDING]}
TWO = {"is_encoder_decoder": True, "decoder_start_token_id": 1, "num_decoder_layers": 1}
BUCKETS = {"position_embedding_type": "t5", "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12}
# Kind of decoder -> config fields
DECODERS: dict[str, dict[str, Any]] = {
    "as a new model is": {"attention_gate": True, "value_residual": True},
    "windows in some layers": MIXED,
    "learned positions": {"position_embedding_type": "learned", "norm_type": "layernorm", "mlp_gated": False},
    "ALiBi": {"position_embedding_type": "alibi"},
    "T5 buckets": BUCKETS,
    "yarn, capped": {
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0},
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 4.0,
    },
}
# Head -> class, config fields and names of what it returns
READERS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "base": ("WeftModel", {"is_causal": False}, ("last_hidden_state",)),
    "masked": ("WeftForMaskedLM", {"is_causal": False, "lm_head_transform": True}, ("logits",)),
    "next sentence": (
        "WeftForPreTraining",
        {"is_causal": False, "type_vocab_size": 2},
        ("prediction_logits", "seq_relationship_logits"),
    ),
    "texts, by the last token": ("WeftForSequenceClassification", {"num_labels": 3}, ("logits",)),
    "texts, by the mean": ("WeftForSequenceClassification", {"is_causal": False, "num_labels": 3}, ("logits",)),
    "tokens": ("WeftForTokenClassification", {"is_causal": False, "num_labels": 3}, ("logits",)),
    "answers": ("WeftForQuestionAnswering", {"is_causal": False}, ("start_logits", "end_logits")),
    "choices": ("WeftForMultipleChoice", {"is_causal": False}, ("logits",)),
}


def export(monkeypatch: pytest.MonkeyPatch, model: PreTrainedModel, folder: Path, *options: object) -> Path:
    if not (folder / "weft" / "config.json").is_file():
        model.save_pretrained(folder / "weft")
    words = ["convert.py", "export", folder / "weft", "onnx", folder / "onnx", *options]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    convert.main()
    return folder / "onnx"


def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def empty_past(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    """What transformers.js gives at first: as the graph declares its inputs, sizes without a number being 0 but for the
    number of rows."""
    shapes = {one.name: one.shape for one in session.get_inputs() if one.name.startswith("past_key_values.")}
    assert all(shape[0] == "batch_size" for shape in shapes.values())
    filled = {
        name: [1 if size == "batch_size" else size if isinstance(size, int) else 0 for size in shape]
        for name, shape in shapes.items()
    }
    return {name: np.zeros(shape, np.float32) for name, shape in filled.items()}


def write(session: onnxruntime.InferenceSession, prompt: list[int], number: int, **fixed: np.ndarray) -> list[int]:
    """Greedy tokens, as a program without PyTorch writes them."""
    names = [one.name for one in session.get_outputs()]
    past, ids, seen, written = empty_past(session), list(prompt), 0, []
    for _ in range(number):
        given = {**fixed, **past, "input_ids": np.array([ids])}
        if "attention_mask" in {one.name for one in session.get_inputs()}:
            given |= {"attention_mask": np.ones((1, seen + len(ids)), int)}
            given |= {"position_ids": np.arange(seen, seen + len(ids))[None]}
        found = dict(zip(names, session.run(None, given)))
        past = {name: found[name.replace("past_key_values", "present")] for name in past}
        seen, ids = seen + len(ids), [int(found["logits"][0, -1].argmax())]
        written += ids
    return written


@pytest.mark.parametrize("case", DECODERS)
def test_a_decoder_writes_on_from_its_cache(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    model = make_model(tiny_config(pad_token_id=0, **DECODERS[case]), backend="eager")
    folder = export(monkeypatch, model, tmp_path)
    difference = float(re.search(r"differ by (\S+) at most, on random ids", capsys.readouterr().out)[1])
    assert difference < 1e-4
    prompt = random_ids(1, 11, seed=5)
    expected = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None)[0, 11:].tolist()
    assert write(session_of(folder / "onnx" / "model.onnx"), prompt[0].tolist(), 12) == expected


@pytest.mark.parametrize("case", READERS)
def test_every_head_at_other_sizes_than_those_of_the_export(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, fields, outputs = READERS[case]
    model = make_model(tiny_config(pad_token_id=0, **fields), model_class=getattr(weft, name))
    session = session_of(export(monkeypatch, model, tmp_path) / "onnx" / "model.onnx")
    assert tuple(one.name for one in session.get_outputs()) == outputs
    for rows, length in ((1, 3), (5, 33)):
        shape = (rows, 4, length) if case == "choices" else (rows, length)
        batch = {"input_ids": random_ids(*shape, seed=length), "attention_mask": torch.ones(shape, dtype=torch.long)}
        batch["attention_mask"][0, ..., : length // 3] = 0
        if "type_vocab_size" in fields:
            batch["token_type_ids"] = batch["input_ids"] % 2
        found = session.run(outputs, {name: one.numpy() for name, one in batch.items()})
        with torch.no_grad():
            expected = model(**batch)
        for ours, name in zip(found, outputs):
            is_token = batch["attention_mask"].bool()
            where = is_token if expected[name].shape[: is_token.ndim] == is_token.shape else slice(None)
            torch.testing.assert_close(torch.from_numpy(ours)[where], expected[name][where], **NEAR)


@pytest.mark.parametrize("fields", [{}, {**BUCKETS, "qk_norm": False}, {"sliding_window": 4, "qk_norm_over": "width"}])
def test_text_to_text_in_two_graphs(fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(pad_token_id=0, eos_token_id=2, **TWO, **fields)
    model = make_model(config, model_class=weft.WeftForConditionalGeneration)
    folder = export(monkeypatch, model, tmp_path)
    text = random_ids(1, 13, seed=4)
    expected = model.generate(text, max_new_tokens=10, do_sample=False, eos_token_id=None)[0, 1:].tolist()
    ones = np.ones((1, 13), int)
    encoder = session_of(folder / "onnx" / "encoder_model.onnx")
    (states,) = encoder.run(None, {"input_ids": text.numpy(), "attention_mask": ones})
    fixed = {"encoder_hidden_states": states, "encoder_attention_mask": ones}
    assert write(session_of(folder / "onnx" / "decoder_model_merged.onnx"), [1], 10, **fixed) == expected
    fields = json.loads((folder / "config.json").read_text())
    assert fields["model_type"] == "t5" and fields["num_decoder_layers"] == 1 and fields["decoder_start_token_id"] == 1


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "TOLERANCE", 0.0)
    with pytest.raises(RecipeError, match="is not converted: logits of ONNX Runtime and PyTorch differ by"):
        export(monkeypatch, make_model(tiny_config(pad_token_id=0)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["weft"]


def test_eight_bits_are_smaller_and_what_they_cost_is_said(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(sentences(12, seed=3)))
    for name, told in (
        (
            "causal",
            r"predictions stay the same \(KL divergence \S+ nats\), loss \S+ becomes \S+ nats a token, on 12 texts",
        ),
        ("masked", r"predictions stay the same \(KL divergence \S+ nats\), on 12 texts"),
        ("classifier", r"the numbers it says change by \S+ on average, on 12 texts"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weft").symlink_to(folders[name])
        folder = export(monkeypatch, None, tmp_path / name, "--int8", "--text", tmp_path / "texts.txt")
        assert re.search(rf"^8 bits: \S+ MB become \S+ MB; .*{told}$", capsys.readouterr().out, re.MULTILINE)
        sizes = [(folder / "onnx" / f"model{end}.onnx").stat().st_size for end in ("", "_quantized")]
        assert sizes[1] < 0.8 * sizes[0]


def test_the_tokenizer_beside_it_cuts_alike_without_names_of_scripts(
    tokenizer: PreTrainedTokenizerBase, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weft").symlink_to(folders["causal"])
    folder = export(monkeypatch, None, tmp_path)
    written = (folder / "tokenizer.json").read_text(encoding="utf-8")
    assert "\\\\p{Han}" in (folders["causal"] / "tokenizer.json").read_text(encoding="utf-8")
    assert "\\\\p{Han}" not in written and "&&" not in json.loads(written)["pre_tokenizer"].__str__()
    texts = [*sentences(50), CHINESE, EMOJI, "it's l'été 12345  \n\t नहीं ที่นี่ かな々カナー \u0645\u06cc\u200c\u062e"]
    ours = AutoTokenizer.from_pretrained(folder)
    assert ours(texts).input_ids == tokenizer(texts).input_ids
    fields = json.loads((folder / "config.json").read_text())
    assert fields["model_type"] == "qwen3" and fields["weft"]["model_type"] == "weft"
    assert (folder / "generation_config.json").is_file() and (folder / "chat_template.jinja").is_file()


def test_weights_beyond_the_limit_of_a_file_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "LARGEST_FILE", 1000)
    model = make_model(tiny_config(pad_token_id=0))
    folder = export(monkeypatch, model, tmp_path)
    matrices = [4 * one.numel() for name, one in model.named_parameters() if "proj" in name or "embed" in name]
    assert (folder / "onnx" / "model.onnx_data").stat().st_size > sum(matrices)
    assert str(Path.cwd()).encode() not in (folder / "onnx" / "model.onnx").read_bytes()
    fields = json.loads((folder / "config.json").read_text())
    assert fields["transformers.js_config"] == {"use_external_data_format": {"model.onnx": 1}}
    session_of(folder / "onnx" / "model.onnx")


def test_what_no_graph_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(RecipeError, match="scaled by the length of each text \\(rope_type 'dynamic'\\)"):
        export(monkeypatch, make_model(tiny_config(rope_parameters=dynamic)), tmp_path / "dynamic")
    base = make_model(tiny_config(**TWO), model_class=weft.WeftModel)
    with pytest.raises(RecipeError, match="save it as WeftForConditionalGeneration"):
        export(monkeypatch, base, tmp_path / "base")
    assert not (tmp_path / "dynamic" / "onnx").exists() and not (tmp_path / "base" / "onnx").exists()
