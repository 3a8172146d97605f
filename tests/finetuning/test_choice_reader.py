"""Examples with choices are read from the files of every known set, and broken ones are named."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.tables import Record
from weft.recipes.finetuning.tasks.multiple_choice.reading import choices_of_rows, read_choices


def write(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def write_csv(path, *rows):
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def swag(**changes):
    row = {"sent1": "She sits down.", "sent2": "She", "label": "2"}
    return {**row, **{f"ending{i}": f"does {i}." for i in range(4)}, **changes}


def arc(label, names="ABCD", official=True):
    choices = [f"answer {name}" for name in names]
    if official:
        listed = [{"text": text, "label": name} for text, name in zip(choices, names)]
        return {"id": "x", "question": {"stem": "Why?", "choices": listed}, "answerKey": label}
    return {"id": "x", "question": "Why?", "choices": {"text": choices, "label": list(names)}, "answerKey": label}


def test_swag_has_the_first_sentence_and_the_begun_one_with_each_ending(tmp_path):
    for path in (write(tmp_path / "x.jsonl", swag()), write_csv(tmp_path / "x.csv", swag())):
        (found,) = read_choices(path)
        assert found.pairs == tuple(("She sits down.", f"She does {i}.") for i in range(4))
        assert found.texts[found.gold] == "does 2." and found.prompt == "She sits down. She"


def test_swag_with_a_startphrase_only_and_fewer_endings_in_some_rows(tmp_path):
    rows = [swag(label="0"), swag(ending3="", ending2="", label="1")]
    rows = [{"startphrase": "She sits.", **{k: v for k, v in row.items() if not k.startswith("sent")}} for row in rows]
    first, second = read_choices(write_csv(tmp_path / "x.csv", *rows))
    assert first.pairs[0] == ("She sits.", "does 0.") and len(first.pairs) == 4
    assert second.texts == ("does 0.", "does 1.") and second.gold == 1


def test_hellaswag_has_the_context_with_each_ending(tmp_path):
    row = {"ind": 1, "ctx_a": "A man", "ctx_b": "he", "ctx": "A man. He", "endings": ["runs.", "eats."], "label": 1}
    for label in (1, "1"):
        (found,) = read_choices(write(tmp_path / "x.jsonl", {**row, "label": label}))
        assert found.pairs == (("A man. He", "runs."), ("A man. He", "eats.")) and found.gold == 1


def test_piqa_takes_its_labels_from_the_file_beside_it(tmp_path):
    rows = [{"goal": f"open {i}", "sol1": "push", "sol2": "pull"} for i in range(3)]
    path = write(tmp_path / "train.jsonl", *rows)
    with pytest.raises(RecipeError, match=r"no column 'label', and there is no train-labels.lst beside it"):
        read_choices(path)
    assert [example.gold for example in read_choices(path, labelled=False)] == [None] * 3
    (tmp_path / "train-labels.lst").write_text("0\n1\n1\n")
    found = read_choices(path)
    assert [example.gold for example in found] == [0, 1, 1]
    assert found[2].pairs == (("open 2", "push"), ("open 2", "pull"))
    (tmp_path / "train-labels.lst").write_text("0\n1\n")
    with pytest.raises(RecipeError, match=r"train-labels.lst has 2 labels for the 3 rows of train.jsonl"):
        read_choices(path)
    (tmp_path / "train-labels.lst").write_text("0\n1\n2\n")
    with pytest.raises(RecipeError, match=r"train.jsonl, line 3: the label '2' is none of the 2 choices"):
        read_choices(path)
    assert read_choices(write(tmp_path / "hub.jsonl", {**rows[0], "label": "1"}))[0].gold == 1


def test_winogrande_puts_the_option_at_the_end_of_the_first_text(tmp_path):
    row = {"sentence": "Ann beat Eve, so _ won.", "option1": "Ann", "option2": "Eve", "answer": "1"}
    ending = {**row, "sentence": "Ann beat _", "answer": "2"}
    first, last = read_choices(write(tmp_path / "x.jsonl", row, ending))
    assert first.pairs == (("Ann beat Eve, so Ann", "won."), ("Ann beat Eve, so Eve", "won.")) and first.gold == 0
    assert last.pairs == (("Ann beat Ann", ""), ("Ann beat Eve", "")) and last.gold == 1
    for sentence, number in (("Ann won.", 0), ("_ beat _", 2)):
        with pytest.raises(RecipeError, match=rf"line 1: the sentence has {number} blanks"):
            read_choices(write(tmp_path / "x.jsonl", {**row, "sentence": sentence}))


def test_arc_is_read_in_its_official_form_and_as_on_the_hub(tmp_path):
    rows = [arc("C"), arc("4", "1234"), arc("E", "ABCDE"), arc("A", "ABC")]
    official = read_choices(write(tmp_path / "x.jsonl", *rows))
    assert [(len(example.pairs), example.gold) for example in official] == [(4, 2), (4, 3), (5, 4), (3, 0)]
    assert official[0].pairs[2] == ("Why?", "answer C")
    rows = [arc("C", official=False), arc("4", "1234", official=False)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert [(example.pairs, example.gold) for example in read_choices(tmp_path / "x.parquet")] == [
        (example.pairs, example.gold) for example in official[:2]
    ]
    with pytest.raises(RecipeError, match="the label '0' is none of the 4 choices: give one of 1, 2, 3, 4"):
        read_choices(write(tmp_path / "x.jsonl", arc("0", "1234")))


@pytest.mark.parametrize("label", [1, "1", "B", "b", "blue", 1.0])
def test_a_label_is_a_number_a_letter_or_the_text(label, tmp_path):
    row = {"context": "The sky.", "question": "Which colour?", "choices": ["red", "blue", "green"], "label": label}
    (found,) = read_choices(write(tmp_path / "x.jsonl", row))
    assert found.gold == 1 and found.pairs[0] == ("The sky. Which colour?", "red")


def test_a_label_that_is_the_text_of_a_choice_means_that(tmp_path):
    row = {"question": "How many?", "choices": ["2", "1", "0"]}
    assert [
        read_choices(write(tmp_path / "x.jsonl", {**row, "label": label}))[0].gold for label in ("2", "1", "0", 2)
    ] == [0, 1, 2, 2]


@pytest.mark.parametrize("name", ["question_stem", "prompt", "context", "article"])
@pytest.mark.parametrize("choices", ["choices", "options"])
def test_other_usual_names_are_known(name, choices, tmp_path):
    (found,) = read_choices(write(tmp_path / "x.jsonl", {name: "Why?", choices: ["a cat", "a dog"], "answer": "B"}))
    assert found.pairs == (("Why?", "a cat"), ("Why?", "a dog")) and found.gold == 1


def test_rows_of_the_hub_are_read_alike():
    rows = [Record(swag(label=label), f"swag, row {label}") for label in ("0", "3")]
    assert [example.gold for example in choices_of_rows(rows)] == [0, 3]
    with pytest.raises(RecipeError, match="swag, row x: it is not said which choice is right"):
        choices_of_rows([Record(swag(label=None), "swag, row x")])


GENERAL = {"question": "Why?", "choices": ["a", "b"], "label": 0}
BROKEN = {
    "unknown columns": ({"text": "x", "label": 1}, r"line 1: no choices among the columns text, label: give a quest"),
    "no prompt": ({"choices": ["a", "b"], "label": 0}, r"line 1: no prompt: give one of the columns question"),
    "no choices": ({"question": {"stem": "Why?"}, "answerKey": "A"}, r"line 1: there are no choices"),
    "one choice": ({**GENERAL, "choices": ["a"]}, r"line 1: there is 1 choice: give at least two"),
    "choices are text": ({**GENERAL, "choices": "a, b"}, r"line 1, choices: 'a, b' \(str\), where a list"),
    "a choice is null": ({**GENERAL, "choices": ["a", None]}, r"line 1, choices, choice 2: .*null"),
    "a choice is empty": ({**GENERAL, "choices": ["a", " "]}, r"line 1, choices, choice 2: .*empty"),
    "question is null": ({**GENERAL, "question": None}, r"line 1: column 'question' holds null"),
    "no label": ({"question": "Why?", "choices": ["a", "b"]}, r"line 1: it is not said which choice is right"),
    "a hidden label": ({**GENERAL, "label": -1}, r"line 1: it is not said which choice is right"),
    "an empty label": ({**GENERAL, "label": ""}, r"line 1: it is not said which choice is right"),
    "a large label": ({**GENERAL, "label": 2}, r"line 1: the label 2 is none of the 2 choices: give a number from 0"),
    "a wrong text": ({**GENERAL, "label": "c"}, r"line 1: the label 'c' is none of the 2 choices"),
    "true as label": ({**GENERAL, "label": True}, r"line 1: the label True is none"),
    "a choice without label": (
        {"question": "Why?", "choices": [{"text": "a"}, {"text": "b", "label": "B"}], "answerKey": "B"},
        r"line 1, choices: \{'text': 'a'\} has not both text and label",
    ),
    "a label twice": (arc("A", "AAB"), r"line 1, choices: the label 'A' is there more than once"),
    "unequal lists": (
        {"question": "Why?", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"},
        r"line 1, choices: 2 texts and 1 label:",
    ),
    "an ending is missing": (swag(ending1=""), r"line 1: the text in column 'ending1' is empty"),
    "an ending is null": (swag(ending1=None), r"line 1: column 'ending1' holds null"),
    "unnumbered endings": ({**swag(), "ending7": "x"}, r"line 1: the endings are numbered \[0, 1, 2, 3, 7\]"),
    "a label of a missing ending": (swag(ending3="", label="3"), r"line 1: the label '3' is none of the 3 choices"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rows_are_named(name, tmp_path):
    row, message = BROKEN[name]
    path = write(tmp_path / "train.jsonl", row)
    with pytest.raises(RecipeError, match=message) as caught:
        read_choices(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_later_row_in_another_form_is_named(tmp_path):
    row = {"goal": "open", "sol1": "push", "sol2": "pull", "label": 0}
    with pytest.raises(RecipeError, match="line 2: no column 'goal': there are question, choices, label"):
        read_choices(write(tmp_path / "x.jsonl", row, GENERAL))
