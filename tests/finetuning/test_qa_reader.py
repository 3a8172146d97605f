"""Questions are read from every common form, answers are where they are said to be, and broken input is named."""

import gzip
import json
import random

import pyarrow
import pyarrow.parquet
import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.question_answering.reading import Answer, nearest, read_questions, rules_of

CONTEXT = "Anna met Bob in Paris. Bob left Paris in May."


def question(number=1, text="Bob", start=9, **changes):
    fields = {"id": f"q{number}", "question": "Who?", "answers": [{"text": text, "answer_start": start}]}
    return {name: value for name, value in {**fields, **changes}.items() if value is not ...}


def squad(*questions, context=CONTEXT):
    return {"version": "x", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def answers_of(tmp_path, *answers):
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return read_questions(write(tmp_path / "x.json", squad(question(answers=given))))[0]


def test_nested_and_flat_files_say_the_same(tmp_path):
    rows = [
        {"id": "q1", "question": "Who?", "context": CONTEXT, "answers": {"text": ["Bob"], "answer_start": [9]}},
        {"id": "q2", "question": "Who?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
    ]
    nested = squad(question(1), question(2, answers=[], is_impossible=True))
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    with gzip.open(tmp_path / "packed.json.gz", "wt") as handle:
        json.dump(nested, handle)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "table.parquet")
    files = {
        "nested.json": nested,
        "indented.json": nested,
        "articles.json": nested["data"],
        "rows.json": rows,
        "data.json": {"version": "1", "data": rows},
    }
    for name, value in files.items():
        write(tmp_path / name, value)
    (tmp_path / "indented.json").write_text(json.dumps(nested, indent=1))
    for name in (*files, "lines.jsonl", "lines.json", "packed.json.gz", "table.parquet"):
        found = read_questions(tmp_path / name)
        assert [(q.id, q.question, q.context) for q in found] == [(f"q{n}", "Who?", CONTEXT) for n in (1, 2)], name
        assert [q.answers for q in found] == [(Answer("Bob", 9),), ()], name


def test_rows_without_an_id_are_numbered(tmp_path):
    rows = [{"question": "Who?", "context": CONTEXT, "answers": {"text": ["Bob"], "answer_start": [9]}}] * 2
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [q.id for q in read_questions(tmp_path / "x.jsonl")] == ["1", "2"]


def test_several_answers_and_further_keys_are_read_as_cmrc_and_drcd_have_them(tmp_path):
    given = [{"id": "1", "text": "Paris", "answer_start": 32}, {"id": "2", "text": "Paris", "answer_start": 16}]
    found = read_questions(write(tmp_path / "x.json", squad(question(answers=given))))[0]
    assert found.answers == (Answer("Paris", 32), Answer("Paris", 16)) and not found.mended


def test_a_wrong_offset_is_replaced_by_the_nearest_occurrence(tmp_path):
    assert answers_of(tmp_path, ("Bob", 11)).answers == (Answer("Bob", 9),)
    assert answers_of(tmp_path, ("Bob", 20)).answers == (Answer("Bob", 23),)
    assert answers_of(tmp_path, ("Bob", -1)).answers == (Answer("Bob", 9),)
    assert answers_of(tmp_path, ("Bob", 10_000)).answers == (Answer("Bob", 23),)
    assert answers_of(tmp_path, ("Bob", 9), ("Paris", 0)).mended == 1


def test_an_answer_that_is_nowhere_is_kept_without_a_place(tmp_path):
    lost = answers_of(tmp_path, ("Carl", 9))
    assert lost.answers == (Answer("Carl", None),) and lost.mended == 1 and lost.is_lost
    assert not answers_of(tmp_path, ("Carl", 9), ("Bob", 9)).is_lost


def test_blanks_around_an_answer_do_not_belong_to_it(tmp_path):
    found = answers_of(tmp_path, (" Bob ", 8))
    assert found.answers == (Answer("Bob", 9),) and not found.mended
    assert answers_of(tmp_path, ("  Bob", 9)).answers == (Answer("Bob", 9),)


def test_an_empty_answer_is_none(tmp_path):
    assert answers_of(tmp_path, ("", -1)).answers == () and not answers_of(tmp_path, ("", -1)).is_lost


def test_the_nearest_occurrence_is_that_of_trying_all():
    draw = random.Random(1)
    for _ in range(300):
        context = "".join(draw.choices("ab", k=12))
        text = "".join(draw.choices("ab", k=draw.randint(1, 3)))
        offset = draw.randint(-3, 15)
        places = [place for place in range(12) if context.startswith(text, place)]
        assert nearest(context, text, offset) == min(places, key=lambda place: abs(place - offset), default=None)


def test_questions_to_predict_for_need_no_answers(tmp_path):
    path = write(tmp_path / "x.json", squad(question(answers=...)))
    assert read_questions(path, labelled=False)[0].answers == ()
    with pytest.raises(RecipeError, match="no 'answers'"):
        read_questions(path)


SCRIPTS = {
    "zh": ["安娜在五月写了这封信 (Anna, 2020)。", "安娜在东京写了这封很长很长的信。信里有一个词。の。"],
    "en": ["Anna (安娜) wrote the letter", "1234 ()", "Анна написала письмо", "안나는 편지를 썼다"],
    "unspaced": [
        "ประเทศไทยมีเมืองหลวงชื่อกรุงเทพ",
        "これは東京で書かれた手紙です",
        "ສະບາຍດີ",
        "ភាសាខ្មែរ",
        "မြန်မာစာ",
        "བོད་སྐད",
    ],
}


@pytest.mark.parametrize(("rules", "context"), [(rules, text) for rules in SCRIPTS for text in SCRIPTS[rules]])
def test_answers_are_compared_as_their_script_asks(tmp_path, rules, context):
    assert rules_of(read_questions(write(tmp_path / "x.json", squad(question(), context=context)))) == rules


BROKEN = {
    "no data": ({"version": "2"}, r"no list 'data' of articles"),
    "data is no list": ({"data": {"a": 1}}, r"no list 'data' of articles"),
    "an article that is none": ({"data": [{"paragraphs": []}, 7]}, r"article 2: 7 \(int\), where an object"),
    "no paragraphs": ({"data": [{"paragraphs": []}, {"title": "t"}]}, r"article 2: there is no 'paragraphs'"),
    "paragraphs is no list": ({"data": [{"paragraphs": {}}]}, r"article 1: 'paragraphs' holds .*where a list"),
    "no qas": ({"data": [{"paragraphs": [{"context": "x"}]}]}, r"article 1, paragraph 1: there is no 'qas'"),
    "no context": ({"data": [{"paragraphs": [{"qas": []}]}]}, r"article 1, paragraph 1: there is no 'context'"),
    "context is null": (squad(question(), context=None), r"article 1, paragraph 1: column 'context' holds null"),
    "context is empty": (squad(question(), context="  "), r"article 1, paragraph 1: the text in column 'context'"),
    "half a character": (squad(question(), context="\ud83d"), r"paragraph 1: column 'context' holds half of a surr"),
    "a question that is none": (squad("Who?"), r"article 1, paragraph 1, question 1: 'Who\?' \(str\), where an obj"),
    "no id": (squad(question(), question(id=...)), r"article 1, paragraph 1, question 2: there is no 'id'"),
    "id is null": (squad(question(id=None)), r"question 1: 'id' holds null"),
    "an id twice": (squad(question(), question()), r"question 2: the id 'q1' is also that of .*question 1"),
    "no question": (squad(question(question=...)), r"paragraph 1, question 1: there is no 'question'"),
    "question is null": (squad(question(question=None)), r"question 1: column 'question' holds null"),
    "answers is text": (squad(question(answers="Bob")), r"question 1: 'answers' holds 'Bob' \(str\), where a list"),
    "an answer is text": (squad(question(answers=["Bob"])), r"question 1, answer 1: 'Bob' \(str\), where an object"),
    "no text": (squad(question(answers=[{"answer_start": 1}])), r"question 1, answer 1: there is no 'text'"),
    "text is null": (squad(question(text=None)), r"question 1, answer 1: column 'text' holds null"),
    "no offset": (squad(question(answers=[{"text": "Bob"}])), r"answer 1: there is no 'answer_start'"),
    "offset is text": (squad(question(start="9")), r"answer 1: 'answer_start' holds '9' \(str\), where a whole"),
    "unequal lists": (
        squad(question(answers={"text": ["Bob"], "answer_start": []})),
        r"question 1: answers have 1 text and 0 answer_starts",
    ),
    "impossible with an answer": (squad(question(is_impossible=True)), r"question 1: is_impossible is true, but"),
    "impossible is text": (squad(question(is_impossible="no")), r"question 1: is_impossible is 'no'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_is_named_with_its_place(name, tmp_path):
    value, message = BROKEN[name]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(value))
    with pytest.raises(RecipeError, match=message) as caught:
        read_questions(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_files_that_are_no_json_and_other_formats_are_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"data": [')
    with pytest.raises(RecipeError, match="not JSON"):
        read_questions(tmp_path / "x.json")
    (tmp_path / "x.txt").write_text("question,context\nWho?,x\n")
    with pytest.raises(RecipeError, match="files must end in"):
        read_questions(tmp_path / "x.txt")


FLAT_CONTEXT = "Bob saw Ann. Ann saw Bob."
FLAT = {
    "a.csv": 'question,context,answer,answer_start\nWho?,"Bob saw Ann. Ann saw Bob.",Bob,21\n'
    'Whom?,"Bob saw Ann. Ann saw Bob.",Ann,\nWhy?,"Bob saw Ann. Ann saw Bob.",,\n',
    "a.tsv": f"question\tcontext\tanswer_text\tstart\nWho?\t{FLAT_CONTEXT}\tBob\t21\nWhom?\t{FLAT_CONTEXT}\tAnn\t\n"
    f"Why?\t{FLAT_CONTEXT}\t\t\n",
    "a.jsonl": "\n".join(
        json.dumps({"question": question, "context": FLAT_CONTEXT, "answer": answer, "answer_start": start})
        for question, answer, start in (("Who?", "Bob", 21), ("Whom?", "Ann", None), ("Why?", None, None))
    ),
    "b.jsonl": "\n".join(
        json.dumps({"question": question, "context": FLAT_CONTEXT, "answers": answers, "answer_start": starts})
        for question, answers, starts in (("Who?", ["Bob"], [21]), ("Whom?", ["Ann"], [None]), ("Why?", [], []))
    ),
    "c.csv": "question,context,answers\n"
    'Who?,Bob saw Ann. Ann saw Bob.,"{""text"": [""Bob""], ""answer_start"": [21]}"\n'
    'Whom?,Bob saw Ann. Ann saw Bob.,Ann\nWhy?,Bob saw Ann. Ann saw Bob.,"{""text"": [], ""answer_start"": []}"\n',
}


@pytest.mark.parametrize("name", FLAT)
def test_answers_in_columns_of_their_own(tmp_path, name):
    path = tmp_path / name
    path.write_text(FLAT[name])
    questions = read_questions(path)
    assert [question.question for question in questions] == ["Who?", "Whom?", "Why?"]
    assert [question.answers for question in questions] == [(Answer("Bob", 21),), (Answer("Ann", 8),), ()]
    assert [(question.mended, question.searched) for question in questions] == [(0, 0), (0, 1), (0, 0)]
    assert [question.answers for question in read_questions(path, labelled=False)] == [(), (), ()]


def test_answers_in_columns_of_a_parquet_file(tmp_path):
    rows = [{"id": "x", "question": "Who?", "context": FLAT_CONTEXT, "answer": "Bob", "answer_start": 21.0}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    [question] = read_questions(tmp_path / "a.parquet")
    assert (question.id, question.answers) == ("x", (Answer("Bob", 21),))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"answer": "Bob", "answer_start": "here"},
            "'answer_start' holds 'here', where the number of the",
        ),
        ({"answers": ["Bob", "Ann"], "answer_start": [0]}, "2 answers and 1 start"),
        ({"answer": 7}, "'answers' holds 7"),
        ({"answers": "{'text': ['Bob']}"}, "column 'answers': not JSON"),
        ({"text": "Bob"}, "there is no 'answers'"),
        ({"answer": "Bob", "is_impossible": "true"}, "is_impossible is true, but there is the answer 'Bob'"),
    ],
)
def test_broken_answers_in_columns_are_named_by_their_line(tmp_path, row, message):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": "Who?", "context": FLAT_CONTEXT, **row}) + "\n")
    with pytest.raises(RecipeError, match=message) as error:
        read_questions(path)
    assert str(error.value).startswith(f"{path}, line 1")
