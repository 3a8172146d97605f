"""Whatever a file of text holds, its documents are read, each of them, or it is refused in a sentence that names it."""

import csv
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from helpers.fuzz import EDITS, TEXT, VALUES, dumped, edited, fuzzed, read_or_refused
from helpers.text import make_data, sentences
from hypothesis import given
from hypothesis import strategies as st

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.prepare import prepare
from weft.recipes.data.text_source import texts_of
from weft.recipes.data.tokenization import document_encoder, load_tokenizer
from weft.tokenizer.train import train_tokenizer

LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\ufeff\t"), min_size=1, max_size=20)
VISIBLE = LINE.filter(lambda line: line.strip())
LINE_ENDS = st.sampled_from(["\n", "\r\n"])


def read(path, **fields):
    return list(texts_of(make_data(train_files=[str(path)], **fields), "train"))


def packed(path, content):
    """Write content as the ending of a path says."""
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(content))
    return path


def csv_of(texts):
    sink = io.StringIO()
    csv.writer(sink).writerows([["id", "text"], *enumerate(texts)])
    return sink.getvalue().encode()


def parquet_of(texts):
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({"text": pyarrow.array(texts, pyarrow.string())})
    pyarrow.parquet.write_table(table, sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


WRITERS = {
    ".txt": lambda texts: "\n\n".join(texts).encode(),
    ".jsonl": lambda texts: "".join(dumped({"text": text}) + "\n" for text in texts).encode(),
    ".json": lambda texts: json.dumps([{"text": text} for text in texts], indent=1, ensure_ascii=False).encode(),
    ".csv": csv_of,
    ".tsv": lambda texts: "".join(f"{a}\t{b}\n" for a, b in [("id", "text"), *enumerate(texts)]).encode(),
    ".parquet": parquet_of,
}


@pytest.mark.parametrize("ending", WRITERS)
@given(edits=EDITS)
@fuzzed(60)
def test_edited_bytes_are_read_or_refused_by_name(tmp_path, ending, edits):
    path = tmp_path / f"a{ending}"
    path.write_bytes(edited(WRITERS[ending](sentences(8)), edits))
    read_or_refused(lambda: read(path), path)


@pytest.mark.parametrize("ending", [".txt.gz", ".jsonl.zst"])
@given(edits=EDITS)
@fuzzed(60)
def test_edited_archives_are_whole_or_refused_by_name(tmp_path, ending, edits):
    path, texts = tmp_path / f"a{ending}", sentences(40)
    whole = packed(path, WRITERS[f".{ending.split('.')[1]}"](texts)).read_bytes()
    path.write_bytes(edited(whole, edits))
    found = read_or_refused(lambda: read(path), path)
    if found is not None and ending == ".txt.gz":  # a .zst frame without a checksum cannot tell
        assert found == texts


@given(documents=st.lists(st.lists(VISIBLE, min_size=1, max_size=3), min_size=1, max_size=4), end=LINE_ENDS)
@fuzzed(60)
def test_paragraphs_and_lines_come_out_as_they_went_in(tmp_path, documents, end):
    path = tmp_path / "a.txt"
    path.write_bytes(f"{end}{end}".join(end.join(lines) for lines in documents).encode())
    assert read(path) == ["\n".join(lines) for lines in documents]
    assert read(path, documents="line") == [line for lines in documents for line in lines]
    assert read(path, documents="file") == ["\n\n".join("\n".join(lines) for lines in documents)]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".csv.zst"])
@given(texts=st.lists(TEXT, min_size=1, max_size=5))
@fuzzed(40)
def test_texts_of_tables_come_out_as_they_went_in(tmp_path, ending, texts):
    path = packed(tmp_path / f"a{ending}", WRITERS[f".{ending.split('.')[1]}"](texts))
    assert read(path) == [text.replace("\r\n", "\n") for text in texts]


@given(rows=st.lists(st.tuples(VISIBLE, LINE), min_size=1, max_size=5))
@fuzzed(40)
def test_fields_between_tabs_come_out_as_they_went_in(tmp_path, rows):
    path = tmp_path / "a.tsv"
    path.write_bytes("".join(f"{one}\t{text}\n" for one, text in [("id", "text"), *rows]).encode())
    assert read(path) == [text for _, text in rows]


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
@given(
    values=st.lists(VALUES | st.fixed_dictionaries({"text": VALUES}), min_size=2, max_size=4),
    column=TEXT | st.just("text.a"),
)
@fuzzed(80)
def test_rows_of_any_structure_are_documents_or_refused(tmp_path, ending, values, column):
    path = tmp_path / f"a{ending}"
    if ending == ".jsonl":  # a list in its first line would be an array of rows
        values = [{}, *values] if isinstance(values[0], list) else values
    path.write_text(dumped(values) if ending == ".json" else "".join(dumped(value) + "\n" for value in values))
    for name in ("text", column):
        found = read_or_refused(lambda name=name: read(path, text_column=name), path)
        assert found is None or len(found) == len(values)


@given(text=st.text('{}[]":,\\ \n0aeu.-', max_size=40), ending=st.sampled_from([".json", ".jsonl", ".csv", ".tsv"]))
@fuzzed(150)
def test_signs_of_syntax_in_any_order_are_read_or_refused(tmp_path, text, ending):
    path = tmp_path / f"a{ending}"
    path.write_text(text or " ")
    read_or_refused(lambda: read(path, text_column="a"), path)


@given(
    content=st.binary(min_size=1, max_size=60),
    encoding=st.sampled_from(["utf-8", "gb18030", "utf-16", "utf-7", "cp037"]),
)
@fuzzed(150)
def test_bytes_of_any_encoding_are_text_or_refused(tmp_path, content, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    for text in read_or_refused(lambda: read(path, encoding=encoding), path) or []:
        text.encode()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(iter(sentences(40)), "bpe", 300).save_pretrained(folder)
    return folder


@given(texts=st.lists(TEXT | st.sampled_from(["", " ", "again", "again"]), min_size=1, max_size=6))
@fuzzed(25)
def test_every_document_is_in_the_corpus_or_counted_as_dropped(tmp_path_factory, tokenizer, texts):
    folder = tmp_path_factory.mktemp("corpus")
    path = packed(folder / "a.jsonl", WRITERS[".jsonl"]([*texts, "one", "two"]))
    data = make_data(train_files=[str(path)], tokenizer_name=str(tokenizer))
    counted = prepare(data, folder / "out", quiet=True).description
    kept = sum(split["documents"] for split in counted["splits"].values())
    assert kept + counted["empty"] + counted["duplicates"] == len(texts) + 2


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@given(edits=EDITS, place=st.integers(0, 10**6), value=VALUES)
@fuzzed(25)
def test_an_edited_tokenizer_is_loaded_or_refused_by_name(tmp_path, tokenizer, name, edits, place, value):
    folder = tmp_path / "edited"
    folder.mkdir(exist_ok=True)
    whole = {path.name: path.read_text() for path in tokenizer.iterdir()}
    for each, content in whole.items():
        (folder / each).write_text(content)
    settings = json.loads(whole[name])
    key = sorted(settings)[place % len(settings)]
    for content in (edited(whole[name].encode(), edits), dumped({**settings, key: value}).encode()):
        (folder / name).write_bytes(content)
        loaded = read_or_refused(lambda: load_tokenizer(str(folder)), folder)
        if loaded is None:
            continue
        try:
            encode = document_encoder(loaded, make_data())
            (encoded,) = encode(["Number one: the river."])
            assert sum(part.characters for part in encoded) == len("Number one: the river.")
        except RecipeError:
            pass
