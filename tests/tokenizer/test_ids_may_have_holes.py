"""Where the ids of a tokenizer have holes, the largest counts: in preparation, in training and in all that follows."""

import json
import shutil

import pytest
from helpers import finetuning as ft
from helpers import runs
from helpers.stock_tokenizers import STOCK, train_small
from helpers.text import prepare_documents, texts
from transformers import AutoTokenizer

from weft.recipes import evaluate_lm, generate
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.objectives.masked import make_vocabulary
from weft.tokenizer.special_tokens import add_mask_token
from weft.tokenizer.vocabulary import check_rows, number_of_ids

SHORT = {"max_steps": 2, "save_steps": 2, "sequence_length": 64, "tokens_per_step": 64, "num_hidden_layers": 1}


def with_hole(folder, number, kind="bpe", token=None):
    """A tokenizer, one token of which has another id than the others would leave for it."""
    train_small(kind).save_pretrained(folder)
    state = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = state["model"]["vocab"]
    vocabulary[token or max(vocabulary, key=vocabulary.get)] = number
    (folder / "tokenizer.json").write_text(json.dumps(state))
    return str(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return runs.write_text(tmp_path_factory.mktemp("text") / "text.txt", 60)


@pytest.mark.parametrize("number, dtype", [(520, "<u2"), (65535, "<u2"), (65536, "<u4"), (70001, "<u4")])
def test_a_corpus_holds_every_id(tmp_path, number, dtype):
    name = with_hole(tmp_path / "tokenizer", number, token="e")
    documents = ["the river", "seven stones here"] * 8
    corpus = prepare_documents(tmp_path, documents, tokenizer_name=name, dedup="off")
    assert corpus.tokens.dtype.str == dtype and number in corpus.tokens
    assert corpus.description["vocab_size"] == number + 1
    assert texts(corpus) == documents


def test_many_tasks_hold_every_id(tmp_path):
    pytest.importorskip("datatrove", reason="the extra 'many' is not installed")
    from weft.recipes.data.arguments import DataArguments
    from weft.recipes.data.cluster import prepare_many
    from weft.recipes.data.cluster_arguments import ClusterArguments

    name = with_hole(tmp_path / "tokenizer", 70001, token="e")
    alone = prepare_documents(tmp_path, ["the river", "seven stones here"], tokenizer_name=name)
    data = DataArguments(**alone.description["made_from"]["settings"])
    many = prepare_many(data, ClusterArguments(workers=1), tmp_path / "many")
    assert (many.folder / "tokens.bin").read_bytes() == (alone.folder / "tokens.bin").read_bytes()


@pytest.mark.parametrize("fields", [{}, {"objective": "masked"}, {"objective": "hybrid"}, {"stream": "true"}])
def test_a_model_is_trained_with_it_scored_continued_and_fine_tuned(tmp_path, text, fields, monkeypatch, capsys):
    run = tmp_path / "run"
    runs.run_here(
        train_files=text, tokenizer_name=with_hole(tmp_path / "tok", 1520, token="e"), output_dir=run, **fields, **SHORT
    )
    config = json.loads((run / "config.json").read_text())
    assert config["vocab_size"] >= number_of_ids(AutoTokenizer.from_pretrained(run)) >= 1521
    monkeypatch.setattr("sys.argv", ["evaluate_lm.py", "--model", str(run), "--files", str(text), "--limit", "2"])
    evaluate_lm.main()
    if fields.get("objective") != "masked":
        words = ["generate.py", "--model", str(run), "--prompt", "the tree", "--max_new_tokens", "3"]
        monkeypatch.setattr("sys.argv", words)
        generate.main()
        assert "the tree" in capsys.readouterr().out
    if not fields.get("stream"):
        files = ft.write_files(tmp_path / "data", 40, 20)
        ft.run_here(**files, model_name_or_path=run, max_steps=2, output_dir=tmp_path / "tuned")


def test_a_new_model_is_fine_tuned_with_it(tmp_path):
    name = with_hole(tmp_path / "tok", 1520, token="e")
    files = ft.write_files(tmp_path / "data", 40, 20)
    ft.run_here(**files, tokenizer_name=name, vocab_size=None, max_steps=2, output_dir=tmp_path / "tuned")
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["vocab_size"] >= 1521


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "char"])
@pytest.mark.parametrize("number", [319, 320, 321, 1520])
def test_a_mask_token_takes_an_id_that_no_other_token_has(tmp_path, kind, number):
    tokenizer = AutoTokenizer.from_pretrained(with_hole(tmp_path / "tok", number, kind))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for token in [token for token in state["added_tokens"] if token["content"] == "<mask>"]:
        state["added_tokens"].remove(token)
    del state["model"]["vocab"]["<mask>"]
    (tmp_path / "tok" / "tokenizer.json").write_text(json.dumps(state))
    settings = json.loads((tmp_path / "tok" / "tokenizer_config.json").read_text())
    settings.pop("mask_token")
    (tmp_path / "tok" / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tok")
    before = tokenizer.get_vocab()
    assert add_mask_token(tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert {token: index for token, index in each.get_vocab().items() if token != "<mask>"} == before
        assert each.mask_token_id not in before.values()
        assert each("a<mask>", add_special_tokens=False).input_ids[-1] == each.mask_token_id


def test_masking_draws_ids_that_there_are(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(with_hole(tmp_path / "tok", 1520, token="e"))
    ordinary = make_vocabulary(tokenizer).ordinary.tolist()
    assert set(ordinary) == set(tokenizer.get_vocab().values()) - {0, 1, 2, 3, 4}
    assert ordinary == sorted(ordinary)


@pytest.mark.parametrize("recipe", ["evaluate", "generate", "finetune", "continue"])
def test_ids_that_a_model_has_no_rows_for_are_named_before_anything_is_computed(tmp_path, text, recipe, monkeypatch):
    run = tmp_path / "run"
    runs.run_here(train_files=text, vocab_size=300, output_dir=run, **SHORT)
    shutil.copy(with_hole(tmp_path / "tok", 1520, token="e") + "/tokenizer.json", run / "tokenizer.json")
    if recipe == "continue":
        shape = dict.fromkeys(runs.SMALL_MODEL.keys() - {"use_cpu", "cpu_threads"}) | {"sequence_length": 64}
        said = runs.run_error(
            train_files=text, model_name_or_path=run, output_dir=tmp_path / "next", **shape, max_steps=1
        )
    elif recipe == "finetune":
        files = ft.write_files(tmp_path / "data", 40, 20)
        said = ft.run_error(**files, model_name_or_path=run, output_dir=tmp_path / "tuned")
    else:
        files = ["--files", str(text)] if recipe == "evaluate" else ["--prompt", "the tree"]
        monkeypatch.setattr("sys.argv", [recipe, "--model", str(run), *files])
        with pytest.raises(RecipeError) as error:
            (evaluate_lm if recipe == "evaluate" else generate).main()
        said = str(error.value)
    assert ("its tokenizer 1521" if recipe == "continue" else "ids up to 1520") in said and "320" in said


def test_a_special_token_without_a_role_needs_no_row():
    tokenizer = STOCK["gpt2"]()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    check_rows(tokenizer, len(tokenizer) - 1)
    with pytest.raises(ValueError, match="ids up to 320, but the model only 320 rows"):
        check_rows(tokenizer, 320)
