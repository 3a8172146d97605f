"""What convert.py exports computes in transformers 4 what Weft computes, and Weft's own folders say what they need.

`make test-old` makes the environments (.venv-old) and runs this.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.families import CASES, make_batch, make_pair
from helpers.models import make_model, tiny_config

from weft import WeftForCausalLM
from weft.interop import find_family
from weft.interop.convert import import_model
from weft.recipes.conversion.run import convert
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

HERE = Path(__file__).resolve().parent
VERSIONS = sorted(path.stem for path in HERE.glob("*.txt"))
EXPORTS = [
    (case, head)
    for case, (model_type, _) in CASES.items()
    for head in ("causal", "masked", "seq2seq", "sequence")
    if head in find_family(model_type).heads
]
SHAPE = {
    **{"vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
    **{"num_attention_heads": 2, "max_position_embeddings": 64},
}
GROUPED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
SMALL = {
    **{"llama": GROUPED, "qwen3": GROUPED, "bert": SHAPE},
    "gpt2": {"vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64},
}
TOKENIZERS = [
    (kind, role, family)
    for kind in ("bpe", "wordpiece", "unigram", "char")
    for role, family in (("decoder", "llama"), ("decoder", "qwen3"), ("encoder", "bert"))
]
# Tokenizers of transformers' own classes, as imported checkpoints have them.
STOCK_TOKENIZERS = {"llama": "LlamaTokenizer", "gpt2": "GPT2Tokenizer", "qwen3": "Qwen2Tokenizer"}
TEXTS = ["the red cat", "Hello world, 天地 naïve", " two  blanks\nand a line", "<s> spelt out"]
# Of which the export says so: there, the masks give all layers the same window.
OTHERWISE = {("4.51", "qwen2"), ("4.51", "qwen3")}
# Which have no class, or not that of every head, in one of the versions or both.
ABSENT = ("smollm3", "gemma3_text", "olmo3", "olmo_hybrid", "qwen3_next", "qwen3_5_text")


def save(model: transformers.PreTrainedModel, folder: Path) -> None:
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder)


def export(folder: Path, family: str, model: transformers.PreTrainedModel, stock: Any, batch: dict) -> None:
    convert("export", str(folder / "weft"), folder / "export", family)
    batch.pop("position_ids", None)
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    torch.save({"class": type(stock).__name__, "batch": batch, "logits": logits}, folder / "input.pt")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    for case, head in EXPORTS:
        own = folder / f"{case}-{head}"
        _, stock, model = make_pair(case, head)
        save(model, own / "weft")
        export(own, CASES[case][0], model, stock, make_batch(stock, head, "right"))
    for kind, role, family in TOKENIZERS:
        own = folder / f"{kind}-{family}"
        head = "causal" if role == "decoder" else "masked"
        config = transformers.AutoConfig.for_model(family, **SMALL[family])
        stock = find_family(family).stock_class(head)(config)
        model, _ = import_model(stock, find_family(family), head)
        tokenizer = for_role(train_tokenizer(iter(TEXTS * 3), kind, 300), role)
        save(model, own / "weft")
        tokenizer.save_pretrained(own / "weft")
        export(own, family, model, stock, make_batch(stock, head, "right"))
        (own / "texts.json").write_text(json.dumps(TEXTS))
    for family, name in STOCK_TOKENIZERS.items():
        own = folder / f"{name}-{family}"
        stock = find_family(family).stock_class("causal")(transformers.AutoConfig.for_model(family, **SMALL[family]))
        stock.save_pretrained(own / "stock")
        alphabet = json.loads(train_tokenizer(iter(TEXTS * 3), "bpe", 300).backend_tokenizer.to_str())["model"]
        vocabulary = dict(zip(["<unk>", "<s>", "</s>", "<|endoftext|>", *alphabet["vocab"]], range(300)))
        getattr(transformers, name)(vocab=vocabulary, merges=[]).save_pretrained(own / "stock")
        convert("import", str(own / "stock"), own / "weft", None)
        model = WeftForCausalLM.from_pretrained(own / "weft")
        export(own, family, model, stock, make_batch(stock, "causal", "right"))
        (own / "texts.json").write_text(json.dumps(TEXTS))
    make_model(tiny_config(), model_class=WeftForCausalLM).save_pretrained(folder / "weft")
    return folder


@pytest.fixture(scope="module", params=VERSIONS)
def read(request: pytest.FixtureRequest, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    python = HERE.parents[1] / ".venv-old" / request.param / "bin" / "python"
    assert python.is_file(), f"{python} is missing: run this with `make test-old`"
    modules = {"HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules"))}
    words = [str(python), str(HERE / "read_exports.py"), str(exported)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **modules})
    assert done.returncode == 0, done.stderr
    return {"version": request.param, **json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(("case", "head"), EXPORTS)
def test_an_export_computes_the_same(case: str, head: str, read: dict[str, Any], exported: Path) -> None:
    found = read["exports"][f"{case}-{head}"]
    if found.get("absent"):
        assert CASES[case][0] in ABSENT, "a class that this version should have"
        return
    assert found["missing"] == [] and found["unexpected"] == []
    expected = torch.load(exported / f"{case}-{head}" / "input.pt", weights_only=True)["logits"]
    if (read["version"], CASES[case][0]) in OTHERWISE:
        assert found["difference"] > 1e-3, "the note of the export is not needed any more"
        return
    assert found["difference"] < 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(
    "name",
    [*(f"{kind}-{family}" for kind, _, family in TOKENIZERS), *(f"{c}-{f}" for f, c in STOCK_TOKENIZERS.items())],
)
def test_a_tokenizer_gives_the_same_ids(name: str, read: dict[str, Any], exported: Path) -> None:
    found = read["exports"][name]
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported / name / "weft")
    assert found["ids"] == [tokenizer(text).input_ids for text in TEXTS]
    assert found["special"] == [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token]
    assert found["difference"] < 1e-5


def test_a_weft_folder_says_in_one_sentence_what_it_needs(read: dict[str, Any]) -> None:
    assert len(read["refusals"]) == 3
    for sentence in read["refusals"]:
        assert sentence.startswith("a Weft checkpoint needs transformers 5.17 or newer, and this is 4.5")
        assert "convert.py export" in sentence and "\n" not in sentence
