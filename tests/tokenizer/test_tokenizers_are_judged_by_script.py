"""The report per script counts what one would count by hand."""

import json
import math

import pytest
from helpers.text import CHINESE, sentences, write_paragraphs
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from weft.recipes import judge_tokenizer
from weft.recipes.common.errors import RecipeError
from weft.tokenizer import train
from weft.tokenizer.script_statistics import ScriptReport, byte_fallback_ids, script_of


def report_on(tokenizer, *texts, **options):
    report = ScriptReport(tokenizer)
    for text in texts:
        encoding = tokenizer(text, return_offsets_mapping=True, **options)
        report.add(text, encoding.input_ids, encoding.offset_mapping)
    return report


def test_scripts_are_those_of_unicode():
    expected = {"Latin": "aéß", "Han": "中々", "Hiragana": "の", "Katakana": "ア", "Thai": "ก้", "Devanagari": "कि"}
    expected |= {"Arabic": "مـ"[:1], "Cyrillic": "Ж", "Hangul": "한", "Common": " 1.。ー👍\u0301\u200d", "Other": "𐎀"}
    assert {name: {script_of(character) for character in text} for name, text in expected.items()} == {
        name: {name} for name in expected
    }


def test_the_numbers_of_a_small_text():
    vocabulary = {"<unk>": 0, "<s>": 1, "the": 2, "cat": 3, "中国": 4, "人": 5, "1": 6}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")
    table = report_on(tokenizer, "the cat the dog", "<s> 中国 人 家 1 !").table()
    assert list(table) == ["Latin", "Common", "Han"]
    assert table["Latin"] == {
        "characters": 13,  # three words of three, "dog", and the s of <s>
        "characters_per_token": 13 / 4,
        "unknown_rate": 1 / 4,
        "byte_fallback_rate": 0,
    }
    assert table["Han"]["characters_per_token"] == 4 / 3 and table["Han"]["unknown_rate"] == 1 / 3
    assert table["Common"] == {
        "characters": 3 + 5 + 2 + 2,  # blanks, < and >, 1 and !
        "characters_per_token": 12 / 2,
        "unknown_rate": 1 / 2,
        "byte_fallback_rate": 0,
    }


def test_bytes_of_characters_are_counted_for_bpe_and_unigram():
    bpe = train.train_tokenizer(iter(["the cat"] * 5), "bpe", 270)
    table = report_on(bpe, "cat 中ก", add_special_tokens=False).table()
    assert table["Han"]["characters_per_token"] == table["Thai"]["characters_per_token"] == 1 / 3
    assert table["Han"]["byte_fallback_rate"] == 1 and table["Latin"]["byte_fallback_rate"] == 0
    assert len(byte_fallback_ids(bpe)) == 128  # bytes that are no ASCII
    unigram = train.train_tokenizer(iter(["the cat"] * 5), "unigram", 280)
    table = report_on(unigram, "cat 中").table()
    assert (table["Han"]["characters_per_token"], table["Han"]["byte_fallback_rate"]) == (1 / 3, 1)
    assert table["Latin"]["byte_fallback_rate"] == table["Latin"]["unknown_rate"] == 0


@pytest.mark.parametrize("kind", train.TOKENIZER_TYPES)
def test_characters_and_tokens_add_up(kind):
    texts = [*sentences(10), CHINESE, "नमस्ते 👍"]
    tokenizer = train.train_tokenizer(iter(texts), kind, 600)
    report = report_on(tokenizer, *texts)
    assert sum(row["characters"] for row in report.table().values()) == sum(map(len, texts))
    assert sum(report.tokens.values()) == sum(
        len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts
    )
    assert json.loads(json.dumps(report.table())) == report.table()
    assert len(report.lines()) == 1 + len(report.table())


def test_the_command_judges_a_saved_tokenizer(tmp_path, monkeypatch, capsys):
    tokenizer = train.train_tokenizer(iter(sentences(50)), "wordpiece", 300)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    path = write_paragraphs(tmp_path / "a.txt", ["the river", CHINESE])
    words = ["judge.py", "--tokenizer_name", str(tmp_path / "tokenizer"), "--files", path]
    monkeypatch.setattr("sys.argv", words)
    judge_tokenizer.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'tokenizer'}: {len(tokenizer)} tokens"
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert rows["Han"][2] == "100.0000%" and rows["Latin"][0] == "8" and rows["Latin"][2] == "0.0000%"
    assert math.isclose(float(rows["Han"][1]), 1)
    for wrong, message in ((words[:3], "--files"), ([*words, "--sample_characters", "0"], "sample_characters is 0")):
        monkeypatch.setattr("sys.argv", wrong)
        with pytest.raises(RecipeError, match=message):
            judge_tokenizer.main()
