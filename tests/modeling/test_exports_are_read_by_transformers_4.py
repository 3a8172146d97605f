"""An export has the names of transformers 4 beside those of transformers 5, which reads it as before.

`make test-old` loads such exports in earlier versions for real.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers.families import CASES, make_pair
from helpers.models import make_model, tiny_config
from safetensors.torch import load_file

from weft import WeftForCausalLM, configuration_weft
from weft.recipes.conversion.earlier_versions import tokenizer_fields
from weft.recipes.conversion.run import convert
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]


def export(case: str, head: str, folder: Path) -> dict[str, Any]:
    _, stock, model = make_pair(case, head)
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder / "weft")
    convert("export", str(folder / "weft"), folder / "out", CASES[case][0])
    again = transformers.AutoConfig.from_pretrained(folder / "out")
    for name in ("rope_parameters", "layer_types", "tie_word_embeddings"):
        assert getattr(again, name, None) == getattr(stock.config, name, None), name
    return json.loads((folder / "out" / "config.json").read_text())


LINEAR = {"rope_type": "linear", "factor": 4.0}


@pytest.mark.parametrize(
    ("case", "head", "fields"),
    [
        ("llama-biases", "causal", {"rope_theta": 10000.0, "rope_scaling": None, "torch_dtype": "float32"}),
        ("mistral", "causal", {"rope_theta": 10000.0, "rope_scaling": None}),
        ("gpt_neox", "causal", {"rotary_emb_base": 10000, "rotary_pct": 0.25, "rope_scaling": None}),
        (
            "modernbert",
            "masked",
            {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3},
        ),
        (
            "gemma3_text",
            "causal",
            {"rope_theta": 1000.0, "rope_local_base_freq": 100.0, "rope_scaling": LINEAR},
        ),
        ("bert", "masked", {"torch_dtype": "float32"}),
    ],
)
def test_fields_stand_under_both_names(case: str, head: str, fields: dict[str, Any], tmp_path: Path) -> None:
    written = export(case, head, tmp_path)
    assert {name: written[name] for name in fields} == fields
    assert case == "bert" or "rope_parameters" in written


def test_scaled_positions_are_written_whole(tmp_path: Path) -> None:
    written = export("llama", "causal", tmp_path)
    assert written["rope_theta"] == 500.0
    expected = {name: value for name, value in CASES["llama"][1]["rope_parameters"].items() if name != "rope_theta"}
    assert written["rope_scaling"] == expected


def test_a_t5_without_a_factor_has_a_head_of_its_own_in_the_file(tmp_path: Path) -> None:
    """Transformers 4 reads off `tie_word_embeddings` whether there is the factor."""
    written = export("t5-1.1", "seq2seq", tmp_path)
    assert written["tie_word_embeddings"] is False and written["scale_decoder_outputs"] is False
    assert "lm_head.weight" in load_file(tmp_path / "out" / "model.safetensors")


@pytest.mark.parametrize(
    ("case", "head", "note"),
    [
        ("qwen3", "causal", "transformers before 4.53 gives a window to other layers than layer_types says"),
        ("gemma3_text", "causal", None),
        ("modernbert-biases", "masked", None),
    ],
)
def test_what_earlier_versions_compute_otherwise_is_said(
    case: str, head: str, note: str | None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    export(case, head, tmp_path)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == ([] if note is None else [f"note: {note}"])


def test_the_class_of_the_tokenizer_is_one_that_both_know(tmp_path: Path) -> None:
    config = tiny_config(qk_norm=False, vocab_size=60)
    make_model(config, model_class=WeftForCausalLM).save_pretrained(tmp_path / "weft")
    tokenizer = for_role(train_tokenizer(iter(["a red cat"] * 3), "char", 60), "decoder")
    tokenizer.save_pretrained(tmp_path / "weft")
    convert("export", str(tmp_path / "weft"), tmp_path / "out", "llama")
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast" and "extra_special_tokens" not in written
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again("a red cat").input_ids == tokenizer("a red cat").input_ids


def test_a_tokenizer_to_which_transformers_4_would_add_a_start_token_is_taken_as_its_file_has_it() -> None:
    assert tokenizer_fields({"tokenizer_class": "LlamaTokenizer"}) == {"tokenizer_class": "PreTrainedTokenizerFast"}


def test_tokenizers_of_other_classes_keep_theirs_and_further_special_tokens_stay() -> None:
    content = {"tokenizer_class": "BertTokenizer", "extra_special_tokens": ["<x>"]}
    assert tokenizer_fields(content) == {"tokenizer_class": "BertTokenizer", "additional_special_tokens": ["<x>"]}


def test_the_version_that_a_folder_asks_for_is_the_one_that_is_installed_with_weft() -> None:
    pinned = re.search(r'"transformers>=([\d.]+),', (ROOT / "pyproject.toml").read_text()).group(1)
    assert pinned == configuration_weft.NEEDED
    first = (ROOT / "modeling" / "configuration_weft.py").read_text().partition("raise ImportError")[0]
    assert "from transformers" not in first and "huggingface_hub" not in first
