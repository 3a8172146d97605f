"""Pairs of texts are what their files say, in every layout, and what is wrong with a file is said with its place."""

import gzip
import json

import pytest
from helpers import sequences as seq

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.tables import Record
from weft.recipes.finetuning.tasks.seq2seq.arguments import Seq2SeqArguments
from weft.recipes.finetuning.tasks.seq2seq.known_tasks import read_all
from weft.recipes.finetuning.tasks.seq2seq.reading import (
    PairColumns,
    pairs_of_records,
    read_pairs,
    read_parallel,
    read_sources,
)
from weft.recipes.finetuning.tasks.seq2seq.scoring import bleu_tokenizer, score_texts


def texts_of(pairs):
    return [(pair.source, pair.targets) for pair in pairs]


@pytest.fixture
def both(tmp_path):
    """The same pairs in lines and in every kind of table."""
    examples = [("a b", "ä b"), ("c, d", 'sagt "e"'), ("f\u2028g", "h")]
    lines = seq.write_lines(tmp_path, "train", examples)
    rows = [{"source": source, "target": target} for source, target in examples]
    tables = [seq.write_rows(tmp_path / "rows.jsonl", rows)]
    tables.append(tmp_path / "rows.json")
    tables[-1].write_text(json.dumps(rows), encoding="utf-8")
    tables.append(tmp_path / "rows.tsv")
    tables[-1].write_text("".join(f"{s}\t{t}\n" for s, t in [("source", "target"), *examples]), encoding="utf-8")
    return examples, lines, tables


def test_lines_and_tables_hold_the_same_pairs(both):
    examples, lines, tables = both
    expected = [(source, (target,)) for source, target in examples]
    assert texts_of(read_parallel(*lines.values())) == expected
    for table in tables:
        assert texts_of(read_pairs(table, PairColumns())) == expected
    packed = lines["train_source"].with_suffix(".gz")
    packed.write_bytes(gzip.compress(lines["train_source"].read_bytes()))
    assert texts_of(read_parallel(packed, lines["train_target"])) == expected
    assert [pair.source for pair in read_sources(tables[0], "source")] == [source for source, _ in examples]
    assert [pair.source for pair in read_sources(packed, "source")] == [source for source, _ in examples]


def test_lists_are_sentences_of_a_source_and_references_or_sentences_of_a_target():
    """Blank sentences, which official files have, say nothing."""
    record = Record({"source": ["One.", " ", "Two."], "target": ["first", "second"]}, "here")
    assert texts_of(pairs_of_records([record], PairColumns())) == [("One. Two.", ("first", "second"))]
    columns = PairColumns(target_lists="sentences")
    assert texts_of(pairs_of_records([record], columns)) == [("One. Two.", ("first second",))]


def test_a_column_may_be_a_field_of_another():
    record = Record({"translation": {"en": "a", "de": "b"}}, "here")
    assert texts_of(pairs_of_records([record], PairColumns("translation.en", "translation.de"))) == [("a", ("b",))]
    with pytest.raises(RecipeError, match="here, column 'translation': no column 'fr': there are en, de"):
        pairs_of_records([record], PairColumns("translation.en", "translation.fr"))


@pytest.mark.parametrize(
    ("sources", "targets", "words"),
    [
        ("a\nb\n", "c\n", "has 2 lines and .*target 1: each line of one needs its line in the other"),
        ("a\n\nb\n", "c\nd\ne\n", "source, line 2 is empty: write its text, or drop the line from every file"),
        ("a\nb\n", "c\n \n", "target, line 2 is empty"),
    ],
)
def test_lines_that_do_not_belong_together_are_named(sources, targets, words, tmp_path):
    (tmp_path / "x.source").write_text(sources)
    (tmp_path / "x.target").write_text(targets)
    with pytest.raises(RecipeError, match=words) as caught:
        read_parallel(tmp_path / "x.source", tmp_path / "x.target")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"source": "a"}, "no column 'target': there are source; name it with --target_column"),
        ({"text": "a", "target": "b"}, "name it with --source_column"),
        ({"source": "a", "target": []}, "the list in column 'target' holds no text"),
        ({"source": ["", " "], "target": "b"}, "the list in column 'source' holds no text"),
        ({"source": "a", "target": None}, "holds null"),
        ({"source": ["a", 3], "target": "b"}, "text 2: column 'source' holds int"),
    ],
)
def test_rows_that_hold_no_texts_are_named(row, words, tmp_path):
    path = seq.write_rows(tmp_path / "x.jsonl", [{"source": "a", "target": "b"}, row])
    with pytest.raises(RecipeError, match=words) as caught:
        read_pairs(path, PairColumns())
    assert "x.jsonl, line 2" in str(caught.value)


def test_tables_are_not_taken_for_lines(tmp_path):
    path = seq.write_rows(tmp_path / "x.jsonl", [{"source": "a"}])
    with pytest.raises(RecipeError, match="plain lines are needed: give it as train_file"):
        Seq2SeqArguments(train_source=str(path), train_target=str(path)).check_files()
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(RecipeError, match=r"files must end in \.csv"):
        Seq2SeqArguments(train_file=str(tmp_path / "x.txt")).check_files()


def test_official_files_of_tasks_are_read(tmp_path):
    for split in ("train", "val"):
        for path in seq.write_lines(tmp_path, split, [("a", "b"), ("c", "d")]).values():
            path.rename(path.with_suffix({".source": ".en", ".target": ".de"}[path.suffix]))
    read = read_all(Seq2SeqArguments(task="multi30k", data=str(tmp_path)))
    assert list(read) == ["train", "validation"]
    assert all(texts_of(pairs) == [("a", ("b",)), ("c", ("d",))] for pairs in read.values())
    (tmp_path / "val.de").unlink()
    with pytest.raises(RecipeError, match=r"val.en is there without .*val.de, which has its targets"):
        read_all(Seq2SeqArguments(task="multi30k", data=str(tmp_path)))
    (tmp_path / "train.tsv").write_text("to title\t本文提出\t方法\nto title\t研究\t题\n", encoding="utf-8")
    read = read_all(Seq2SeqArguments(task="csl", data=str(tmp_path), validation_fraction=0.5))
    assert sorted(texts_of(read["train"] + read["validation"])) == [("本文提出", ("方法",)), ("研究", ("题",))]


def test_texts_that_are_held_out_are_not_learnt(tmp_path):
    path = seq.write_rows(tmp_path / "x.jsonl", [{"source": f"s{i // 2}", "target": f"t{i}"} for i in range(40)])
    read = read_all(Seq2SeqArguments(train_file=str(path)))
    assert not {pair.source for pair in read["train"]} & {pair.source for pair in read["validation"]}
    assert len(read["train"]) + len(read["validation"]) == 40


def test_words_are_those_of_the_language():
    assert bleu_tokenizer(["ein Haus"]) == "13a"
    assert bleu_tokenizer(["基于平方和优化的GPU设计方法"]) == "zh"
    assert bleu_tokenizer(["これは日本語です"]) == "char" == bleu_tokenizer(["สวัสดี"])
    scores = score_texts(["长江大桥的设计方法"], [["长江大桥的新方法", "别的题"]], "zh")
    assert scores["bleu"] > 30 and scores["rougeL"] == pytest.approx(14 / 17)
    assert "tok:zh" in scores["signatures"]["BLEU"]
