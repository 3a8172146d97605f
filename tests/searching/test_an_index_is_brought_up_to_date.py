"""An index that is brought up to date is what a new one would be, costs what has changed, and is never torn."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.searching import TEXTS, ToyEmbedder, make_model, rows_of, run, use_toy_model, write_texts

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.word_index import ARRAYS
from weft.recipes.searching import build as building
from weft.recipes.searching import index as opening
from weft.recipes.searching import kept_vectors
from weft.recipes.searching.index import SearchIndex


@pytest.fixture(autouse=True)
def toy_model(monkeypatch: pytest.MonkeyPatch) -> None:
    use_toy_model(monkeypatch)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts")


@pytest.fixture
def index(tmp_path: Path, texts: Path) -> Path:
    """An index of the texts, with a model."""
    make_model(tmp_path / "model")
    run("build", texts, tmp_path / "index", "--model", tmp_path / "model", "--passage_tokens", 12)
    ToyEmbedder.embedded.clear()
    return tmp_path / "index"


def assert_is_as_built_anew(index: Path, *texts: Path) -> None:
    anew = index.with_name("anew")
    shutil.rmtree(anew, ignore_errors=True)
    run("build", *texts, anew, "--model", index.with_name("model"), "--passage_tokens", 12)
    some, other = SearchIndex(index), SearchIndex(anew)
    assert rows_of(some) == rows_of(other)
    np.testing.assert_array_equal(some.vectors, other.vectors)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(some.words, name), getattr(other.words, name), err_msg=name)
    assert [source["name"] for source in some.about["sources"]] == [source["name"] for source in other.about["sources"]]


def change(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(1, 1))  # a clock may be too coarse to tell


def test_nothing_is_embedded_twice(index: Path, texts: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in index.rglob("*") if path.name != ".lock"}
    run("build", texts, index)
    assert not ToyEmbedder.embedded and "up to date: 3 sources (3 unchanged)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in index.rglob("*") if path.name != ".lock"} == before


def test_a_changed_file_is_read_and_its_new_passages_are_embedded(index: Path, texts: Path) -> None:
    change(texts / "animals.txt", TEXTS["animals.txt"].replace("waits", "sleeps"))
    run("build", texts, index)
    assert ToyEmbedder.embedded == ["The heron stands in the reeds and sleeps."]
    assert_is_as_built_anew(index, texts)


def test_a_file_that_was_only_touched_is_not_read(index: Path, texts: Path) -> None:
    os.utime(texts / "animals.txt", ns=(1, 1))
    run("build", texts, index)
    assert not ToyEmbedder.embedded
    stamps = SearchIndex(index).about["sources"][0]["files"][str(texts / "animals.txt")]
    assert stamps[1] == 1  # so that it is not hashed next time


def test_a_new_file_and_a_removed_one(index: Path, texts: Path, capsys: pytest.CaptureFixture) -> None:
    (texts / "b.txt").write_text("Bees build combs.")
    (texts / "tools.md").unlink()
    run("build", texts, index)
    assert "3 sources (2 unchanged, 1 new, 1 removed); 1 passage of" in capsys.readouterr().out
    assert ToyEmbedder.embedded == ["Bees build combs."]
    assert_is_as_built_anew(index, texts)
    found = SearchIndex(index)
    assert found.search(["hammer"], by="words") == [[]]
    assert found.search(["combs"], by="words")[0][0].source == str(texts / "b.txt")


def test_a_renamed_file_keeps_its_vectors(index: Path, texts: Path) -> None:
    (texts / "animals.txt").rename(texts / "zoo.txt")
    run("build", texts, index)
    assert not ToyEmbedder.embedded
    assert_is_as_built_anew(index, texts)


def test_without_texts_those_of_before_are_looked_at(index: Path, texts: Path) -> None:
    (texts / "b.txt").write_text("Bees build combs.")
    run("build", index)
    assert ToyEmbedder.embedded == ["Bees build combs."]
    assert_is_as_built_anew(index, texts)


def test_a_build_that_fails_leaves_the_index_as_it_was(
    index: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_of(SearchIndex(index))
    change(texts / "animals.txt", "Something else.")
    with monkeypatch.context() as patch:
        patch.setattr(building, "_write_vectors", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("build", texts, index)
    assert rows_of(SearchIndex(index)) == before
    (texts / "broken.txt").write_bytes(b"caf\xe9")
    with pytest.raises(RecipeError, match=r"broken.txt, line 1"):
        run("build", texts, index)
    assert rows_of(SearchIndex(index)) == before
    assert sorted(path.name for path in index.iterdir() if path.name != ".lock") == ["data-1", "index.json"]
    (texts / "broken.txt").unlink()
    run("build", texts, index)
    assert_is_as_built_anew(index, texts)


class Stopping(ToyEmbedder):
    """Is stopped at the second batch of passages."""

    def of_passages(self, texts: list[str], batch_size: int) -> np.ndarray:
        if ToyEmbedder.embedded:
            raise KeyboardInterrupt
        return super().of_passages(texts, batch_size)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_build_that_was_stopped_goes_on_with_the_vectors_it_had_made(
    is_first: bool, index: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    if is_first:
        shutil.rmtree(index)
    words = ("build", texts, index, "--model", index.with_name("model"), "--passage_tokens", 12)
    (texts / "more.txt").write_text("".join(f"{'very ' * number}long {number}.\n\n" for number in range(6)))
    monkeypatch.setattr(kept_vectors, "AT_ONCE", 3)
    with monkeypatch.context() as patch:
        patch.setattr(building, "Embedder", Stopping)
        with pytest.raises(KeyboardInterrupt):
            run(*words)
    made = [*ToyEmbedder.embedded]
    (kept,) = index.glob("vectors-*.partial")
    with (kept / "vectors").open("ab") as file:
        file.write(b"cut off")  # as by a kill while a batch is written
    (texts / "another.txt").write_text("Something before the rest.")
    capsys.readouterr()
    run(*words)
    assert "; 3 texts were embedded before the last build stopped" in capsys.readouterr().out
    assert len(made) == 3 and len(ToyEmbedder.embedded) == len(set(ToyEmbedder.embedded))
    assert not [*index.glob("*.partial")]
    assert_is_as_built_anew(index, texts)


def test_what_a_kill_left_is_in_nobodys_way(index: Path, texts: Path) -> None:
    """A process may die before the new folder has its name, or between that and the new index.json."""
    for name in (".data-2.partial", "data-2"):
        shutil.copytree(index / "data-1", index / name)
    change(texts / "animals.txt", "Something else.")
    run("build", texts, index)
    assert sorted(path.name for path in index.iterdir() if path.name != ".lock") == ["data-2", "index.json"]
    assert_is_as_built_anew(index, texts)


def test_a_first_build_that_was_killed_before_its_last_file_is_begun_again(index: Path, texts: Path) -> None:
    (index / "index.json").unlink()
    (index / ".lock").touch()
    shutil.rmtree(shutil.copytree(index / "data-1", index / "data-7") / "words")  # a kill while one is removed
    run("build", texts, index, "--model", index.with_name("model"), "--passage_tokens", 12)
    assert sorted(path.name for path in index.iterdir() if path.name != ".lock") == ["data-1", "index.json"]
    assert_is_as_built_anew(index, texts)


def test_data_of_others_is_left_alone(index: Path, texts: Path) -> None:
    others = [index / "data-9" / "mine.txt", index / "data-of-mine" / "passages.arrow"]
    for path in others:
        path.parent.mkdir()
        path.write_text("Mine.")
    change(texts / "animals.txt", "Something else.")
    run("build", texts, index)
    assert not (index / "data-1").exists() and all(path.read_text() == "Mine." for path in others)
    (index / "index.json").unlink()
    with pytest.raises(RecipeError, match="is no index"):
        run("build", texts, index)
    assert all(path.read_text() == "Mine." for path in others)


@pytest.mark.parametrize("step", ["open_sources", "_cutter"])
def test_a_file_that_goes_while_texts_are_read_is_named(
    step: str, index: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = rows_of(SearchIndex(index)), getattr(building, step)
    change(texts / "tools.md", "Something else.")

    def and_remove(*given: object) -> object:
        result = real(*given)
        (texts / "tools.md").unlink()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(building, step, and_remove)
        with pytest.raises(RecipeError, match=r"tools\.md.*run the same command again"):
            run("build", texts, index)
    assert rows_of(SearchIndex(index)) == before
    run("build", texts, index)
    assert_is_as_built_anew(index, texts)


def test_an_index_is_opened_whole_while_it_is_built_again(
    index: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that its index.json named are removed before all of them are open."""
    load, begun = opening.WordIndex.load, []

    def load_later(folder: Path) -> object:
        if not begun:
            begun.append(folder)
            change(texts / "animals.txt", "Something else.")
            run("build", texts, index)
        return load(folder)

    monkeypatch.setattr(opening.WordIndex, "load", load_later)
    opened = SearchIndex(index)
    assert begun == [index / "data-1" / "words"] and not begun[0].exists()
    assert rows_of(opened) == rows_of(SearchIndex(index)) and "Something else." in opened.texts(range(len(opened)))


def test_an_open_index_stays_readable_while_another_takes_its_place(index: Path, texts: Path) -> None:
    opened = SearchIndex(index)
    expected = rows_of(opened), np.array(opened.vectors)
    change(texts / "animals.txt", "Something else.")
    run("build", texts, index)
    assert rows_of(opened) == expected[0]
    np.testing.assert_array_equal(opened.vectors, expected[1])


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("--model", "other"), "was built with another model"),
        (("--passage_tokens", 99), "passage_tokens is 99, but .* was built with 12"),
        (("--overlap", 1), "overlap is 1, but .* was built with 3"),
        (("--text_column", "body"), "text_column is 'body'"),
    ],
)
def test_an_index_is_not_built_in_two_ways(
    words: tuple[object, ...], sentence: str, index: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(index.parent)
    make_model(Path("other"), "two")
    before = (index / "index.json").read_bytes()
    with pytest.raises(RecipeError, match=sentence):
        run("build", texts, index, *words)
    assert (index / "index.json").read_bytes() == before and not ToyEmbedder.embedded


def test_a_model_that_was_trained_again_is_refused_and_one_that_was_moved_is_not(index: Path, texts: Path) -> None:
    model = index.with_name("model")
    moved = model.rename(index.with_name("moved"))
    with pytest.raises(RecipeError, match=r"is not in .* any more: say with --model"):
        run("ask", index, "otter")
    run("ask", index, "otter", "--model", moved)
    run("build", texts, index, "--model", moved)
    run("ask", index, "otter")
    make_model(moved, "two")
    with pytest.raises(RecipeError, match=r"was built with another model than the one in"):
        run("ask", index, "otter")
    with pytest.raises(RecipeError, match=r"was built with another model"):
        run("build", texts, index)
    run("ask", index, "otter", "--by", "words")


def test_a_model_is_not_added_to_an_index_of_words(texts: Path, tmp_path: Path) -> None:
    run("build", texts, tmp_path / "words")
    with pytest.raises(RecipeError, match=r"was built with no model: remove it, or name another index"):
        run("build", texts, tmp_path / "words", "--model", make_model(tmp_path / "model"))
    with pytest.raises(RecipeError, match=r"was built without a model: ask --by words"):
        run("ask", tmp_path / "words", "otter", "--by", "meaning")


def test_a_reranker_is_no_model_of_vectors(texts: Path, tmp_path: Path) -> None:
    """sentence-transformers would load it as one, with vectors that nobody has trained."""
    model = make_model(tmp_path / "reranker")
    for kind in ("CrossEncoder", "SparseEncoder"):
        (model / "config_sentence_transformers.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(RecipeError, match=f"reranker' is a {kind} of sentence-transformers"):
            run("build", texts, tmp_path / "new", "--model", model)
    (model / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "SentenceTransformer"}))
    run("build", texts, tmp_path / "new", "--model", model)
    assert SearchIndex(tmp_path / "new").by == "both"


def test_nothing_that_is_no_index_is_written_over(texts: Path, tmp_path: Path) -> None:
    before = {path: path.read_text() for path in texts.rglob("*") if path.is_file()}
    for place in (texts, texts / "animals.txt"):
        with pytest.raises(RecipeError, match="is no index"):
            run("build", texts, place)
    with pytest.raises(RecipeError, match=r"there is nothing to index: give files"):
        run("build", tmp_path / "new")
    with pytest.raises(RecipeError, match=r"nothing that could be searched"):
        (tmp_path / "blank.txt").write_text(" \n\n")
        run("build", tmp_path / "blank.txt", tmp_path / "new")
    assert {path: path.read_text() for path in texts.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_broken_indexes_are_named(index: Path) -> None:
    about = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(RecipeError, match=r"cannot be read \(its format is 99"):
        SearchIndex(index)
    (index / "index.json").write_text(json.dumps(about))
    np.save(index / "data-1" / "vectors.npy", np.zeros((1, 24), np.float32))
    with pytest.raises(RecipeError, match=r"files are of different lengths\): remove"):
        SearchIndex(index)
    for content in ("[]", "{", json.dumps(about | {"sources": None, "data": 1})):
        (index / "index.json").write_text(content)
        with pytest.raises(RecipeError, match="cannot be read"):
            SearchIndex(index)
    (index / "index.json").write_text(json.dumps(about))
    (index / "data-1" / "vectors.npy").write_bytes(b"")
    with pytest.raises(RecipeError, match="cannot be read"):
        SearchIndex(index)
    (index / "data-1" / "passages.arrow").write_bytes(b"ARROW1")
    with pytest.raises(RecipeError, match="cannot be read"):
        SearchIndex(index)


def test_files_hold_no_pickle(index: Path) -> None:
    for path in (index / "data-1").rglob("*.npy"):
        np.load(path, allow_pickle=False)
    assert {path.suffix for path in index.rglob("*") if path.is_file()} <= {".npy", ".arrow", ".json", ""}
