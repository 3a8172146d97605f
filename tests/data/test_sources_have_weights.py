"""Files form sources with weights: each document is kept once and knows its source, whatever the weights are."""

import numpy as np
import pytest
from helpers.text import make_data, prepare_documents, sentences, texts, write_ids, write_paragraphs

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.prepare import prepare, report
from weft.recipes.data.source_mixture import assign_sources


@pytest.fixture
def files(tmp_path):
    (tmp_path / "wiki").mkdir()
    names = ["books_a.txt", "wiki/1.txt", "news.txt", "books_b.txt", "wiki/2.txt"]
    return [write_paragraphs(tmp_path / name, sentences(20, seed=i + 1)) for i, name in enumerate(names)]


def test_every_document_knows_its_source(tmp_path, files):
    data = make_data(train_files=files, source_weights=["books=2", f"{tmp_path}/wiki*=0.5"], segmenter="characters")
    corpus = prepare(data, tmp_path / "corpus", quiet=True)
    assert [source["name"] for source in corpus.description["sources"]] == ["books", f"{tmp_path}/wiki*", "rest"]
    assert corpus.source_weights == [2.0, 0.5, 1.0]
    assert corpus.source_of.dtype == np.uint16
    plain = prepare(make_data(train_files=files), tmp_path / "plain", quiet=True)
    assert texts(corpus) == texts(plain)  # each once, in the order of the files
    source_of = dict(zip(texts(corpus), corpus.source_of.tolist(), strict=True))
    for source, numbers in enumerate(((0, 3), (1, 4), (2,))):
        for number in numbers:
            assert {source_of[text] for text in sentences(20, seed=number + 1) if text in source_of} == {source}


def test_the_counts_of_sources_add_up_to_the_training_text(tmp_path, files):
    data = make_data(train_files=files, source_weights=["books=2"])
    corpus = prepare(data, tmp_path / "corpus", quiet=True)
    for count in ("documents", "bytes", "tokens"):
        total = sum(source[count] for source in corpus.description["sources"])
        assert total == corpus.description["splits"]["train"][count]
    first = corpus.description["sources"][0]
    chosen = np.intersect1d(np.flatnonzero(corpus.source_of == 0), corpus.documents("train"))
    assert first["documents"] == len(chosen)
    assert first["bytes"] == corpus.byte_counts[chosen].sum()
    assert first["tokens"] == np.diff(corpus.offsets)[chosen].sum()
    assert f"{first['documents']:>12,}{first['bytes']:>15,}{first['tokens']:>15,}  weight 2: books" in report(corpus)
    assert "weight 1: rest" in report(corpus)


def test_without_weights_there_is_one_source(tmp_path):
    corpus = prepare_documents(tmp_path, sentences(10))
    assert corpus.source_weights == [1.0]
    assert corpus.source_of.tolist() == [0] * 10
    assert not (corpus.folder / "sources.npy").exists()
    assert "weight" not in report(corpus)
    assert write_ids(tmp_path / "ids", [[1, 5, 2]]).source_weights == [1.0]


def test_one_source_keeps_its_weight(tmp_path, files):
    corpus = prepare(make_data(train_files=files, source_weights=["txt=3"]), tmp_path / "corpus", quiet=True)
    assert corpus.source_weights == [3.0] and not corpus.source_of.any()
    assert "weight 3: txt" in report(corpus)


def test_tails_and_validation_files_do_not_count_as_training_text(tmp_path, files):
    data = make_data(train_files=files[:2], validation_files=files[2:3], source_weights=["books=2"])
    corpus = prepare(data, tmp_path / "files", quiet=True)
    assert [source["documents"] for source in corpus.description["sources"]] == [20, 20]
    data = make_data(train_files=files[:2], source_weights=["books=2"], validation_split="tail")
    corpus = prepare(data, tmp_path / "tails", quiet=True)
    assert sum(source["tokens"] for source in corpus.description["sources"]) == int(
        np.diff(corpus.offsets)[corpus.documents("train")].sum()
    )


def test_a_pattern_is_a_part_of_a_path_or_a_glob_for_all_of_it():
    paths = ["data/wiki_en.txt", "data/wiki_zh.txt", "books/a=b.txt"]
    sources, source_of = assign_sources(paths, ["data/*_zh.txt=1.5", "a=b=2", "en=1e-1"])
    assert source_of == [2, 0, 1]
    assert [(source.name, source.weight) for source in sources] == [("data/*_zh.txt", 1.5), ("a=b", 2.0), ("en", 0.1)]


@pytest.mark.parametrize(
    "weights, message",
    [
        (["nothing=2"], "'nothing' matches none of train_files"),
        (["books=2", "books_a=3"], "books_a.txt matches 'books' and 'books_a'"),
        (["books=2", "books=2"], "books_a.txt matches 'books' and 'books'"),
        *[
            ([entry], rf"'{entry}' is not PATTERN=WEIGHT")
            for entry in ("books", "books=", "=2", "books=0", "books=-1", "books=nan", "books=inf", "books=two")
        ],
    ],
)
def test_weights_that_make_no_sense_are_refused(tmp_path, files, weights, message):
    with pytest.raises(RecipeError, match=message):
        prepare(make_data(train_files=files, source_weights=weights), tmp_path / "corpus", quiet=True)
    assert not (tmp_path / "corpus").exists()


def test_weights_need_files(tmp_path):
    with pytest.raises(RecipeError, match="without train_files"):
        prepare(make_data(source_weights=["a=2"]), tmp_path / "corpus", quiet=True)
