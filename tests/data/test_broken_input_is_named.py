"""Input that cannot be read is refused in a sentence that names the file and the line, and leaves nothing behind."""

import gzip
import json
import re

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from helpers.text import make_data, sentences, write_paragraphs

from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.prepare import prepare
from weft.recipes.data.streaming.documents import BlockArguments

GOOD = b'{"text": "a good line"}\n'
TABLE = "\n".join(json.dumps({"text": text}) for text in sentences(300)).encode()


def parquet_bytes(values, column="text"):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({column: values}), sink, compression="none", use_dictionary=False)
    return sink.getvalue().to_pybytes()


def torn_parquet():
    """A file whose footer is whole and whose pages are not."""
    content = bytearray(parquet_bytes(sentences(300)))
    content[100:4000] = b"\xff" * 3900
    return bytes(content)


# name of the file, its content, and what the message says after the file's path
BROKEN = {
    "bad utf-8": ("a.txt", b"good\n\nbad \xe9 here\n", ", line 3: byte 0xe9 at column 5 is not valid UTF-8"),
    "bad utf-8 after a byte order mark": ("a.txt", b"\xef\xbb\xbfab\xff\n", ", line 1: byte 0xff at column 3"),
    "bad utf-8 in json": ("a.jsonl", GOOD + b'{"text": "\xff"}\n', ", line 2: byte 0xff at column 11"),
    "bad utf-8 in csv": ("a.csv", b"text\nok\n\xff\n", ", line 3: byte 0xff at column 1"),
    "utf-16": (
        "a.txt",
        "text".encode("utf-16"),
        ", line 1: byte 0xff at column 1 is not valid UTF-8: it begins as UTF-16 does; convert the file",
    ),
    "no such column in json": ("a.jsonl", GOOD + b'{"body": "x", "id": 1}\n', ", line 2: no column 'text': there are"),
    "no such column in csv": ("a.csv", b"id,body\n1,x\n", ", line 2: no column 'text': there are id, body"),
    "no such column in parquet": ("a.parquet", parquet_bytes(["x"], "body"), ": no column 'text': there are body"),
    "not json": ("a.jsonl", GOOD + GOOD + b'{"text": "x\n', ", line 3: not JSON ("),
    "a torn array over many lines": ("a.json", b'[\n{"text": "x"},\n\n{"text"]\n', ": not JSON (Expecting ':'"),
    "a torn array in one line": ("a.json", b'[{"text": "x"}\n', ", line 1: not JSON ("),
    "an array of texts": ("a.json", b'[{"text": "x"}, "y"]', ", entry 2: a str, where an object is needed"),
    "a list a line": ("a.jsonl", GOOD + b'["x"]\n', ", line 2: a list, where an object is needed"),
    "deep nesting": ("a.jsonl", b"[" * 100_000, ", line 1: nested too deeply"),
    "a number for text": ("a.jsonl", GOOD + b'{"text": 5}\n', ", line 2: column 'text' holds int"),
    "a number in a list of texts": ("a.jsonl", GOOD + b'{"text": ["x", 5]}\n', ", line 2, text 2: column 'text' holds"),
    "no such field in an object": (
        "a.jsonl", b'{"text": {"a": "x"}}\n', ", line 1: column 'text' holds dict, where text is needed"
    ),
    "half a surrogate pair": ("a.jsonl", GOOD + b'{"text": "x \\ud83d"}\n', ", line 2: column 'text' holds half of"),
    "a short csv row": ("a.csv", b"id,text\n1,ok\n2\n", ", line 3: 1 field, where 2 are needed (id, text)"),
    "an unquoted comma": ("a.csv", b"id,text\n1,ok\n2,one, two\n", ", line 3: 3 fields, where 2 are needed (id, text)"),
    "an unquoted comma in the text alone": ("a.csv", b"text\none, two\n", ", line 2: 2 fields, where 1 are needed"),
    "a column twice": ("a.csv", b"text,text\n1,2\n", ", line 1: the column 'text' is there more than once"),
    "a short tsv row": ("a.tsv", b"id\ttext\n1\n", ", line 2: 1 field between tabs, where 2 are needed (id, text)"),
    "an open quote": ("a.csv", b'text\n"ok"\n"never closed\n', ", line 3: not CSV from here on ("),
    "numbers in parquet": ("a.parquet", parquet_bytes([1, 2]), ", row 0: column 'text' holds int"),
    "not parquet": ("a.parquet", b"PAR1 is only how it begins", " is not a parquet file ("),
    "torn parquet": ("a.parquet", torn_parquet(), " is broken after row 0 ("),
    "an empty file": ("a.txt", b"", " is empty"),
    "an unknown ending": ("a.docx", b"x", " ends in '.docx': files must end in .txt, .jsonl"),
    "an unknown ending under compression": ("a.tar.gz", b"x", " ends in '.gz': files must end in .txt, .jsonl"),
    "no gzip": ("a.txt.gz", b"plain text", " is not a whole .gz file"),
    "half a gzip": ("a.jsonl.gz", gzip.compress(TABLE)[:1500], " is not a whole .gz file"),
    "a gzip without its last byte": ("a.jsonl.gz", gzip.compress(TABLE)[:-1], " is not a whole .gz file"),
    "a gzip with a wrong checksum": ("a.jsonl.gz", gzip.compress(TABLE)[:-8] + bytes(8), " is not a whole .gz file"),
    "no zst": ("a.txt.zst", b"plain text", " is not a whole .zst file"),
    "half a zst": ("a.txt.zst", zstandard.compress(TABLE)[:1500], " is not a whole .zst file"),
    "a zst without its last byte": ("a.txt.zst", zstandard.compress(TABLE)[:-1], " is not a whole .zst file"),
    "the first bytes of a zst": ("a.txt.zst", zstandard.compress(TABLE)[:3], " is not a whole .zst file"),
    "a zst with rubbish behind it": ("a.txt.zst", zstandard.compress(TABLE) + b"rubbish", " is not a whole .zst file"),
}  # fmt: skip


def refusal(data, folder):
    """The sentence with which preparing `data` is refused; nothing but the lock may be left beside the input."""
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(RecipeError) as caught:
        prepare(data, folder / "corpus", quiet=True)
    assert {path.name for path in folder.iterdir()} - before <= {".corpus.lock"}
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", ")"))
    return message


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named(tmp_path, case):
    name, content, expected = BROKEN[case]
    path = tmp_path / name
    path.write_bytes(content)
    good = write_paragraphs(tmp_path / "good.txt", sentences(5))
    message = refusal(make_data(train_files=[good, str(path)]), tmp_path)
    assert message.startswith(f"{path}{expected}")


@pytest.mark.parametrize("case", ["bad utf-8", "not json", "half a zst", "an empty file"])
def test_a_broken_validation_file_is_named_too(tmp_path, case):
    name, content, expected = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    good = write_paragraphs(tmp_path / "good.txt", sentences(5))
    message = refusal(make_data(train_files=[good], validation_files=[str(tmp_path / name)]), tmp_path)
    assert message.startswith(f"{tmp_path / name}{expected}")


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path):
    (tmp_path / "folder.txt").mkdir()
    assert refusal(make_data(train_files=[str(tmp_path / "no.txt")]), tmp_path).startswith(
        f"{tmp_path}/no.txt is missing"
    )
    message = refusal(make_data(train_files=[str(tmp_path / "folder.txt")]), tmp_path)
    assert message.startswith(f"folder {tmp_path}/folder.txt has no file that ends in .txt, .jsonl")


def test_text_of_blanks_only_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_text(" \n\n \n")
    assert refusal(make_data(train_files=[str(tmp_path / "a.txt")]), tmp_path) == "there is no text in a.txt."


def test_one_document_cannot_be_split_and_the_ways_out_are_named(tmp_path):
    path = write_paragraphs(tmp_path / "a.txt", ["only one document, although of many words"])
    message = refusal(make_data(train_files=[path]), tmp_path)
    assert "one document in a.txt" in message
    assert "--validation_files" in message and "--validation_split tail" in message
    assert "--documents" not in message
    prepare(make_data(train_files=[path], validation_split="tail"), tmp_path / "tail", quiet=True)


@pytest.mark.parametrize(
    "given, content, helps",
    [
        ("blank-line", "\n".join(sentences(9)), "--documents line, or --validation_files"),
        ("file", "\n".join(sentences(9)), "--documents line, or --validation_files"),
        ("file", "\n\n".join(sentences(9)), "--documents blank-line, or --documents line, or --validation_files"),
        ("line", "one line alone", "--validation_files"),
        ("blank-line", "one line\n" * 9, "--validation_files"),
    ],
)
def test_another_division_of_one_document_is_named_if_it_helps(tmp_path, given, content, helps):
    (tmp_path / "a.txt").write_text(content)
    kinds = {DataArguments: ", or --validation_split tail.", BlockArguments: "."}
    for kind, rest in kinds.items():
        data = kind(train_files=[str(tmp_path / "a.txt")], documents=given, vocab_size=300)
        message = refusal(data, tmp_path)
        assert message.endswith(f"in a.txt, so none can be held out: give {helps}{rest}")


def test_validation_text_that_is_all_training_text_is_refused(tmp_path):
    documents = sentences(5)
    train = write_paragraphs(tmp_path / "train.txt", documents)
    held_out = write_paragraphs(tmp_path / "held_out.txt", documents[:2])
    message = refusal(make_data(train_files=[train], validation_files=[held_out]), tmp_path)
    assert "no text to evaluate on" in message and "--dedup off" in message


@pytest.mark.parametrize("name", ["documents", "dedup", "validation_split", "tokenizer_type", "document_tokens"])
def test_an_unknown_choice_is_refused_with_the_known_ones(tmp_path, name):
    message = refusal(make_data(**{name: "nonsense"}), tmp_path)
    assert re.match(rf"{name} is 'nonsense'.*: choose one of \w+.*, \w+", message)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_a_fraction_outside_of_its_range_is_refused(tmp_path, fraction):
    assert refusal(make_data(validation_fraction=fraction), tmp_path).startswith(f"validation_fraction is {fraction}")


def test_two_sources_are_refused(tmp_path):
    path = write_paragraphs(tmp_path / "a.txt", sentences(3))
    message = refusal(make_data(train_files=[path], dataset_name="some/set"), tmp_path)
    assert "both dataset_name and train_files" in message


def test_a_data_set_that_cannot_be_loaded_is_named(tmp_path):
    missing = str(tmp_path / "missing")
    assert refusal(make_data(dataset_name=missing), tmp_path).startswith(
        f"data set {missing!r} (split 'train') cannot be"
    )
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(GOOD)
    assert "nosplit" in refusal(make_data(dataset_name=str(folder), dataset_split="nosplit"), tmp_path)
    message = refusal(make_data(dataset_name=str(folder), text_column="body"), tmp_path)
    assert message.startswith(f"data set {str(folder)!r}, example 0: no column 'body': there are text")
    (folder / "train.jsonl").write_bytes(GOOD + b"{broken\n")
    assert refusal(make_data(dataset_name=str(folder)), tmp_path).startswith(f"data set {str(folder)!r} cannot be read")


@pytest.mark.parametrize("content", [None, "{not json", "{}", '{"model": {"type": "Nonsense"}, "added_tokens": []}'])
def test_a_tokenizer_that_cannot_be_loaded_is_named(tmp_path, content):
    path = write_paragraphs(tmp_path / "a.txt", sentences(3))
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(RecipeError) as caught:
        prepare(make_data(train_files=[path], tokenizer_name=str(folder)), tmp_path / "corpus", quiet=True)
    assert str(caught.value).startswith(f"tokenizer {str(folder)!r} cannot be loaded (")
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("kind, vocab_size", [("bpe", 260), ("char", 5), ("wordpiece", 5), ("unigram", 12)])
def test_a_vocabulary_that_is_too_small_is_refused(tmp_path, kind, vocab_size):
    path = write_paragraphs(tmp_path / "a.txt", sentences(30))
    message = refusal(make_data(train_files=[path], tokenizer_type=kind, vocab_size=vocab_size), tmp_path)
    assert message.startswith(f"vocab_size={vocab_size} is too small")


def test_an_output_folder_that_holds_something_else_is_kept(tmp_path):
    path = write_paragraphs(tmp_path / "a.txt", sentences(3))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name, expected in (("mine", "holds files that are not a prepared corpus"), ("file", "is a file")):
        with pytest.raises(RecipeError, match=f"{tmp_path / name} {expected}"):
            prepare(make_data(train_files=[path]), tmp_path / name, quiet=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "precious"


def test_the_working_folder_itself_is_no_output_folder(tmp_path, monkeypatch):
    path = write_paragraphs(tmp_path / "a.txt", sentences(3))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for name in (".", ""):
        with pytest.raises(RecipeError, match="cannot be the output folder"):
            prepare(
                make_data(train_files=[path]), (tmp_path / "empty" / name).relative_to(tmp_path / "empty"), quiet=True
            )


def test_a_folder_that_is_no_corpus_is_not_opened(tmp_path):
    with pytest.raises(RecipeError, match="is not a prepared corpus"):
        Corpus.open(tmp_path)
    (tmp_path / "corpus.json").write_text('{"format_version": 99}')
    with pytest.raises(RecipeError, match="format version 99"):
        Corpus.open(tmp_path)


def test_commands_end_with_one_sentence_and_status_two(capsys):
    def command():
        raise RecipeError("text.txt is empty: give a file with text.")

    with pytest.raises(SystemExit) as ended:
        run_command(command)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: text.txt is empty: give a file with text.\n"
