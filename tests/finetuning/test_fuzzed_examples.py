"""Whatever a file of examples holds, each of them is read, or the file is refused in a sentence that names it."""

import json
from collections import Counter

import pytest
from helpers.fuzz import EDITS, ODD, TEXT, VALUES, dumped, edited, fuzzed, read_or_refused
from hypothesis import given
from hypothesis import strategies as st

from weft.recipes.evaluation import records
from weft.recipes.finetuning.tasks.multiple_choice.reading import read_choices
from weft.recipes.finetuning.tasks.question_answering.reading import read_questions
from weft.recipes.finetuning.tasks.seq2seq.reading import PairColumns, read_pairs, read_parallel
from weft.recipes.finetuning.tasks.text_classification.arguments import TextClassificationArguments
from weft.recipes.finetuning.tasks.text_classification.reading import read_classification
from weft.recipes.finetuning.tasks.token_classification.reading import Reader, read_texts

ANSWERS = {"text": ["river"], "answer_start": [4]}
ARTICLE = {"title": "t", "paragraphs": [{"context": "the river", "qas": [{"id": "1", "question": "q", "answers": []}]}]}


def classify(path):
    data = read_classification(TextClassificationArguments(train_file=str(path), validation_fraction=0.3))
    return [example for split in ("train", "validation") for example in data.splits[split]]


# for each way of reading rows: what one of them looks like, as a function of its number
ROWS = {
    "labels": (classify, lambda i: {"text": f"text {i}", "label": "ab"[i % 2]}),
    "numbers": (classify, lambda i: {"sentence1": f"text {i}", "sentence2": f"t {i}", "label": i / 2}),
    "several labels": (classify, lambda i: {"text": f"text {i}", "labels": ["a", "b"][: i % 3]}),
    "choices": (read_choices, lambda i: {"question": f"q {i}", "choices": ["a", "b"], "label": i % 2}),
    "swag": (read_choices, lambda i: {"sent1": f"s {i}", "sent2": "t", "ending0": "a", "ending1": "b", "label": 0}),
    "winogrande": (read_choices, lambda i: {"sentence": f"{i} _ c", "option1": "a", "option2": "b", "answer": "1"}),
    "arc": (
        read_choices,
        lambda i: {"question": f"{i}", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
    ),
    "answers": (
        read_questions,
        lambda i: {"id": str(i), "question": "q", "context": "the river", "answers": ANSWERS},
    ),
    "pairs": (lambda path: read_pairs(path, PairColumns()), lambda i: {"source": f"s {i}", "target": ["t", "u"]}),
    "tokens": (lambda path: Reader().read(path), lambda i: {"tokens": ["the", "river"], "ner_tags": ["O", "B-LOC"]}),
    "spans": (
        lambda path: Reader().read(path),
        lambda i: {"text": "the river", "entities": [{"start": 4, "end": 9, "label": "LOC"}]},
    ),
    "cluener": (
        lambda path: Reader().read(path),
        lambda i: {"text": "the river", "label": {"LOC": {"river": [[4, 8]]}}},
    ),
    "minimal pairs": (
        lambda path: records.read_pairs([path]),
        lambda i: {"UID": "u", "field": "f", "sentence_good": f"a {i}", "sentence_bad": "b"},
    ),
    "last words": (lambda path: records.read_passages([path], "text"), lambda i: {"text": f"the river {i}"}),
    "questions": (
        lambda path: records.read_questions([path]),
        lambda i: {"query": f"q {i}", "choices": ["a", "b"], "label": 1},
    ),
}


def changed(value, place, new):
    """A value of JSON of which one part, chosen by a number, is another one; objects lose it where that is null."""
    parts = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not parts or place % 3 == 0:
        return new
    chosen, place = parts[place // 3 % len(parts)], place // 3
    inner = changed(value[chosen], place // len(parts), new)
    if isinstance(value, dict):
        others = {name: part for name, part in value.items() if name != chosen}
        return others if inner is None and place % 2 else {**others, chosen: inner}
    return [inner if number == chosen else part for number, part in enumerate(value)]


@pytest.mark.parametrize("kind", ROWS)
@given(places=st.lists(st.integers(0, 10**6), min_size=1, max_size=2), new=ODD | VALUES, row=st.integers(0, 9))
@fuzzed(120)
def test_rows_with_any_part_changed_are_examples_or_refused(tmp_path, kind, places, new, row):
    read, make = ROWS[kind]
    rows = [make(number) for number in range(10)]
    for place in places:
        rows[row] = changed(rows[row], place * 3 + 1, new)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(dumped(each) + "\n" for each in rows))
    found = read_or_refused(lambda: read(path), path)
    assert found is None or len(found) == 10


@pytest.mark.parametrize("kind", ROWS)
@given(rows=st.lists(VALUES, max_size=3), edits=EDITS)
@fuzzed(25)
def test_tables_of_anything_are_refused_by_name(tmp_path, kind, rows, edits):
    read, make = ROWS[kind]
    whole = json.dumps([make(number) for number in range(10)], indent=1).encode()
    for content in (dumped(rows).encode(), edited(whole, edits), b"\n \n", b"[]", b"{}"):
        path = tmp_path / "a.json"
        path.write_bytes(content)
        read_or_refused(lambda path=path: read(path), path)


@given(place=st.integers(0, 10**6), new=ODD | VALUES)
@fuzzed(120)
def test_articles_with_any_part_changed_are_questions_or_refused(tmp_path, place, new):
    path = tmp_path / "a.json"
    path.write_text(dumped(changed({"version": "1", "data": [ARTICLE]}, place * 3 + 1, new)))
    read_or_refused(lambda: read_questions(path), path)


WORD = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=6)
SENTENCES = st.lists(
    st.lists(st.tuples(WORD.filter(lambda word: "#" not in word), st.sampled_from(["O", "B-A", "I-A"])), min_size=1),
    min_size=1,
    max_size=3,
)


@given(sentences=SENTENCES, end=st.sampled_from(["\n", "\r\n"]), between=st.sampled_from([" ", "\t"]))
@fuzzed(60)
def test_words_in_columns_come_out_as_they_went_in(tmp_path, sentences, end, between):
    path = tmp_path / "a.conll"
    blocks = [end.join(f"{word}{between}{tag}" for word, tag in sentence) for sentence in sentences]
    path.write_bytes((end + end).join(blocks).encode())
    found = Reader(format="conll").read(path)
    assert [list(zip(each.words, each.tags)) for each in found] == sentences


CONLL = b"-DOCSTART- O\n\nthe O\nriver B-LOC\n\n# a comment\na O\nstone O\n"
CONLLU = b"# text\n" + b"".join(b"%d\tw%d\tl\tNOUN\tX\t_\t0\td\t_\t_\n" % (i, i) for i in (1, 2)) + b"\n"


@pytest.mark.parametrize("name, whole", [("a.conll", CONLL), ("a.conllu", CONLLU), ("a.txt", CONLL)])
@given(edits=EDITS, text=st.text("\t\n #O-B1_.|=a", max_size=20))
@fuzzed(100)
def test_edited_columns_are_sentences_or_refused(tmp_path, name, whole, edits, text):
    path = tmp_path / name
    for content in (edited(whole, edits), whole + text.encode()):
        path.write_bytes(content)
        for labelled in (True, False):
            read_or_refused(lambda labelled=labelled: Reader().read(path, labelled), path)
        read_or_refused(lambda: read_texts(path), path)


@given(texts=st.lists(TEXT.filter(lambda text: text.strip() and "\n" not in text and "\r" not in text), min_size=1))
@fuzzed(40)
def test_parallel_lines_come_out_as_they_went_in(tmp_path, texts):
    one, other = tmp_path / "a.en", tmp_path / "a.de"
    one.write_text("\n".join(text.removeprefix("\ufeff") or "x" for text in texts), encoding="utf-8")
    other.write_text("\n".join(["x"] * len(texts)), encoding="utf-8")
    found = read_or_refused(lambda: read_parallel(one, other), one)
    if found is not None:
        assert Counter(pair.targets for pair in found) == {("x",): len(texts)}
