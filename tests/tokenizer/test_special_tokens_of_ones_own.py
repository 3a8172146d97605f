"""Special tokens of one's own: in the tokenizer that is trained, in all that is published, and made of no text."""

import json

import pytest
from helpers import finetuning as ft
from helpers import runs
from helpers.text import prepare_documents, sentences, texts, write_paragraphs
from transformers import AutoTokenizer

from weft.recipes import train_tokenizer as command
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare
from weft.recipes.pretraining.objectives.masked import make_vocabulary
from weft.tokenizer.train import TOKENIZER_TYPES, train_tokenizer

OWN = ["<user>", "###", "river"]  # of one sign only, and a word of the text: what could be learnt from it
DOCUMENTS = ["<user> asks ### the river ####", *sentences(30)]


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
def test_no_text_becomes_one_and_calling_the_tokenizer_makes_it(tmp_path, kind):
    tokenizer = train_tokenizer(iter(DOCUMENTS), kind, 400, special_tokens=OWN)
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.convert_tokens_to_ids(OWN)
    assert ids == list(range(len(tokenizer) - len(OWN), len(tokenizer))) and len(tokenizer) <= 400
    assert set(OWN) <= set(tokenizer.all_special_tokens)
    text = "<user> asks ### the river ####"
    kept = tokenizer(text, split_special_tokens=True).input_ids
    assert not set(ids) & set(kept)
    if kind != "wordpiece":
        assert tokenizer.decode(kept[1:]) == text
    made = tokenizer(text).input_ids
    assert [token for token in made if token in ids] == [ids[0], ids[1], ids[2], ids[1]]
    assert tokenizer.decode(ids, skip_special_tokens=True) == ""
    assert not set(ids) & set(make_vocabulary(tokenizer).ordinary)


def test_without_any_a_tokenizer_is_what_it_was():
    plain, none = (train_tokenizer(iter(DOCUMENTS), "bpe", 300, **more) for more in ({}, {"special_tokens": []}))
    assert plain.backend_tokenizer.to_str() == none.backend_tokenizer.to_str()


@pytest.mark.parametrize(
    "tokens, said",
    [
        (["<a>", "<b>", "<a>"], "special_tokens has '<a>' twice: give it once"),
        (["<a>", "<mask>"], "'<mask>', which every tokenizer that is trained has already"),
        (["<pad>"], "'<pad>', which every tokenizer that is trained has already"),
        ([""], "give names of two characters or more"),
        (["a"], "give names of two characters or more"),
        ([" <a>"], "without blanks around them"),
        (["\u0120t"], "which the vocabulary has as a token of text"),
    ],
)
def test_what_cannot_be_had_is_refused(tmp_path, tokens, said, monkeypatch):
    path = write_paragraphs(tmp_path / "text.txt", ["to the tree"] * 20)
    words = ["--train_files", path, "--vocab_size", 300, "--output_dir", tmp_path / "out", "--special_tokens", *tokens]
    monkeypatch.setattr("sys.argv", ["train.py", *map(str, words)])
    with pytest.raises(RecipeError) as error:
        command.main()
    assert said in str(error.value) and not (tmp_path / "out").exists()


def test_a_vocabulary_without_room_for_them_is_refused():
    with pytest.raises(ValueError, match="vocab_size=262 is too small for tokenizer_type bpe: at least 263"):
        train_tokenizer(iter(DOCUMENTS), "bpe", 262, special_tokens=["<a>", "<b>"])


def test_a_corpus_holds_them_as_text_only(tmp_path):
    corpus = prepare_documents(tmp_path, DOCUMENTS, special_tokens=OWN)
    assert not set(corpus.tokenizer().convert_tokens_to_ids(OWN)) & set(corpus.tokens.tolist())
    assert texts(corpus) == DOCUMENTS


def test_they_are_not_given_to_a_tokenizer_that_is_trained_already(tmp_path):
    train_tokenizer(iter(DOCUMENTS), "bpe", 300).save_pretrained(tmp_path / "tok")
    with pytest.raises(RecipeError, match=r"special_tokens are given with the tokenizer .*, which is trained already"):
        prepare_documents(tmp_path, DOCUMENTS, tokenizer_name=str(tmp_path / "tok"), special_tokens=OWN)
    files = ft.write_files(tmp_path / "data", 24, 8)
    said = ft.run_error(
        **files, tokenizer_name=tmp_path / "tok", special_tokens=OWN, vocab_size=None, output_dir=tmp_path / "run"
    )
    assert "which is trained already" in said


def test_a_corpus_of_before_is_read_and_used_again(tmp_path):
    corpus = prepare_documents(tmp_path, DOCUMENTS)
    path = corpus.folder / "corpus.json"
    description = json.loads(path.read_text())
    for name, default in (("special_tokens", None), ("pre_tokenizer", "weft")):
        assert description["made_from"]["settings"].pop(name, "") == default
    path.write_text(json.dumps(description))
    data = DataArguments(train_files=[str(tmp_path / "text.txt")], vocab_size=300)
    assert prepare(data, corpus.folder, quiet=True).folder == corpus.folder
    data.pre_tokenizer = "gpt2"
    with pytest.raises(RecipeError, match=r"prepared from other input \(pre_tokenizer differ\)"):
        prepare(data, corpus.folder, quiet=True)


@pytest.mark.parametrize("fields", [{}, {"objective": "hybrid"}, {"stream": "true"}, {"document_tokens": "none"}])
def test_a_run_publishes_them(tmp_path, fields):
    text = runs.write_text(tmp_path / "text.txt", 40)
    run = tmp_path / "run"
    own = {"special_tokens": OWN[:2], "vocab_size": 300}
    runs.run_here(train_files=text, output_dir=run, **own, **fields, max_steps=1, num_hidden_layers=1)
    tokenizer = AutoTokenizer.from_pretrained(run)
    assert set(OWN[:2]) <= set(tokenizer.all_special_tokens)
    files = ft.write_files(tmp_path / "data", 24, 8)
    if not fields:
        ft.run_here(**files, model_name_or_path=run, max_steps=1, evaluations=1, output_dir=tmp_path / "tuned")
        assert set(OWN[:2]) <= set(AutoTokenizer.from_pretrained(tmp_path / "tuned").all_special_tokens)


def test_a_new_classifier_has_them(tmp_path):
    files = ft.write_files(tmp_path / "data", 24, 8)
    ft.run_here(**files, special_tokens=OWN, max_steps=1, evaluations=1, output_dir=tmp_path / "run")
    assert set(OWN) <= set(AutoTokenizer.from_pretrained(tmp_path / "run").all_special_tokens)
