"""convert.py writes checkpoints that load as the other family, or says in a sentence why not and writes nothing."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from helpers.families import CASES, make_batch, make_pair, output_of
from helpers.models import make_model, tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from weft import WeftForCausalLM, WeftForConditionalGeneration, WeftForSequenceClassification
from weft.interop import find_family
from weft.recipes import convert
from weft.recipes.common.errors import RecipeError
from weft.recipes.conversion import run as conversion


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["convert.py", *map(str, words)])
    convert.main()


def save_tokenizer(folder: Path) -> None:
    words = {"[PAD]": 0, "[UNK]": 1, "a": 2, "short": 3, "line": 4, "winter": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


@pytest.mark.parametrize(
    ("case", "head"), [("bert", "sequence"), ("t5", "seq2seq"), ("llama", "causal"), ("bart", "base")]
)
def test_there_and_back_gives_the_same_tensors(
    case: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _, stock, _ = make_pair(case, head)
    stock.save_pretrained(tmp_path / "stock")
    run(monkeypatch, "import", tmp_path / "stock", tmp_path / "weft")
    run(monkeypatch, "export", tmp_path / "weft", CASES[case][0], tmp_path / "back")
    printed = capsys.readouterr().out
    assert printed.count(" at most, on random ids (there is no tokenizer)") == 2
    back = type(stock).from_pretrained(tmp_path / "back")
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name


def test_what_recipes_add_to_a_new_model_is_named_with_how_to_leave_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tiny_config(qk_norm=True, attention_gate=True, value_residual=True)).save_pretrained(tmp_path / "weft")
    with pytest.raises(RecipeError, match=r"a model without: --attention_gate false --value_residual false\.$"):
        run(monkeypatch, "export", tmp_path / "weft", "qwen3", tmp_path / "stock")
    with pytest.raises(RecipeError, match=r": --qk_norm false --attention_gate false --value_residual false\.$"):
        run(monkeypatch, "export", tmp_path / "weft", "llama", tmp_path / "stock")
    assert not (tmp_path / "stock").exists()


@pytest.mark.parametrize(("case", "head"), [("bert", "masked"), ("roberta", "masked"), ("llama", "causal")])
def test_a_classifier_on_an_imported_language_model_is_exported_too(
    case: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stock, _ = make_pair(case, head)
    stock.save_pretrained(tmp_path / "stock")
    run(monkeypatch, "import", tmp_path / "stock", tmp_path / "weft")
    WeftForSequenceClassification.from_pretrained(tmp_path / "weft", num_labels=3).save_pretrained(tmp_path / "tuned")
    run(monkeypatch, "export", tmp_path / "tuned", CASES[case][0], tmp_path / "back")
    back = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "back")
    assert type(back).__module__.startswith("transformers.") and back.config.num_labels == 3


def test_a_head_keeps_the_names_of_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, stock, _ = make_pair("bert", "sequence")
    stock.config.id2label, stock.config.label2id = {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    stock.save_pretrained(tmp_path / "stock")
    run(monkeypatch, "import", tmp_path / "stock", tmp_path / "weft")
    model = WeftForSequenceClassification.from_pretrained(tmp_path / "weft").eval()
    assert model.config.id2label == {0: "bad", 1: "good"}
    batch = make_batch(stock, "sequence", "right")
    torch.testing.assert_close(output_of(model, batch), output_of(stock, batch), rtol=0, atol=1e-5)


def test_the_tokenizer_comes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _, stock, _ = make_pair("gpt2", "causal")
    stock.save_pretrained(tmp_path / "stock")
    save_tokenizer(tmp_path / "stock")
    run(monkeypatch, "import", tmp_path / "stock", tmp_path / "weft")
    assert "on sample text" in capsys.readouterr().out
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "weft")("a line").input_ids == [2, 4]


def test_half_precision_stays_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, stock, _ = make_pair("qwen3", "causal")
    stock.to(torch.bfloat16).save_pretrained(tmp_path / "stock")
    run(monkeypatch, "import", tmp_path / "stock", tmp_path / "weft")
    assert WeftForCausalLM.from_pretrained(tmp_path / "weft", dtype="auto").dtype == torch.bfloat16


def test_what_has_no_place_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _, stock, _ = make_pair("bert", "base")
    stock.save_pretrained(tmp_path / "stock")
    run(monkeypatch, "import", tmp_path / "stock", tmp_path / "weft")
    assert "left out, since WeftModel has no use for them: pooler.dense.weight" in capsys.readouterr().out


def test_models_that_compute_different_things_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A family whose table is wrong: the scale of the scores is left out."""
    _, stock, _ = make_pair("t5", "seq2seq")
    stock.save_pretrained(tmp_path / "stock")
    family = find_family("t5")
    wrong = dataclasses.replace(family, config={**family.config, "attention_scale": 0.5})
    monkeypatch.setattr(conversion, "find_family", lambda name: wrong)
    with pytest.raises(RecipeError, match="is not converted: the two models compute different things"):
        run(monkeypatch, "import", tmp_path / "stock", tmp_path / "weft")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stock"]


def test_what_stands_in_the_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tiny_config(qk_norm=True)).save_pretrained(tmp_path / "weft")
    expected = r"cannot be expressed as llama: qk_norm=True \(it would be False\)\."
    with pytest.raises(RecipeError, match=expected):
        run(monkeypatch, "export", tmp_path / "weft", "llama", tmp_path / "out")
    config = transformers.BloomConfig(**CASES["bloom"][1], apply_residual_connection_post_layernorm=True)
    transformers.BloomForCausalLM(config).save_pretrained(tmp_path / "bloom")
    expected = r"cannot be expressed in Weft: apply_residual_connection_post_layernorm=True \(only False\)"
    with pytest.raises(RecipeError, match=expected):
        run(monkeypatch, "import", tmp_path / "bloom", tmp_path / "out")
    two = transformers.BartConfig(**{**CASES["bart"][1], "decoder_ffn_dim": 96})
    transformers.BartForConditionalGeneration(two).save_pretrained(tmp_path / "bart")
    with pytest.raises(RecipeError, match="encoder_ffn_dim=80 and decoder_ffn_dim=96 differ"):
        run(monkeypatch, "import", tmp_path / "bart", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_words_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model().save_pretrained(tmp_path / "weft")
    _, stock, _ = make_pair("gpt2", "causal")
    stock.save_pretrained(tmp_path / "gpt2")
    transformers.ViTModel(
        transformers.ViTConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "vit")
    for words, sentence in (
        (("import", "weft", "out"), "is a Weft checkpoint already: to write it as another family, use export"),
        (("export", "gpt2", "llama", "out"), "is 'gpt2', no Weft checkpoint: use import for it first"),
        (("export", "weft", "lama", "out"), "'lama' is no known family: choose one of bart, bert"),
        (("import", "vit", "out"), "'vit' is no known family"),
        (("import", "nowhere", "out"), "nowhere': there is no such folder"),
        (("import", "gpt2", "weft"), "exists: give a name that does not, nothing is overwritten"),
    ):
        command, *paths = words
        places = [tmp_path / word if word != "llama" and word != "lama" else word for word in paths]
        with pytest.raises(RecipeError, match=sentence):
            run(monkeypatch, command, *places)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "packages", "sentence"),
    [
        ("onnx", ["onnxscript"], "needs the packages onnxruntime and onnxscript: pip install onnxruntime onnxscript."),
        ("gguf", ["gguf"], "needs the package gguf: pip install gguf."),
    ],
)
def test_a_format_names_the_packages_that_it_lacks(
    format: str, packages: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model().save_pretrained(tmp_path / "weft")
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RecipeError, match=f"export {format} {sentence}"):
        run(monkeypatch, "export", tmp_path / "weft", format, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_that_say_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model().save_pretrained(tmp_path / "weft")
    for words, sentence in (
        (("llama", "--int8"), "int8 has no effect on llama: it is for onnx and gguf"),
        (("gguf", "--int8", "--text", "lines.txt"), "text has no effect without int8 and onnx"),
        (("onnx", "--text", "lines.txt"), "text has no effect without int8 and onnx"),
    ):
        family, *options = words
        with pytest.raises(RecipeError, match=sentence):
            run(monkeypatch, "export", tmp_path / "weft", family, tmp_path / "out", *options)


def test_a_failure_is_one_sentence_and_a_status(tmp_path: Path) -> None:
    words = [sys.executable, convert.__file__, "import", str(tmp_path / "nowhere"), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_torn_file_of_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, stock, _ = make_pair("gpt2", "causal")
    stock.save_pretrained(tmp_path / "stock")
    weights = tmp_path / "stock" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(RecipeError, match=r"stock. cannot be loaded: model.safetensors is no whole"):
        run(monkeypatch, "import", tmp_path / "stock", tmp_path / "out")


def test_an_imported_translator_goes_on_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, stock, _ = make_pair("marian", "seq2seq")
    stock.save_pretrained(tmp_path / "stock")
    run(monkeypatch, "import", tmp_path / "stock", tmp_path / "weft")
    model = WeftForConditionalGeneration.from_pretrained(tmp_path / "weft").train()
    batch = make_batch(stock, "seq2seq", "right")
    labels = batch.pop("decoder_input_ids")
    model(**batch, labels=labels).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
