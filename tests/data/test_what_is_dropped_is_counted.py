"""Filters and near duplicates: off unless asked for, right in every script, and each dropped document is counted."""

import json
import random
import sys

import numpy as np
import pytest
from helpers.text import CHINESE, make_data, prepare_documents, sentences, texts, write_paragraphs

from weft.recipes.common.errors import RecipeError
from weft.recipes.data import filters, near_duplicates
from weft.recipes.data.filters import letter_share, repeated_line_share, repeated_passage_share
from weft.recipes.data.near_duplicates import NearDuplicates, shingles_of
from weft.recipes.data.prepare import prepare, report
from weft.recipes.data.tokenization import ScriptSample

TABLE = "12 34 56 | 78 90 | 2.5 % 3.5 % | -- -- +++ 11 x"
LINES = "\n".join(["Read more about this and that here."] * 5 + ["A line of its own, and nothing else."])
CHANT = "again and again we sing the very same old song, " * 6
UNSPACED_CHANT = "我们一次又一次地唱着同一首古老的歌曲直到天明也不停止因为大家都喜欢它" * 4


def chinese(seed, length=400):
    """Characters drawn from two thousand, as many as are in everyday use."""
    draw = random.Random(seed)
    return "".join(chr(0x4E00 + draw.randrange(2000)) for _ in range(length))


def long_text(seed):
    return " ".join(sentences(20, seed=seed))


@pytest.mark.parametrize(
    "setting, dropped",
    [
        ({"min_characters": 25}, {"short."}),
        ({"max_characters": 250}, {CHANT, long_text(1)}),
        ({"min_letter_share": 0.5}, {TABLE}),
        ({"max_repeated_line_share": 0.3}, {LINES}),
        ({"max_repeated_passage_share": 0.6}, {LINES, CHANT, UNSPACED_CHANT}),
    ],
)
def test_each_filter_drops_what_it_is_for_and_counts_it(tmp_path, setting, dropped):
    documents = ["short.", TABLE, LINES, CHANT, UNSPACED_CHANT, long_text(1), CHINESE * 2, *sentences(5)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents), encoding="utf-8")
    corpus = prepare(make_data(train_files=[str(path)], **setting), tmp_path / "corpus", quiet=True)
    kept = set(texts(corpus))
    assert kept == set(documents) - {text for text in documents if text in dropped}
    (name,) = setting
    assert corpus.description["filtered"] == {name: len(dropped)}
    assert f"filtered: {len(dropped)} by {name}" in report(corpus)
    assert corpus.description["empty"] == corpus.description["duplicates"] == 0


def test_a_document_counts_once_under_the_first_filter_that_drops_it(tmp_path):
    documents = ["11 22", *sentences(10)]
    corpus = prepare_documents(tmp_path, documents, min_characters=10, min_letter_share=0.5, max_characters=10_000)
    assert corpus.description["filtered"] == {"min_characters": 1, "max_characters": 0, "min_letter_share": 0}
    assert texts(corpus) == documents[1:]


def test_nothing_is_filtered_unless_asked_for(tmp_path):
    corpus = prepare_documents(tmp_path, ["1", TABLE, CHANT, *sentences(5)])
    assert len(corpus.byte_counts) == 8
    assert corpus.description["filtered"] == {} and "filtered" not in report(corpus)


def test_limits_themselves_are_kept(tmp_path):
    documents = ["a" * 10, "b" * 20, "c" * 9, "d" * 21]
    corpus = prepare_documents(tmp_path, documents, min_characters=10, max_characters=20)
    assert texts(corpus) == documents[:2]


def test_validation_files_are_not_filtered(tmp_path):
    held_out = write_paragraphs(tmp_path / "held_out.txt", ["tiny"])
    corpus = prepare_documents(tmp_path, ["mini", *sentences(5)], validation_files=[held_out], min_characters=10)
    assert texts(corpus, "validation") == ["tiny"]
    assert corpus.description["filtered"] == {"min_characters": 1}


def test_the_tokenizer_does_not_learn_from_what_is_dropped(tmp_path):
    documents = [*sentences(20), "QQ"]
    corpus = prepare_documents(tmp_path, documents, tokenizer_type="char", min_characters=5)
    assert "Q" not in corpus.tokenizer().get_vocab()


def test_filters_that_drop_everything_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"no text in text\.txt but for what min_characters dropped"):
        prepare_documents(tmp_path, sentences(5), min_characters=10_000)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"min_characters": 0}, "min_characters is 0"),
        ({"max_characters": -5}, "max_characters is -5"),
        ({"min_letter_share": 1.5}, "min_letter_share is 1.5"),
        ({"max_repeated_line_share": float("nan")}, "max_repeated_line_share is nan"),
        ({"max_repeated_passage_share": -0.1}, "max_repeated_passage_share is -0.1"),
        ({"min_characters": 10, "max_characters": 5}, "min_characters is 10 and max_characters 5"),
        ({"near_duplicate_threshold": 0.0}, "near_duplicate_threshold is 0.0"),
        ({"near_duplicate_threshold": 1.5}, "near_duplicate_threshold is 1.5"),
    ],
)
def test_limits_that_make_no_sense_are_refused(tmp_path, setting, message):
    with pytest.raises(RecipeError, match=message):
        prepare_documents(tmp_path, sentences(5), **setting)
    assert not (tmp_path / "corpus").exists()


def test_shares_are_those_counted_by_hand():
    assert letter_share("ab 1!") == 0.5
    assert letter_share("की 12") == 0.5  # a vowel sign is a letter's mark
    assert letter_share("中文 。。") == 0.5
    assert letter_share(" \n") == 0.0
    assert repeated_line_share("aa\nbb\n aa \nb") == 2 / 7
    assert repeated_line_share("\n\n\n") == 0.0


def naive_repeated_passages(text, length):
    covered, seen = set(), set()
    for first in range(len(text) - length + 1):
        passage = text[first : first + length]
        if passage in seen:
            covered |= set(range(first, first + length))
        seen.add(passage)
    return len(covered) / len(text) if len(covered) else 0.0


@pytest.mark.parametrize("alphabet, length", [("ab", 3), ("ab", 8), ("abcdef", 2), ("中文🙂", 4), ("\0a", 5)])
def test_repeated_passages_are_those_of_the_definition(alphabet, length):
    draw = random.Random(0)
    for size in (0, 1, length - 1, length, length + 1, 20, 200):
        text = "".join(draw.choices(alphabet, k=size))
        assert repeated_passage_share(text, length) == pytest.approx(naive_repeated_passages(text, length), abs=1e-12)


def test_running_text_repeats_little():
    assert repeated_passage_share(chinese(0, 5000)) == 0.0
    assert repeated_passage_share(chinese(0, 100) + chinese(1, 50) + chinese(0, 100)) == 100 / 250
    assert filters.PASSAGE_CHARACTERS <= 50


# Near duplicates.


def jaccard(first, second):
    a, b = set(shingles_of(first).tolist()), set(shingles_of(second).tolist())
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("make", [long_text, chinese])
def test_near_duplicates_are_dropped_and_the_first_is_kept(tmp_path, make):
    pytest.importorskip("datasketch")
    first, other = make(1), make(2)
    near = first[:200] + "X" + first[201:]
    assert jaccard(first, near) > 0.9 > 0.4 > jaccard(first, other)
    documents = [first, other, near, first.upper() + " ", first]
    corpus = prepare_documents(tmp_path, documents, dedup="near")
    assert texts(corpus) == [first, other]
    assert corpus.description["near_duplicates"] == 2
    assert corpus.description["duplicates"] == 1
    assert "dropped: 1 duplicate, 2 near-duplicate and 0 empty documents" in report(corpus)


def test_the_threshold_is_a_share_of_what_two_documents_have():
    pytest.importorskip("datasketch")
    first = chinese(1, 2000)
    half = first[:1500] + chinese(2, 500)
    assert 0.5 < jaccard(first, half) < 0.7
    for threshold, expected in ((0.4, True), (0.8, False)):
        seen = NearDuplicates(threshold)
        assert not seen.is_near(first)
        assert seen.is_near(half) == expected


def test_candidates_below_the_threshold_are_kept():
    """The index alone lets some through whose signatures do not agree in so many places."""
    pytest.importorskip("datasketch")
    seen = NearDuplicates(0.8)
    for seed in range(60):
        base = chinese(seed, 1000)
        assert not seen.is_near(base)
        changed = base[:850] + chinese(seed + 1000, 150)  # about 0.73
        query = seen._signature(shingles_of(changed))
        agreement = max((np.mean(kept == query.hashvalues) for kept in seen.signatures), default=0)
        assert seen.is_near(changed) <= (agreement >= 0.8)


def test_short_documents_are_near_only_to_themselves():
    pytest.importorskip("datasketch")
    seen = NearDuplicates(0.8)
    assert [seen.is_near(text) for text in ("a", "b", "A ", "中", "文", "yes", "no")] == [
        *(False, False, True),
        *(False, False, False, False),
    ]


def test_signatures_do_not_depend_on_how_many_shingles_are_taken_at_once(monkeypatch):
    pytest.importorskip("datasketch")
    shingles = shingles_of(long_text(3))
    whole = NearDuplicates(0.8)._signature(shingles).hashvalues
    monkeypatch.setattr(near_duplicates, "AT_ONCE", 7)
    assert (NearDuplicates(0.8)._signature(shingles).hashvalues == whole).all()


def test_shingles_are_those_of_the_definition():
    text = "Ab  cd\nefÉ gh"
    content = "ab cd efé gh".encode()
    expected = {int.from_bytes(content[i : i + 8], "little") for i in range(len(content) - 7)}
    assert set(shingles_of(text).tolist()) == expected


def test_the_same_documents_are_dropped_every_time(tmp_path):
    pytest.importorskip("datasketch")
    documents = [text for seed in range(15) for text in (chinese(seed), chinese(seed)[:330] + chinese(seed + 100, 70))]
    kept = [texts(prepare_documents(tmp_path / name, documents, dedup="near")) for name in ("a", "b")]
    assert kept[0] == kept[1]
    assert 15 <= len(kept[0]) <= 30


def test_near_duplicates_of_training_text_are_no_validation_text(tmp_path):
    pytest.importorskip("datasketch")
    train = [long_text(1), long_text(2)]
    held_out = write_paragraphs(tmp_path / "held_out.txt", [train[0] + " And more.", long_text(3)])
    corpus = prepare_documents(tmp_path, train, validation_files=[held_out], dedup="near")
    assert texts(corpus, "validation") == [long_text(3)]


def test_validation_files_of_which_nothing_is_left_are_named(tmp_path):
    train = [long_text(1), long_text(2)]
    own, of_training = (tmp_path / name for name in ("own.txt", "of_training.txt"))
    write_paragraphs(own, [long_text(3)])
    write_paragraphs(of_training, train[:1])
    said = report(prepare_documents(tmp_path, train, validation_files=[str(own), str(of_training)]))
    assert f"nothing is left of {of_training}: " in said
    assert "nothing is left" not in report(prepare_documents(tmp_path / "b", train, validation_files=[str(own)]))


def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(RecipeError, match="pip install datasketch"):
        prepare_documents(tmp_path, sentences(5), dedup="near")
    assert not (tmp_path / "corpus").exists()
    prepare_documents(tmp_path, sentences(5))


# What the report says of scripts.


def test_scripts_are_reported_where_there_is_more_than_one(tmp_path):
    corpus = prepare_documents(tmp_path / "one", sentences(10), tokenizer_type="char")
    assert set(corpus.description["scripts"]) == {"Latin", "Common"}
    assert "byte fallback" not in report(corpus)
    documents = [*sentences(10), CHINESE]
    corpus = prepare_documents(tmp_path / "two", documents, tokenizer_type="char")
    assert corpus.description["scripts"]["Han"]["characters"] == sum("\u4e00" <= c <= "\u9fff" for c in CHINESE)
    assert sum(row["characters"] for row in corpus.description["scripts"].values()) == sum(map(len, documents))
    assert "byte fallback" in report(corpus) and "\nHan " in report(corpus)


def test_the_sample_is_spread_over_all_documents_and_bounded(monkeypatch):
    monkeypatch.setattr(ScriptSample, "MOST_CHARACTERS", 1000)
    monkeypatch.setattr(ScriptSample, "MOST_OF_A_DOCUMENT", 50)
    sample, numbers = ScriptSample(), []
    for number in range(5000):
        sample.add(f"{number:05d}" + "x" * (number % 100))
        assert sample.characters == sum(map(len, sample.texts)) <= 1000
    numbers = [int(text[:5]) for text in sample.texts]
    assert max(map(len, sample.texts)) <= 50
    assert len(numbers) >= 10 and len(set(np.diff(numbers))) == 1
    assert numbers[0] == 0 and numbers[-1] >= 5000 - np.diff(numbers)[0]
