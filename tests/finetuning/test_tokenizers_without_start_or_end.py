"""A checkpoint whose tokenizer has no start or no end token is fine-tuned with what its tokenizer does to a text."""

import json

import pytest
import torch
from helpers import finetuning as ft
from helpers import sequences
from helpers.models import tiny_config
from tokenizers import processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import weft
from weft.recipes.conversion.run import import_checkpoint
from weft.recipes.finetuning.model_setup import as_encoder
from weft.recipes.finetuning.tasks.question_answering.encoding import closes, closing
from weft.tokenizer.train import train_tokenizer

TEXT = "the old house"
# What stands around a text, and which special tokens have a role.
KINDS = {
    "end without a place": ("$A", {"eos_token": "</s>", "pad_token": "</s>"}),
    "end behind": ("$A </s>", {"eos_token": "</s>", "pad_token": "<pad>"}),
    "start alone": ("<s> $A", {"bos_token": "<s>", "pad_token": "<pad>"}),
    "none": ("$A", {"pad_token": "<pad>"}),
}


def make_tokenizer(kind):
    template, roles = KINDS[kind]
    backend = train_tokenizer(iter([text for text, _ in ft.sentences(200)]), "bpe", 300).backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single=template, pair=template.replace("$A", "$A $B:1"), special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A Qwen3 of each kind and what convert.py makes of it, and a Weft encoder."""
    found, root = {}, tmp_path_factory.mktemp("models")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    for number, kind in enumerate(KINDS):
        tokenizer = make_tokenizer(kind)
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        torch.manual_seed(0)
        config = Qwen3Config(vocab_size=320, intermediate_size=48, head_dim=8, **shape, **ids)
        stock, causal, encoder = (root / f"{name}-{number}" for name in ("stock", "causal", "encoder"))
        Qwen3ForCausalLM(config).save_pretrained(stock)
        tokenizer.save_pretrained(stock)
        import_checkpoint(str(stock), causal)
        weft.WeftForMaskedLM(tiny_config(vocab_size=320, is_causal=False, **ids)).save_pretrained(encoder)
        tokenizer.save_pretrained(encoder)
        found[kind] = {"stock": stock, "causal": causal, "encoder": encoder}
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {recipe: ft.files_of(recipe, folder, 24, 8) for recipe in ft.MAINS}


@pytest.mark.parametrize("layout", ["packed", "grouped"])
@pytest.mark.parametrize("recipe", list(ft.MAINS))
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_task_trains(folders, files, tmp_path, kind, recipe, layout):
    if layout == "grouped" and kind in ("end behind", "start alone"):
        pytest.skip("seen with the other kinds")
    writes = recipe == "finetune_chat"  # which no encoder does
    model = folders[kind]["causal" if layout == "packed" or writes else "encoder"]
    fields = {"model_name_or_path": model, "batching": layout, "max_steps": 1, "evaluations": 1}
    ft.run_here(ft.MAINS[recipe], **files[recipe], **fields, output_dir=tmp_path / "run")
    assert ft.metrics(tmp_path / "run")


@pytest.mark.parametrize("kind", list(KINDS))
def test_texts_are_those_of_the_stock_folder(folders, files, tmp_path, kind):
    """Classification of one text: the published tokenizer is the stock one's equal."""
    stock = AutoTokenizer.from_pretrained(folders[kind]["stock"])
    fields = {"model_name_or_path": folders[kind]["causal"], "max_steps": 1, "evaluations": 1}
    ft.run_here(**files["finetune_classification"], **fields, output_dir=tmp_path / "run")
    published = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert published(TEXT).input_ids == stock(TEXT).input_ids


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_new_model_can_have_such_a_tokenizer(files, folders, tmp_path, kind):
    fields = {"tokenizer_name": folders[kind]["stock"], "vocab_size": None, "max_steps": 1, "evaluations": 1}
    ft.run_here(**files["finetune_classification"], **fields, output_dir=tmp_path / "run")
    assert AutoTokenizer.from_pretrained(tmp_path / "run")(TEXT).input_ids == make_tokenizer(kind)(TEXT).input_ids


def test_pairs_are_parted_by_the_end_token(folders, tmp_path):
    rows = [{"first": text, "second": text[::-1], "label": label} for text, label in ft.sentences(32)]
    train, validation = (ft.write_rows(tmp_path / f"{i}.jsonl", rows[i::2]) for i in range(2))
    fields = {"train_file": train, "validation_file": validation, "text_columns": "first,second", "max_steps": 1}
    output = tmp_path / "run"
    ft.run_here(**fields, model_name_or_path=folders["end without a place"]["causal"], output_dir=output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    a, b = (tokenizer(text, add_special_tokens=False).input_ids for text in ("the", "house"))
    assert tokenizer("the", "house").input_ids == [*a, tokenizer.eos_token_id, *b]
    said = ft.run_error(**fields, model_name_or_path=folders["none"]["causal"], output_dir=tmp_path / "other")
    assert "no token between the texts of a pair" in said


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_context_is_closed_where_a_causal_model_says_that_there_is_no_answer(kind):
    tokenizer = as_encoder(make_tokenizer(kind))
    tokenizer = closing(tokenizer)
    assert closes(tokenizer)
    assert tokenizer("the", "house").input_ids[-1] == {"none": 0, "start alone": 0}.get(kind, 2)


@pytest.mark.parametrize("kind", ["end behind", "end without a place"])
def test_text_to_text_begins_with_what_there_is(folders, tmp_path, kind):
    files = sequences.write_files(tmp_path / "data")
    fields = {"tokenizer_name": folders[kind]["stock"], "vocab_size": None, "max_steps": 1, "evaluations": 1}
    sequences.run(**files, **fields, output_dir=tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    tokenizer = make_tokenizer(kind)
    assert config["decoder_start_token_id"] == tokenizer.pad_token_id
    assert AutoTokenizer.from_pretrained(tmp_path / "run")(TEXT).input_ids == tokenizer(TEXT).input_ids


def test_text_to_text_without_an_end_is_refused(folders, tmp_path):
    files = sequences.write_files(tmp_path / "data")
    fields = {"tokenizer_name": folders["none"]["stock"], "vocab_size": None, "max_steps": 1}
    assert "no end token" in sequences.error(**files, **fields, output_dir=tmp_path / "run")
