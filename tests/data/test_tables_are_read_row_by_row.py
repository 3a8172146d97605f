"""Tables are read row by row, in the memory of a few rows, and a row that is not whole is refused, never cut."""

import gzip
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
from helpers.text import make_data, sentences, write_paragraphs

from weft.recipes.common.errors import RecipeError
from weft.recipes.data import tables, text_files
from weft.recipes.data.prepare import prepare
from weft.recipes.data.streaming.documents import BlockArguments, DocumentStream
from weft.recipes.data.text_source import texts_of

LONG = "a long document of many words " * 40
NUMBER = 4000  # of such documents: 5 MB


def write_many(folder, ending):
    path = folder / f"many{ending}"
    if ending == ".parquet":
        table = pyarrow.table({"id": range(NUMBER), "text": [f"{i} {LONG}" for i in range(NUMBER)]})
        pyarrow.parquet.write_table(table, path, row_group_size=200, compression="none", use_dictionary=False)
        return path
    lines = {
        ".jsonl": (json.dumps({"id": i, "text": f"{i} {LONG}"}) for i in range(NUMBER)),
        ".csv": ("id,text", *(f'{i},"{i} {LONG}"' for i in range(NUMBER))),
        ".tsv": ("id\ttext", *(f"{i}\t{i} {LONG}" for i in range(NUMBER))),
    }[ending.removesuffix(".gz")]
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content, 1) if ending.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".tsv"])
def test_a_row_is_given_before_the_lines_behind_it_are_read(tmp_path, monkeypatch, ending):
    path, read = write_many(tmp_path, ending), []
    lines_of = text_files.read_lines

    def counted(path, encoding):
        for number, text in lines_of(path, encoding):
            read.append(number)
            yield number, text

    monkeypatch.setattr(tables, "read_lines", counted)
    for row, _ in zip(tables.read_records(path), range(5)):
        assert row.values["text"].endswith(LONG)
        assert len(read) <= int(row.values["id"]) + 2
    assert len(read) <= 7


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".csv", ".tsv"])
def test_rows_of_lines_take_the_memory_of_a_few(tmp_path, ending):
    path = write_many(tmp_path, ending)
    tracemalloc.start()
    assert sum(1 for _ in tables.read_records(path)) == NUMBER
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_rows_of_parquet_take_the_memory_of_a_few(tmp_path):
    path, before, peak = write_many(tmp_path, ".parquet"), pyarrow.total_allocated_bytes(), 0
    for _ in tables.read_records(path):
        peak = max(peak, pyarrow.total_allocated_bytes() - before)
    assert path.stat().st_size > 4_000_000
    assert peak < 3_000_000


def test_rows_before_a_broken_place_of_parquet_are_given(tmp_path):
    path = write_many(tmp_path, ".parquet")
    content = bytearray(path.read_bytes())
    content[2_000_000:2_050_000] = b"\xff" * 50_000
    path.write_bytes(content)
    read = 0
    with pytest.raises(RecipeError, match=rf"^{path} is broken after row \d\d\d+ \("):
        for _ in tables.read_records(path):
            read += 1
    assert 1000 <= read < 2000


COMMA = "1,whole\n2,cut at this, comma\n3,whole\n"
REFUSAL = r"mine\.csv, line 3: 3 fields, where 2 are needed \(id, text\): mend the line\.$"


@pytest.fixture
def comma(tmp_path):
    """A table with a text that nobody put between quotes."""
    path = tmp_path / "mine.csv"
    path.write_text("id,text\n" + COMMA)
    return str(path)


def test_text_with_an_unquoted_comma_is_not_cut_in_preparation(comma, tmp_path):
    with pytest.raises(RecipeError, match=REFUSAL):
        prepare(make_data(train_files=[comma]), tmp_path / "corpus", quiet=True)
    assert not (tmp_path / "corpus").exists()
    good = write_paragraphs(tmp_path / "good.txt", sentences(5))
    with pytest.raises(RecipeError, match=REFUSAL):
        prepare(make_data(train_files=[good], validation_files=[comma]), tmp_path / "corpus", quiet=True)


def test_text_with_an_unquoted_comma_is_not_cut_in_a_stream(comma):
    stream, read = DocumentStream(BlockArguments(train_files=[comma])), []
    with pytest.raises(RecipeError, match=REFUSAL):
        read.extend(text for text, _ in stream.block(10**6))
    assert read == ["whole"]


def test_quoted_commas_and_line_ends_are_text(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('id,text\n1,"one, two"\n2,"three\nfour ""five"""\n\n3,\n')
    assert list(texts_of(make_data(train_files=[str(path)]), "train")) == ["one, two", 'three\nfour "five"', ""]


def test_tables_between_tabs_are_text_too(tmp_path):
    path = tmp_path / "mine.tsv.gz"
    path.write_bytes(gzip.compress(b'id\ttext\n1\tone, "two"\n2\t\xe4\xb8\xad\xe5\x9b\xbd\n'))
    assert list(texts_of(make_data(train_files=[str(path)]), "train")) == ['one, "two"', "中国"]
