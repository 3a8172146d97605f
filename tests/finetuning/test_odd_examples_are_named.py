"""Odd labels, tags, ids and columns of examples are refused by their place, before anything is learnt from them."""

import json

import pytest

from weft.recipes import finetune_classification
from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation import records
from weft.recipes.finetuning.tasks.multiple_choice.reading import read_choices
from weft.recipes.finetuning.tasks.question_answering.reading import read_questions
from weft.recipes.finetuning.tasks.text_classification.arguments import TextClassificationArguments
from weft.recipes.finetuning.tasks.text_classification.labels import collect_names
from weft.recipes.finetuning.tasks.text_classification.reading import read_classification
from weft.recipes.finetuning.tasks.token_classification.reading import Reader

HALF = "\ud83d"
ANSWERS = {"text": ["river"], "answer_start": [4]}


def write(folder, rows):
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def classify(path):
    return read_classification(TextClassificationArguments(train_file=str(path), validation_fraction=0.3))


@pytest.mark.parametrize(
    "read, row",
    [
        (classify, {"text": "a", "label": HALF}),
        (classify, {"text": "a", "label": ["x", HALF]}),
        (Reader().read, {"tokens": ["a"], "ner_tags": [f"B-{HALF}"]}),
        (Reader().read, {"text": "a b", "entities": [{"start": 0, "end": 1, "label": HALF}]}),
        (Reader().read, {"text": "a b", "label": {HALF: {"a": [[0, 0]]}}}),
        (read_questions, {"id": HALF, "question": "q", "context": "the river", "answers": ANSWERS}),
        (lambda path: records.read_pairs([path]), {"sentence_good": "a", "sentence_bad": "b", "UID": HALF}),
        (lambda path: records.read_questions([path]), {"query": HALF, "choices": ["a", "b"], "label": 0}),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_wherever_it_would_be_written(tmp_path, read, row):
    path = write(tmp_path, [row] * 3)
    with pytest.raises(RecipeError, match=rf"^{path}, line 1.* half of a surrogate pair \(U\+D83D\)"):
        read(path)


def test_a_table_of_tags_without_rows_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(RecipeError, match=r"a\.json holds no examples"):
        Reader().read(tmp_path / "a.json")


def test_a_number_too_large_for_a_regression_is_refused_by_its_line(tmp_path):
    path = write(tmp_path, [{"text": f"t {i}", "label": i / 2} for i in range(4)] + [{"text": "t", "label": 10**400}])
    with pytest.raises(RecipeError, match=r"line 5: the label is 10+, where a regression needs a finite number"):
        classify(path)


def test_numbers_of_any_length_sort_labels_by_their_size():
    names = [f"class {number}" for number in ("10", "9" * 5000, "2", "002", "٣")]
    found = collect_names((name, "here") for name in names).names
    assert found == ("class 002", "class 2", "class ٣", "class 10", f"class {'9' * 5000}")


def test_a_label_of_thousands_of_digits_is_none_of_the_choices(tmp_path):
    row = {"question": "q", "query": "q", "choices": ["a", "b"], "label": "9" * 5000}
    with pytest.raises(RecipeError, match=r"line 1: the label '9+' is none of the 2 choices"):
        read_choices(write(tmp_path, [row]))
    with pytest.raises(RecipeError, match=r"line 1: the label is '9+': give the index of a choice"):
        records.read_questions([write(tmp_path, [row])])


@pytest.mark.parametrize("number", ["9" * 5000, f"1-{'9' * 9}"])
def test_a_word_of_conllu_has_a_number_that_a_sentence_can_have(tmp_path, number):
    (tmp_path / "a.conllu").write_text(f"{number}\tw\tl\tNOUN\tX\t_\t0\td\t_\t_\n\n")
    with pytest.raises(RecipeError, match=r"a\.conllu, line 1: no line of CoNLL-U"):
        Reader().read(tmp_path / "a.conllu")


def test_columns_are_those_of_all_rows_and_a_row_that_lacks_one_is_named(tmp_path):
    rows = [{"premise": f"p {i}", "hypothesis": f"h {i}", "label": "ab"[i % 2]} for i in range(6)]
    del rows[0]["premise"]
    with pytest.raises(RecipeError, match=r"a\.jsonl, line 1: no column 'premise'"):
        classify(write(tmp_path, rows))


def test_a_label_may_lie_within_an_object(tmp_path):
    path = write(tmp_path, [{"text": f"t {i}", "meta": {"label": "ab"[i % 2]}} for i in range(6)])
    files = {"train_file": str(path), "validation_file": str(path), "label_column": "meta.label"}
    data = read_classification(TextClassificationArguments(**files))
    assert [example.label for example in data.splits["validation"]] == ["a", "b"] * 3


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("run_name: 2001-99-99\n", r"run\.yaml is not YAML that can be read: month must be in 1..12"),
        ("max_steps: " + "9" * 5000, r"run\.yaml is not YAML that can be read"),
        ("max_steps: " + "[" * 5000, r"run\.yaml is not YAML that can be read"),
        ("train_file: !!map [1]\n", r"run\.yaml is not YAML that can be read"),
        ("max_steps: many\n", r"run\.yaml: argument --max_steps.*: invalid int value: 'many'"),
    ],
)
def test_a_file_of_fields_is_named_whatever_is_wrong_in_it(tmp_path, content, sentence):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(RecipeError, match=sentence):
        finetune_classification.main([str(tmp_path / "run.yaml")])


def test_a_sentence_is_one_line_that_can_be_written_whatever_names_it_quotes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"te\\nxt": "a", "\\ud83d": 1}\n')
    with pytest.raises(RecipeError) as caught:
        records.read_passages([path], "text")
    with pytest.raises(RecipeError) as other:
        records.field_of(records.Record({"te\nxt": 1, HALF: 2}, "here"), "text")
    for error in (caught, other):
        assert "\n" not in str(error.value) and str(error.value).encode()
    assert str(other.value) == r"here: no field 'text': there are te\nxt, \ud83d."
