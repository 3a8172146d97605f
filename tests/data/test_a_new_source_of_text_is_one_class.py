"""A new source of text is one class: every command that takes files of text takes its names then."""

import pytest
from helpers.text import make_data, sentences, texts, write_paragraphs

from weft.recipes import evaluate_lm, judge_tokenizer
from weft.recipes.common.errors import RecipeError
from weft.recipes.data import text_source
from weft.recipes.data.prepare import prepare
from weft.recipes.data.shards import Shards
from weft.recipes.data.source_mixture import REST
from weft.recipes.data.streaming.documents import BlockArguments, Cursor, DocumentStream
from weft.recipes.data.text_source import TextSource


class Counted(TextSource):
    """Documents that are made: "counted:5" names five of them, of which a place in their middle can be told."""

    last = 0

    @classmethod
    def accepts(cls, name):
        return name.startswith("counted:")

    def check(self):
        if not self.name.removeprefix("counted:").isdecimal():
            raise RecipeError(f"{self.name} names no number of documents: give for example counted:5.")

    def state(self):
        return {"last": self.last}

    def _read(self, state, record):
        for number in range(state["last"] + 1 if state else 1, int(self.name.removeprefix("counted:")) + 1):
            self.last = number
            yield f"Document {number}\r\nof {self.name}."


def documents(number):
    return [f"Document {i}\nof counted:{number}." for i in range(1, number + 1)]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(text_source, "SOURCES", [Counted, *text_source.SOURCES])


def test_it_is_prepared_among_files(tmp_path):
    lines = sentences(5)
    path = write_paragraphs(tmp_path / "a.txt", lines)
    data = make_data(
        train_files=["counted:7", path], validation_files=["counted:3"], source_weights=["counted=2"], dedup="off"
    )
    corpus = prepare(data, tmp_path / "corpus", quiet=True)
    assert texts(corpus, "train") == [*documents(7), *lines]
    assert texts(corpus, "validation") == documents(3)
    assert corpus.source_of.tolist()[:12] == [0] * 7 + [1] * 5
    assert [source["name"] for source in corpus.description["sources"]] == ["counted", REST]
    assert corpus.description["source"] == "counted:7, a.txt"
    assert prepare(data, tmp_path / "corpus", quiet=True).description == corpus.description
    with pytest.raises(RecipeError, match=r"^counted:many names no number"):
        prepare(make_data(train_files=["counted:many"]), tmp_path / "other", quiet=True)


def test_it_is_streamed_and_goes_on(tmp_path):
    path = write_paragraphs(tmp_path / "a.txt", sentences(9))
    arguments = BlockArguments(train_files=["counted:7", path], block_bytes=60)
    stream, found = DocumentStream(arguments), []
    while stream.cursor.number < 2:
        found.append((vars(stream.cursor), [text for text, _ in stream.block(60)]))
    joined = [text for _, block in found for text in block]
    assert sorted(joined[:16]) == sorted(joined[16:32]) == sorted([*documents(7), *sentences(9)])
    assert any(cursor["state"] for cursor, _ in found) and any(cursor["digest"] for cursor, _ in found)
    for cursor, block in found:
        assert [text for text, _ in DocumentStream(arguments, Cursor(**cursor)).block(60)] == block


def test_it_is_shared_between_tasks(tmp_path):
    path = write_paragraphs(tmp_path / "a.txt", sentences(9))
    tokenizer = prepare(make_data(train_files=["counted:9"]), tmp_path / "first", quiet=True).folder / "tokenizer"
    data = make_data(train_files=["counted:7", path], tokenizer_name=str(tokenizer))
    shards = Shards.begin(data, tmp_path / "shards")
    for file in (1, 0):
        shards.write(file)
    assert texts(shards.merge(tmp_path / "corpus")) == texts(prepare(data, tmp_path / "alone", quiet=True))


def test_it_is_judged_and_evaluated(tmp_path, monkeypatch, capsys):
    tokenizer = prepare(make_data(train_files=["counted:9"]), tmp_path / "first", quiet=True).folder / "tokenizer"
    monkeypatch.setattr("sys.argv", ["judge.py", "--tokenizer_name", str(tokenizer), "--files", "counted:8"])
    judge_tokenizer.main()
    assert "Latin" in capsys.readouterr().out
    arguments = evaluate_lm.EvaluateArguments(files=["counted:4"])
    assert [list(source.read()) for source in evaluate_lm._read(arguments)] == [documents(4)]
