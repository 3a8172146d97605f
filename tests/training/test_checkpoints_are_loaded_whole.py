"""A checkpoint that lacks tensors is refused by every command that loads it, and what has no place in it is named."""

import json
import shutil

import pytest
import torch
from helpers import finetuning as ft
from helpers.models import make_model, tiny_config
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining, LlamaConfig, LlamaForCausalLM

from weft import WeftConfig, WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining
from weft.recipes import evaluate_lm, finetune_classification
from weft.recipes.common.checkpoints import load_whole
from weft.recipes.common.errors import RecipeError
from weft.recipes.conversion.run import convert
from weft.recipes.generate import main as generate
from weft.recipes.training.model_arguments import ModelArguments
from weft.recipes.training.model_setup import make_model as make_trained
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

SHAPE = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
LLAMA = LlamaConfig(**SHAPE, num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=False)
BERT = BertConfig(**SHAPE, num_attention_heads=2, max_position_embeddings=64)


def change(folder, delete=(), rename=lambda name: name, add=None, config=None):
    """Another file of weights in a checkpoint, or other words in its config."""
    file = folder / "model.safetensors"
    tensors = {rename(name): value for name, value in load_file(file).items() if name not in delete}
    save_file({**tensors, **(add or {})}, file, metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **(config or {})}))
    return folder


@pytest.fixture
def llama(tmp_path):
    torch.manual_seed(0)
    LlamaForCausalLM(LLAMA).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def weft(tmp_path):
    folder = tmp_path / "weft"
    tokenizer = for_role(train_tokenizer(iter(["a red cat saw the dog"]), "char", 60), "decoder")
    config = tiny_config(tie_word_embeddings=False, qk_norm=False, vocab_size=60)
    make_model(config, model_class=WeftForCausalLM).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LACKING = "model.layers.0.self_attn.o_proj.weight"
NEEDED = rf"lacks {LACKING}, which WeftForCausalLM needs"


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"delete": ["lm_head.weight"]}, "lacks lm_head.weight, which LlamaForCausalLM needs: "),
        ({"delete": [LACKING]}, f"lacks {LACKING}, which "),
        (
            {"rename": lambda name: name.replace("model.", "body.")},
            r"and 17 more, which .* \(and holds body.embed_tokens",
        ),
        (
            {"add": {"model.layers.0.extra.weight": torch.ones(2)}},
            "holds model.layers.0.extra.weight, for which no class",
        ),
        ({"config": {"architectures": None}}, r"does not say which class was saved, .* \"architectures\""),
    ],
)
def test_an_import_takes_every_weight_from_the_file(changes, sentence, llama, tmp_path):
    with pytest.raises(RecipeError, match=sentence):
        convert("import", str(change(llama, **changes)), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_a_head_of_the_family_that_the_class_has_not_is_left_out_and_named(tmp_path, capsys):
    """As in bert-base-uncased, which says BertForMaskedLM and holds the sentence head of its pretraining too."""
    folder = tmp_path / "bert"
    BertForPreTraining(BERT).save_pretrained(folder)
    change(folder, config={"architectures": [BertForMaskedLM.__name__]})
    convert("import", str(folder), tmp_path / "out", None)
    assert "left out, since WeftForMaskedLM has no use for them: " in (printed := capsys.readouterr().out)
    assert "cls.seq_relationship.weight" in printed and "bert.pooler.dense.weight" in printed


def test_an_export_takes_every_weight_from_the_file(weft, tmp_path):
    whole = shutil.copytree(weft, tmp_path / "copy")
    with pytest.raises(RecipeError, match=NEEDED):
        convert("export", str(change(weft, delete=[LACKING])), tmp_path / "out", "llama")
    with pytest.raises(RecipeError, match=r"holds other.weight, for which WeftForCausalLM has no place"):
        convert("export", str(change(whole, add={"other.weight": torch.ones(2)})), tmp_path / "out", "llama")
    assert not (tmp_path / "out").exists()


def test_models_that_write_score_and_learn_on_are_whole(weft, tmp_path, monkeypatch):
    change(weft, delete=[LACKING])
    text = tmp_path / "text.txt"
    text.write_text("a red cat\n")
    monkeypatch.setattr("sys.argv", ["generate.py", "--model", str(weft), "--prompt", "a"])
    with pytest.raises(RecipeError, match=NEEDED):
        generate()
    with pytest.raises(RecipeError, match=NEEDED):
        evaluate_lm.main(["--model", str(weft), "--files", str(text)])
    with pytest.raises(RecipeError, match=NEEDED):
        make_trained(ModelArguments(model_name_or_path=str(weft)), WeftConfig.from_pretrained(weft), WeftForCausalLM)
    with pytest.raises(RecipeError, match=rf"has no weights for {LACKING}: it is not whole"):
        finetune_classification.main(
            ft.command(**ft.write_files(tmp_path), model_name_or_path=weft, output_dir=tmp_path / "run")
        )


UNKNOWN = "model.layers.0.self_attn.extra.weight"


def test_tensors_that_no_layer_has_a_place_for_are_refused_wherever_a_model_is_loaded(weft, tmp_path, monkeypatch):
    change(weft, add={UNKNOWN: torch.ones(2), "classifier.weight": torch.ones(2)})
    text = tmp_path / "text.txt"
    text.write_text("a red cat\n")
    sentence = rf"holds {UNKNOWN}, for which Weft\w+ has no place"
    monkeypatch.setattr("sys.argv", ["generate.py", "--model", str(weft), "--prompt", "a"])
    with pytest.raises(RecipeError, match=sentence):
        generate()
    with pytest.raises(RecipeError, match=sentence):
        evaluate_lm.main(["--model", str(weft), "--files", str(text)])
    with pytest.raises(RecipeError, match=sentence):
        make_trained(ModelArguments(model_name_or_path=str(weft)), WeftConfig.from_pretrained(weft), WeftForCausalLM)
    with pytest.raises(RecipeError, match=sentence):
        finetune_classification.main(
            ft.command(**ft.write_files(tmp_path), model_name_or_path=weft, output_dir=tmp_path / "run")
        )


def test_tensors_without_a_place_in_a_stock_model_are_named(llama, capsys):
    change(llama, add={UNKNOWN: torch.ones(2)})
    load_whole(LlamaForCausalLM, str(llama))
    assert f"holds {UNKNOWN}, for which LlamaForCausalLM has no place" in capsys.readouterr().err


def test_a_head_for_sentence_pairs_may_be_new(tmp_path):
    make_model(tiny_config(is_causal=False), model_class=WeftForMaskedLM).save_pretrained(tmp_path / "mlm")
    arguments = ModelArguments(model_name_or_path=str(tmp_path / "mlm"))
    assert make_trained(arguments, tiny_config(is_causal=False), WeftForPreTraining) is not None
