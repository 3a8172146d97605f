"""A folder or a pattern stands for its files, sorted, in every command that reads text; many names are told short."""

import json
from pathlib import Path

import pytest
from helpers.text import make_data, sentences, texts, write_paragraphs

from weft.recipes import evaluate_lm, judge_tokenizer, train_tokenizer
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.cluster_arguments import ClusterArguments
from weft.recipes.data.prepare import prepare
from weft.recipes.data.streaming.documents import BlockArguments, DocumentStream
from weft.recipes.data.text_source import SourceArguments, texts_of
from weft.recipes.evaluation.arguments import EvaluateArguments


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Three files of two documents each, in two folders, with files beside them that hold no text."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards" / "deep").mkdir(parents=True)
    lines = sentences(6)
    write_paragraphs(tmp_path / "shards" / "a.txt", lines[:2])
    (tmp_path / "shards" / "b.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines[2:4]))
    write_paragraphs(tmp_path / "shards" / "deep" / "c.TXT", lines[4:])
    for name in ("_SUCCESS", "README.md", ".hidden.txt"):
        (tmp_path / "shards" / name).write_text("no text of mine")
    (tmp_path / "odd[1].txt").write_text("A name that looks like a pattern.")
    return ["shards/a.txt", "shards/b.jsonl", "shards/deep/c.TXT"]


def expanded(*names):
    return SourceArguments(list(names)).train_files


def test_a_pattern_stands_for_the_files_that_match_in_order(shards, tmp_path):
    assert expanded("shards/deep/c.TXT", "shards/*.[jt]*", "missing.txt") == [shards[2], *shards[:2], "missing.txt"]
    assert expanded(f"{tmp_path}/**/?.*") == [str(tmp_path / name) for name in shards]
    assert expanded("shards/deep/**") == [shards[2]]
    assert expanded("odd[1].txt") == ["odd[1].txt"]


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("shards/*.csv", r"^no file matches 'shards/\*\.csv'"),
        ("", r"^the name of a file is empty"),
        ("empty", r"^folder empty has no file that ends in \.txt.*: it is empty\.$"),
        ("none", r"^folder none has no file that ends in \.txt.*: there are only \.md\.$"),
        ("missing.txt", r"^missing\.txt is missing"),
    ],
)
def test_a_name_that_no_file_belongs_to_is_refused(shards, tmp_path, monkeypatch, name, sentence):
    Path("empty").mkdir()
    Path("none").mkdir()
    Path("none/README.md").write_text("no text of mine")
    tokenizer = str(prepare(make_data(train_files=["shards"]), tmp_path / "first", quiet=True).folder / "tokenizer")
    with pytest.raises(RecipeError, match=sentence):
        prepare(make_data(train_files=[name]), tmp_path / "corpus", quiet=True)
    with pytest.raises(RecipeError, match=sentence):
        prepare(make_data(train_files=["shards"], validation_files=[name]), tmp_path / "corpus", quiet=True)
    assert not Path("corpus").exists()
    monkeypatch.setattr("sys.argv", ["judge.py", "--tokenizer_name", tokenizer, "--files", name])
    with pytest.raises(RecipeError, match=sentence):
        judge_tokenizer.main()
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--model", "runs/none", "--files", name])
    with pytest.raises(RecipeError):
        evaluate_lm.main()


def test_a_folder_stands_for_the_files_of_text_below_it_and_says_what_it_leaves_out(shards, capsys):
    assert expanded("shards") == expanded("shards/") == shards
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "train_files: of shards, 3 files to read; 2 others left out for the ending (.md, none)"
    assert expanded("shards/deep") == [shards[2]]
    assert len(capsys.readouterr().out) == 0


def test_links_are_followed_but_not_in_a_circle(shards, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "d.txt").write_text("Linked.")
    for name, target in (("linked", elsewhere), ("round", tmp_path / "shards"), ("deep/up", tmp_path / "shards")):
        (tmp_path / "shards" / name).symlink_to(target, target_is_directory=True)
    (elsewhere / "back").symlink_to(tmp_path / "shards", target_is_directory=True)
    (elsewhere / "nowhere.txt").symlink_to(tmp_path / "missing.txt")
    assert expanded("shards") == expanded("shards/**/?.*") == [*shards, "shards/linked/d.txt"]
    assert expanded("sh*/**/deep/*") == [shards[2]]


def test_every_way_of_reading_takes_folders_and_patterns(shards, tmp_path, monkeypatch, capsys):
    lines = sentences(6)
    write_paragraphs(tmp_path / "held.txt", ["Held out."])
    corpus = prepare(make_data(train_files=["shards"], validation_files=["hel?.txt"]), tmp_path / "corpus", quiet=True)
    assert texts(corpus, "train") == lines and texts(corpus, "validation") == ["Held out."]
    assert corpus.description["made_from"]["settings"]["train_files"] == shards
    stream = DocumentStream(BlockArguments(train_files=["shards/**/*.[jtT]*"], block_bytes=10**6))
    assert sorted(text for text, _ in stream.block(10**6)) == lines
    tokenizer = str(corpus.folder / "tokenizer")
    monkeypatch.setattr("sys.argv", ["train.py", "--train_files", "shards", "--vocab_size", "300"])
    train_tokenizer.main()
    monkeypatch.setattr("sys.argv", ["judge.py", "--tokenizer_name", tokenizer, "--files", "shards/*.txt"])
    judge_tokenizer.main()
    assert EvaluateArguments(files=["shards"]).files == shards
    assert EvaluateArguments(files=["shards"], task="last-word").files == [shards[1]]


def test_many_machines_make_the_same_corpus_of_a_folder(shards, tmp_path):
    pytest.importorskip("datatrove", reason="the extra 'many' is not installed")
    from weft.recipes.data.cluster import prepare_many

    tokenizer = str(prepare(make_data(train_files=["shards"]), tmp_path / "first", quiet=True).folder / "tokenizer")
    data = make_data(train_files=["shards"], tokenizer_name=tokenizer)
    alone, many = prepare(data, tmp_path / "alone", quiet=True), tmp_path / "many"
    assert prepare_many(data, ClusterArguments(workers=1), many).description == alone.description


def test_a_file_that_joins_a_folder_makes_other_input(shards, tmp_path):
    prepare(make_data(train_files=["shards"]), tmp_path / "corpus", quiet=True)
    write_paragraphs(tmp_path / "shards" / "new.txt", ["One more."])
    with pytest.raises(RecipeError, match=r"corpus was prepared from other input \(train_files differ\)"):
        prepare(make_data(train_files=["shards"]), tmp_path / "corpus", quiet=True)


def test_many_files_are_told_by_their_first_names_and_their_number(tmp_path):
    (tmp_path / "many").mkdir()
    for number, line in enumerate(sentences(2000)):
        (tmp_path / "many" / f"part-{number:05d}.txt").write_text(line)
    data = make_data(train_files=[str(tmp_path / "many")])
    told = "part-00000.txt, part-00001.txt, part-00002.txt and 1,997 more"
    assert data.describe_source() == told
    corpus = prepare(data, tmp_path / "corpus", quiet=True)
    assert corpus.description["source"] == told
    assert len(corpus.description["made_from"]["files"]) == 2000
    assert len(list(texts_of(data, "train"))) == 2000
