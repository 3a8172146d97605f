"""Whatever format a text is in, its documents come out whole, each between its start and end token, and counted."""

import csv
import gzip
import json
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from helpers.text import CHINESE, EMOJI, make_data, pieces, prepare_documents, sentences, texts, write_paragraphs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from weft.recipes.common.errors import RecipeError
from weft.recipes.data import builtin_text
from weft.recipes.data.corpus import Corpus, CorpusWriter
from weft.recipes.data.prepare import prepare, report
from weft.recipes.data.text_source import texts_of
from weft.recipes.pretraining.datasets.packed import ValidationRows

DOCUMENTS = [*sentences(12), CHINESE, EMOJI, 'Two lines,\nwith "quotes", commas and\ttabs.']


def as_text(documents):
    return "\n\n".join(documents).encode()


def as_json_lines(documents):
    return "\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(documents)).encode()


def documents_in(path, **settings):
    """The documents of one file."""
    return list(texts_of(make_data(train_files=[str(path)], **settings), "train"))


def write_csv(path, documents):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(documents))


def write_parquet(path, documents):
    table = pyarrow.table({"id": list(range(len(documents))), "text": list(documents)})
    pyarrow.parquet.write_table(table, path, row_group_size=4)


WRITERS = {
    "a.txt": lambda path, documents: path.write_bytes(as_text(documents)),
    "a.txt.gz": lambda path, documents: path.write_bytes(gzip.compress(as_text(documents))),
    "a.txt.zst": lambda path, documents: path.write_bytes(zstandard.compress(as_text(documents))),
    "a.jsonl": lambda path, documents: path.write_bytes(as_json_lines(documents)),
    "a.json": lambda path, documents: path.write_bytes(as_json_lines(documents)),
    "a.jsonl.gz": lambda path, documents: path.write_bytes(gzip.compress(as_json_lines(documents))),
    "a.jsonl.zst": lambda path, documents: path.write_bytes(zstandard.compress(as_json_lines(documents))),
    "array.json": lambda path, documents: path.write_text(json.dumps([{"text": t} for t in documents], indent=1)),
    "array_of_lines.json": lambda path, documents: path.write_text(
        "[" + ",\n".join(json.dumps({"text": t}) for t in documents) + "]"
    ),
    "object_of_lines.json": lambda path, documents: path.write_text(
        '{"data": [\n' + ",\n".join(json.dumps({"text": t}) for t in documents) + "\n]}\n"
    ),
    "pretty_object.json": lambda path, documents: path.write_text(
        json.dumps({"version": 1, "data": [{"text": t} for t in documents]}, indent=2)
    ),
    "object.json": lambda path, documents: path.write_text(json.dumps({"data": [{"text": t} for t in documents]})),
    "a.csv": write_csv,
    "a.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_documents(tmp_path, name):
    WRITERS[name](tmp_path / name, DOCUMENTS)
    assert documents_in(tmp_path / name) == DOCUMENTS
    corpus = prepare(make_data(train_files=[str(tmp_path / name)]), tmp_path / "corpus", quiet=True)
    assert texts(corpus) == DOCUMENTS


def test_several_files_follow_one_another(tmp_path):
    for i, name in enumerate(("a.parquet", "a.txt", "a.jsonl.zst")):
        WRITERS[name](tmp_path / name, DOCUMENTS[i * 5 : i * 5 + 5])
    paths = [str(tmp_path / name) for name in ("a.parquet", "a.txt", "a.jsonl.zst")]
    assert list(texts_of(make_data(train_files=paths), "train")) == DOCUMENTS


def test_a_txt_file_can_be_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("First part.\n\n\n  Second part.\n")
    assert documents_in(tmp_path / "a.txt", documents="file") == ["First part.\n\n\n  Second part.\n"]
    assert documents_in(tmp_path / "a.txt") == ["First part.", "  Second part."]


def test_each_line_of_a_txt_file_can_be_one_document(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"  First one.\r\nSecond one.\n\n \nThird one.")
    assert documents_in(tmp_path / "a.txt", documents="line") == ["  First one.", "Second one.", "Third one."]


def test_a_folder_that_datasets_can_load_is_a_source(tmp_path):
    (tmp_path / "set").mkdir()
    WRITERS["a.jsonl"](tmp_path / "set" / "train.jsonl", DOCUMENTS)
    assert list(texts_of(make_data(dataset_name=str(tmp_path / "set")), "train")) == DOCUMENTS


def test_the_text_column_can_have_another_name(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "no", "body": "yes"}\n')
    assert documents_in(tmp_path / "a.jsonl", text_column="body") == ["yes"]


def test_windows_line_ends_and_byte_order_mark_are_no_part_of_the_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\r\n")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "four\\r\\nfive"}\r\n')
    paths = [str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")]
    assert list(texts_of(make_data(train_files=paths), "train")) == ["one\ntwo", "three", "four\nfive"]


def test_compressed_files_may_have_several_parts(tmp_path):
    first, second = as_text(DOCUMENTS[:5]) + b"\n\n", as_text(DOCUMENTS[5:])
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(first) + gzip.compress(second))
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(first) + zstandard.compress(second))
    for name in ("a.txt.gz", "a.txt.zst"):
        assert documents_in(tmp_path / name) == DOCUMENTS


def zst_with_a_long_window(content):
    """A frame whose window is larger than what zstd reads without being told to, as `zstd --long=28` writes it."""
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(content) + compressor.flush()


def test_a_zst_file_may_have_a_long_window_and_frames_to_skip(tmp_path):
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    first, second = as_text(DOCUMENTS[:5]) + b"\n\n", as_text(DOCUMENTS[5:])
    parts = (skipped, zst_with_a_long_window(first), zstandard.compress(b""), skipped, zstandard.compress(second))
    (tmp_path / "a.txt.zst").write_bytes(b"".join(parts) + skipped)
    assert documents_in(tmp_path / "a.txt.zst") == DOCUMENTS
    for cut in (len(skipped) - 2, len(b"".join(parts[:2])) - 1, len(b"".join(parts)) + 3):
        (tmp_path / "cut.txt.zst").write_bytes((b"".join(parts) + skipped)[:cut])
        with pytest.raises(RecipeError, match=r"cut.txt.zst is not a whole .zst file"):
            documents_in(tmp_path / "cut.txt.zst")


def test_endings_may_be_written_in_capitals(tmp_path):
    WRITERS["a.txt.zst"](tmp_path / "A.TXT.ZST", DOCUMENTS)
    WRITERS["a.jsonl.gz"](tmp_path / "A.JSONL.GZ", DOCUMENTS)
    assert documents_in(tmp_path / "A.TXT.ZST") == documents_in(tmp_path / "A.JSONL.GZ") == DOCUMENTS


def test_a_large_zst_file_is_read_whole(tmp_path):
    documents = sentences(20000)  # several times the size of any buffer, before and after decompression
    WRITERS["a.txt.zst"](tmp_path / "a.txt.zst", documents)
    assert documents_in(tmp_path / "a.txt.zst") == documents


def test_each_document_has_its_start_and_end_token(tmp_path):
    corpus = prepare_documents(tmp_path, DOCUMENTS)
    tokenizer = corpus.tokenizer()
    for ids, text in zip(pieces(corpus), DOCUMENTS, strict=True):
        inner = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == [tokenizer.bos_token_id, *inner, tokenizer.eos_token_id]
    assert corpus.has_end_tokens


def save_byte_tokenizer(folder, vocab_size=None, **special):
    """A tokenizer of single bytes with the given special tokens, and rows for more ids if asked for."""
    names = [*special.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"unused{i}" for i in range(len(names), vocab_size or 0)]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "special, start, end",
    [
        ({"eos_token": "<end>"}, "<end>", "<end>"),
        ({"cls_token": "[CLS]", "sep_token": "[SEP]"}, "[CLS]", "[SEP]"),
        ({"bos_token": "<a>", "eos_token": "<b>"}, "<a>", "<b>"),
    ],
)
def test_tokenizers_with_other_special_tokens_mark_documents_with_what_they_have(tmp_path, special, start, end):
    name = save_byte_tokenizer(tmp_path / "tokenizer", **special)
    corpus = prepare_documents(tmp_path, DOCUMENTS, tokenizer_name=name)
    tokenizer = corpus.tokenizer()
    start, end = tokenizer.convert_tokens_to_ids([start, end])
    assert all(ids[0] == start and ids[-1] == end for ids in pieces(corpus))
    assert texts(corpus) == DOCUMENTS


def test_documents_can_do_without_special_tokens(tmp_path):
    name = save_byte_tokenizer(tmp_path / "tokenizer", pad_token="<pad>")
    with pytest.raises(RecipeError, match=r"no start or end token.*document_tokens none"):
        prepare_documents(tmp_path, DOCUMENTS, tokenizer_name=name)
    corpus = prepare_documents(tmp_path, DOCUMENTS, tokenizer_name=name, document_tokens="none")
    assert [len(ids) for ids in pieces(corpus)] == [len(text.encode()) for text in DOCUMENTS]
    assert texts(corpus) == DOCUMENTS
    assert not corpus.has_end_tokens


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "char"])
def test_special_tokens_spelt_out_in_a_text_stay_text(tmp_path, kind):
    texts_with_names = ["Write </s> to end, <s> to begin.", "A <pad> and a <mask> and <unk>.", *sentences(4)]
    corpus = prepare_documents(tmp_path, texts_with_names, tokenizer_type=kind)
    assert all(not {0, 1, 2, 3, 4} & set(ids[1:-1]) for ids in pieces(corpus))
    if kind != "wordpiece":
        tokenizer = corpus.tokenizer()
        decoded = [tokenizer.decode(ids[1:-1]) for ids in pieces(corpus)]
        assert decoded == texts_with_names


def test_bytes_are_utf8_bytes_of_the_text(tmp_path):
    corpus = prepare_documents(tmp_path, DOCUMENTS)
    assert corpus.byte_counts.tolist() == [len(text.encode("utf-8")) for text in DOCUMENTS]
    assert len(CHINESE.encode()) == 3 * len(CHINESE)


def test_duplicates_are_dropped_and_counted_unless_asked_for(tmp_path):
    documents = [*DOCUMENTS, DOCUMENTS[0], DOCUMENTS[3], DOCUMENTS[0], DOCUMENTS[0] + " "]
    path = write_paragraphs(tmp_path / "a.txt", documents)
    corpus = prepare(make_data(train_files=[path]), tmp_path / "once", quiet=True)
    assert texts(corpus) == [*DOCUMENTS, DOCUMENTS[0] + " "]
    assert corpus.description["duplicates"] == 3
    corpus = prepare(make_data(train_files=[path], dedup="off"), tmp_path / "all", quiet=True)
    assert texts(corpus) == documents
    assert corpus.description["duplicates"] == 0


def test_empty_documents_are_dropped_and_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in ["one", "", " \n", "two"]))
    corpus = prepare(make_data(train_files=[str(tmp_path / "a.jsonl")]), tmp_path / "corpus", quiet=True)
    assert texts(corpus) == ["one", "two"]
    assert corpus.description["empty"] == 2


def test_whole_documents_are_held_out_by_seed(tmp_path):
    documents = sentences(200)
    path = write_paragraphs(tmp_path / "a.txt", documents)
    chosen = {}
    for seed in (0, 1):
        data = make_data(train_files=[path], validation_fraction=0.1, split_seed=seed)
        corpus = prepare(data, tmp_path / f"corpus{seed}", quiet=True)
        chosen[seed] = texts(corpus, "validation")
        assert len(chosen[seed]) == 20
        assert sorted(chosen[seed] + texts(corpus, "train")) == sorted(documents)
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("fraction", [0.0001, 0.9999])
def test_neither_split_is_empty(tmp_path, fraction):
    corpus = prepare_documents(tmp_path, sentences(3), validation_fraction=fraction)
    assert corpus.description["splits"]["train"]["documents"] >= 1
    assert corpus.description["splits"]["validation"]["documents"] >= 1


def test_validation_files_are_held_out_and_nothing_else(tmp_path):
    train, held_out = sentences(20, seed=1), [*sentences(5, seed=2), CHINESE]
    (tmp_path / "held_out.jsonl").write_bytes(as_json_lines([*held_out, train[0]]))
    corpus = prepare_documents(tmp_path, train, validation_files=[str(tmp_path / "held_out.jsonl")])
    assert texts(corpus, "train") == train
    assert texts(corpus, "validation") == held_out  # the one that was in the training text is a duplicate
    assert corpus.description["duplicates"] == 1


@pytest.mark.parametrize("document_tokens", ["both", "none"])
def test_the_tail_of_every_document_is_scored_once(tmp_path, document_tokens):
    fraction, documents = 0.25, [*sentences(20, words=60), CHINESE]
    name = save_byte_tokenizer(tmp_path / "tokenizer", bos_token="<a>", eos_token="<b>")
    corpus = prepare_documents(
        tmp_path,
        documents,
        tokenizer_name=name,
        validation_split="tail",
        validation_fraction=fraction,
        document_tokens=document_tokens,
    )
    cuts = [int(len(text) * (1 - fraction)) for text in documents]
    tails = [text[cut:] for text, cut in zip(documents, cuts)]
    assert texts(corpus, "train") == [text[:cut] for text, cut in zip(documents, cuts)]
    tokenizer, rows = corpus.tokenizer(), ValidationRows(corpus, 16)
    marked = {ids[0] == tokenizer.bos_token_id for ids in pieces(corpus, "train")}
    assert marked == {document_tokens == "both"}
    assert not any(ids[-1] == tokenizer.eos_token_id for ids in pieces(corpus, "train"))  # there it goes on
    labels = np.concatenate([rows[i]["labels"][rows[i]["is_text"]] for i in range(len(rows))])
    assert tokenizer.decode(labels) == "".join(tails)
    assert rows.byte_count == len("".join(tails).encode())
    assert int(corpus.description["splits"]["validation"]["bytes"]) == rows.byte_count


def test_a_tail_whose_head_has_no_tokens_is_scored_too(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(as_json_lines([" " * 30 + "abcdefghij", "klm nop " * 5]))
    data = make_data(
        train_files=[str(tmp_path / "a.jsonl")],
        tokenizer_type="wordpiece",
        validation_split="tail",
        validation_fraction=0.25,
    )
    corpus = prepare(data, tmp_path / "corpus", quiet=True)
    tokenizer, tail = corpus.tokenizer(), pieces(corpus, "validation")[0]
    assert tail == [1, *tokenizer("abcdefghij", add_special_tokens=False).input_ids, 2]


@pytest.mark.parametrize("vocab_size, dtype", [(1 << 16, "<u2"), ((1 << 16) + 1, "<u4")])
def test_ids_fit_their_type(tmp_path, vocab_size, dtype):
    writer = CorpusWriter(tmp_path, vocab_size)
    writer.add([0, 5, vocab_size - 1], 3, False)
    writer.close({"end_token_id": None})
    corpus = Corpus.open(tmp_path)
    assert corpus.tokens.dtype == np.dtype(dtype)
    assert pieces(corpus) == [[0, 5, vocab_size - 1]]


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path):
    name = save_byte_tokenizer(tmp_path / "tokenizer", vocab_size=70000, eos_token="<end>")
    corpus = prepare_documents(tmp_path, DOCUMENTS, tokenizer_name=name)
    assert corpus.description["dtype"] == "<u4"
    assert texts(corpus) == DOCUMENTS


def test_the_report_counts_what_is_there(tmp_path):
    train, held_out = [*sentences(30), "bbb ccc", EMOJI], ["xyz", "zzz XYZ"]
    held_out_file = write_paragraphs(tmp_path / "held_out.txt", held_out)
    corpus = prepare_documents(
        tmp_path, [*train, train[1]], validation_files=[held_out_file], tokenizer_type="char", vocab_size=20
    )
    description, tokenizer = corpus.description, corpus.tokenizer()
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in (*train, *held_out)]
    for split, documents in (("train", train), ("validation", held_out)):
        assert description["splits"][split] == {
            "documents": len(documents),
            "bytes": sum(len(text.encode()) for text in documents),
            "tokens": sum(len(text) + 2 for text in documents),
        }
    flat = [token for document in ids for token in document]
    unknown = flat.count(tokenizer.unk_token_id) / len(flat)
    assert 0 < unknown < 1
    assert description["unknown_rate"] == unknown
    assert description["characters_per_token"] == 1.0
    lines = report(corpus).splitlines()
    assert lines[1].split() == [
        "train",
        str(len(train)),
        *(f"{description['splits']['train'][n]:,}" for n in ("bytes", "tokens")),
    ]
    assert lines[3] == f"vocabulary 20; characters per token 1.00; unknown tokens {unknown:.4%}"
    assert lines[4] == "dropped: 1 duplicate and 0 empty documents"


def test_characters_per_token_is_that_of_the_text_without_start_and_end(tmp_path):
    corpus = prepare_documents(tmp_path, DOCUMENTS)
    tokens = sum(len(ids) - 2 for ids in pieces(corpus))
    assert corpus.description["characters_per_token"] == sum(map(len, DOCUMENTS)) / tokens


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A standard library of our own, in place of Python's: reading all of it takes many seconds."""
    library = tmp_path / "library"
    for folder in ("package", "package/tests", "site-packages"):
        (library / folder).mkdir(parents=True)
    (library / "plain.py").write_text(
        '"""Of the module."""\nraise SystemExit("imported")\nclass A:\n    """Of the class."""\n'
        '    def f(self):\n        """Of the method.\n\n        Indented.\n        """\n'
    )
    (library / "package" / "deep.py").write_text('async def g():\n    """Of a coroutine."""\n')
    (library / "package" / "bare.py").write_text("x = 1\n")
    (library / "package" / "broken.py").write_text('"""Template."""\ndef %(name)s:\n')
    (library / "package" / "tests" / "test.py").write_text('"""A test."""\n')
    (library / "site-packages" / "other.py").write_text('"""Installed."""\n')
    monkeypatch.setattr(builtin_text.sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    monkeypatch.setattr(builtin_text, "topics", {"second": "Topic two.", "first": "Topic one."})
    builtin_text.embedded_documents.cache_clear()
    yield library
    builtin_text.embedded_documents.cache_clear()


EXPECTED = [
    "Topic one.",
    "Topic two.",
    "Of a coroutine.",
    "Of the module.",
    "Of the class.",
    "Of the method.\n\nIndented.",
]


def test_the_embedded_text_is_read_without_importing_anything(small_library):
    before = set(sys.modules)
    first = builtin_text.embedded_documents()
    assert set(sys.modules) == before
    assert list(first) == EXPECTED
    builtin_text.embedded_documents.cache_clear()
    assert builtin_text.embedded_documents() == first


def test_without_any_file_the_embedded_text_is_the_corpus(small_library, tmp_path):
    corpus = prepare(make_data(), tmp_path / "corpus", quiet=True)
    assert texts(corpus) == EXPECTED


def test_python_carries_enough_text_to_begin_with(monkeypatch):
    monkeypatch.setattr(builtin_text.sysconfig, "get_paths", lambda: {"stdlib": "/nowhere"})
    assert sum(map(len, builtin_text._find_documents())) > 100_000


def test_no_bar_is_shown_without_a_terminal(tmp_path, capsys):
    data = make_data(train_files=[write_paragraphs(tmp_path / "text.txt", DOCUMENTS)])
    prepare(data, tmp_path / "corpus")
    assert not capsys.readouterr().err
