"""Texts within objects and lists, nulls, and files in other encodings are read; what is wrong is named."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from helpers.text import CHINESE, make_data, sentences, texts, write_paragraphs

from weft.recipes import prepare_data
from weft.recipes.common.errors import RecipeError
from weft.recipes.data import text_columns
from weft.recipes.data.prepare import prepare
from weft.recipes.data.text_source import texts_of

ROWS = [
    {"id": 1, "meta": {"text": "one", "inner": {"parts": ["a", None, " ", "b"]}}},
    {"id": 2, "meta": {"text": None, "inner": {"parts": []}}},
    {"id": 3, "meta": None},
    {"id": 4, "meta": {"text": "four", "inner": {"parts": ["c"]}}},
]


def write_rows(folder, ending, rows=ROWS):
    path = folder / f"rows{ending}"
    if ending == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(autouse=True)
def nothing_was_told(monkeypatch):
    monkeypatch.setattr(text_columns, "_told", set())


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_a_column_may_lie_within_another_and_hold_lists_and_nulls(tmp_path, ending, capsys):
    path = write_rows(tmp_path, ending)
    nested = make_data(train_files=[path], text_column="meta.text")
    assert list(texts_of(nested, "train")) == ["one", "", "", "four"]
    assert list(texts_of(nested, "train")) == ["one", "", "", "four"]
    assert capsys.readouterr().out == f"{path}: 2 rows with null in column 'meta.text', left out as empty\n"
    lists = make_data(train_files=[path], text_column="meta.inner.parts")
    assert list(texts_of(lists, "train")) == ["a\n\nb", "", "", "c"]
    corpus = prepare(nested, tmp_path / "corpus", quiet=True)
    assert texts(corpus) == ["one", "four"] and corpus.description["empty"] == 2
    for wrong, there in (("meta.body", "text, inner"), ("body.text", "id, meta"), ("meta.inner.x", "parts")):
        with pytest.raises(RecipeError, match=rf"{path}.*: no column .*: there are {there}; name it with"):
            list(texts_of(make_data(train_files=[path], text_column=wrong), "train"))


def test_a_column_whose_name_has_a_dot_goes_first(tmp_path):
    rows = [{"meta.text": "outer", "meta": {"text": "inner"}}] * 2
    for ending in (".jsonl", ".parquet"):
        path = write_rows(tmp_path, ending, rows)
        assert list(texts_of(make_data(train_files=[path], text_column="meta.text"), "train")) == ["outer", "outer"]


def test_a_folder_of_datasets_has_such_columns_too(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    write_rows(tmp_path / "set", ".jsonl")
    data = make_data(dataset_name=str(tmp_path / "set"), text_column="meta.text")
    assert list(texts_of(data, "train")) == ["one", "", "", "four"]
    assert "2 rows with null in column 'meta.text'" in capsys.readouterr().out


LINES = [*sentences(3), "naïve café", "Ende: äöü ß"]


@pytest.mark.parametrize(
    "encoding", ["latin-1", "cp1252", "utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp037"]
)
@pytest.mark.parametrize("ending", [".txt", ".txt.gz", ".jsonl", ".csv"])
def test_files_may_be_written_in_another_encoding(tmp_path, encoding, ending):
    content = {
        ".txt": "\n\n".join(LINES),
        ".jsonl": "\r\n".join(json.dumps({"text": line}, ensure_ascii=False) for line in LINES),
        ".csv": "id,text\r\n" + "".join(f'{i},"{line}"\r\n' for i, line in enumerate(LINES)),
    }[ending.removesuffix(".gz")].encode(encoding)
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    data = make_data(train_files=[str(path)], encoding=encoding)
    assert list(texts_of(data, "train")) == LINES
    assert texts(prepare(data, tmp_path / "corpus", quiet=True)) == LINES


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "shift_jis", "utf-16-le"])
def test_a_byte_order_mark_and_signs_of_many_bytes_are_read(tmp_path, encoding):
    text = ("\ufeff" if encoding == "utf-16-le" else "") + "\n\n".join(["今天天", "天今"] * 9000)
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    found = list(texts_of(make_data(train_files=[str(tmp_path / "a.txt")], encoding=encoding), "train"))
    assert found == ["今天天", "天今"] * 9000


@pytest.mark.parametrize(
    "content, encoding, sentence",
    [
        ("ok\nnaïve".encode("latin-1"), None, r"a\.txt, line 2: byte 0xef at column 3 is not valid UTF-8: convert"),
        (
            "ok\ncafé\n".encode("latin-1"),
            "gb18030",
            r"a\.txt, line 2: byte 0xe9 at column 4 is not valid gb18030: name",
        ),
        (CHINESE.encode("gb18030"), "utf-16", r"a\.txt is not written in utf-16 \(UTF-16 stream does not start"),
        (b"ok\nb\x81d\n", "cp1252", r"a\.txt, line 2: byte 0x81 at column 2 is not valid cp1252: name another"),
        ("ok\n".encode("utf-16") + b"x", "utf-16", r"a\.txt, line 2: byte 0x78 at column 1 is not valid utf-16"),
        (b"ok\n+2AA-\n", "utf-7", r"a\.txt, line 2: half a surrogate pair at column 1 is not valid utf-7"),
        (b"ok", "nonsense", r"^encoding is 'nonsense', which is no encoding of text"),
        (b"ok", "hex", r"^encoding is 'hex', which is no encoding of text"),
        (b"ok", "undefined", r"^encoding is 'undefined', which is no encoding of text|a\.txt is not written in"),
    ],
)
def test_a_wrong_encoding_is_refused_by_file_and_place(tmp_path, content, encoding, sentence):
    (tmp_path / "a.txt").write_bytes(content)
    good = write_paragraphs(tmp_path / "good.txt", sentences(5))
    data = make_data(train_files=[good, str(tmp_path / "a.txt")], encoding=encoding)
    if encoding == "utf-16":
        data = make_data(train_files=[str(tmp_path / "a.txt")], encoding=encoding)
    with pytest.raises(RecipeError, match=sentence):
        prepare(data, tmp_path / "corpus", quiet=True)
    assert not (tmp_path / "corpus").exists()


def test_the_command_takes_columns_and_encodings(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.jsonl"
    rows = [{"meta": {"text": f"{line} café"}} for line in sentences(5)] + [{"meta": None}]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="latin-1")
    words = ["--train_files", str(tmp_path / "*.jsonl"), "--text_column", "meta.text", "--encoding", "latin-1"]
    monkeypatch.setattr(
        "sys.argv", ["prepare_data.py", *words, "--vocab_size", "300", "--output_dir", str(tmp_path / "o")]
    )
    prepare_data.main()
    printed = capsys.readouterr().out
    assert printed.count("1 row with null in column 'meta.text'") == 1
    assert "0 duplicate and 1 empty documents" in printed
