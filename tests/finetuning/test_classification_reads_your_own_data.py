"""Tables of one's own are read as they are meant, or refused with a sentence that says what to do."""

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.text_classification.arguments import TextClassificationArguments
from weft.recipes.finetuning.tasks.text_classification.reading import read_classification, read_texts


def write_rows(path: Path, rows: list[dict]) -> str:
    """A file in the format that its name says."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".tsv":
        lines = ["\t".join(names), *("\t".join(str(row[name]) for name in names) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, names)
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def rows_of(labels, text="text", label="label"):
    return [{text: f"text {number}", label: value} for number, value in enumerate(labels)]


def read(folder, rows, ending="jsonl", validation=None, test=None, **changes):
    files = {"train_file": write_rows(folder / f"train.{ending}", rows)}
    for name, other in (("validation", validation), ("test", test)):
        if other is not None:
            files[f"{name}_file"] = write_rows(folder / f"{name}.jsonl", other)
    return read_classification(TextClassificationArguments(**files, **changes))


def refusal(folder, rows, ending="jsonl", **changes):
    with pytest.raises(RecipeError) as error:
        read(folder, rows, ending, **changes)
    return str(error.value)


def labels_of(data, split="train"):
    return [example.label for example in data.splits[split]]


TWO = ["no", "yes"] * 10


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, ending):
    data = read(tmp_path, rows_of(TWO), ending, validation=rows_of(TWO))
    assert data.problem_type == "single_label_classification"
    assert data.names.names == ("no", "yes")
    assert labels_of(data) == TWO
    assert data.splits["train"][3].texts == ("text 3",)
    assert data.name == f"train.{ending}"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([False, True], ("false", "true")),
        ([1.0, 0.0], ("0.0", "1.0")),
        (list(range(11, -1, -1)), tuple(map(str, range(12)))),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_labels_that_are_no_text_keep_their_names(tmp_path, values, names, ending):
    data = read(tmp_path, rows_of(values * 3), ending, validation=rows_of(values))
    assert data.names.names == names
    assert data.problem_type == "single_label_classification"


def test_another_file_may_lack_a_class_and_write_numbers_in_another_way(tmp_path):
    data = read(tmp_path, rows_of([0, 1, 2] * 4), "csv", validation=rows_of([2, 0]), test=rows_of(["1.0"]))
    assert labels_of(data, "validation") == ["2", "0"]
    assert labels_of(data, "test") == ["1"]


def test_without_a_validation_file_a_stratified_part_is_held_out(tmp_path):
    labels = ["rare"] * 10 + ["common"] * 90
    data = read(tmp_path, rows_of(labels))
    assert labels_of(data, "validation").count("rare") == 1
    assert labels_of(data, "validation").count("common") == 9
    assert data.notes == [("validation", "10 examples held out of the training examples")]
    for seed in range(6):
        assert labels_of(read(tmp_path, rows_of(labels), split_seed=seed), "validation").count("rare") == 1
    other = read(tmp_path, rows_of(labels), split_seed=1)
    assert [e.texts for e in other.splits["validation"]] != [e.texts for e in data.splits["validation"]]
    assert read(tmp_path, rows_of(labels)).splits == data.splits


def test_texts_and_label_are_guessed_where_that_is_unambiguous(tmp_path):
    for columns in (
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question", "sentence"),
        ("text",),
        ("foo",),
    ):
        rows = [{"labels": label, **dict.fromkeys(columns, f"text {n}")} for n, label in enumerate(TWO)]
        data = read(tmp_path, rows)
        assert data.text_columns == columns
        assert labels_of(data).count("no") == 9


def test_columns_are_named_where_they_cannot_be_guessed(tmp_path):
    rows = [{"id": "1", "a": f"x{n}", "b": "y", "class": label} for n, label in enumerate(TWO)]
    message = refusal(tmp_path, rows)
    assert "no column is known to hold the label: name it with --label_column (there are id, a, b, class)." in message
    message = refusal(tmp_path, rows, label_column="class")
    assert "no column is known to hold the text: name it with --text_columns (there are id, a, b, class)." in message
    data = read(tmp_path, rows, label_column="class", text_columns="a, b")
    assert data.splits["train"][0].texts == ("x0", "y")
    both = [{"text": "x", "review": "y", "label": label} for label in TWO]
    assert "text and review could hold the text" in refusal(tmp_path, both)
    assert "label and labels could hold the label" in refusal(tmp_path, [{"text": "x", "label": 1, "labels": 2}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_columns": "txt"}, "no column 'txt': there are text, label; name it with --text_columns"),
        ({"label_column": "lab"}, "no column 'lab': there are text, label; name it with --label_column"),
        ({"text_columns": "text,label,text"}, "text_columns names 3 columns: give one, or two"),
        ({"text_columns": "label"}, "name 'label' twice"),
        ({"problem_type": "multi"}, "problem_type is 'multi': choose one of single_label_classification"),
        ({"problem_type": "multi_label_classification"}, "the labels are no lists: give label_separator"),
        ({"problem_type": "regression"}, "the label is 'no', where a regression needs a finite number"),
        ({"label_separator": ""}, "label_separator is empty"),
        ({"thresholds": "all"}, "thresholds is 'all': choose one of label, one"),
        ({"label_smoothing_factor": 1.0}, "label_smoothing_factor is 1.0"),
        ({"glue_submission": True}, "glue_submission is given without task"),
    ],
)
def test_fields_that_do_not_fit_the_data_are_refused(tmp_path, changes, message):
    assert message in refusal(tmp_path, rows_of(TWO), **changes)


def test_columns_cannot_be_given_for_a_task(tmp_path):
    with pytest.raises(RecipeError, match="label_column is given without train_file"):
        read_classification(TextClassificationArguments(task="sst2", data=str(tmp_path), label_column="x"))


@pytest.mark.parametrize(("value", "message"), [(None, "null (None)"), (7, "holds int"), ("  ", "is empty")])
def test_a_text_that_is_none_is_refused_with_its_row(tmp_path, value, message):
    found = refusal(tmp_path, [*rows_of(TWO), {"text": value, "label": "no"}])
    assert message in found
    assert "train.jsonl, line 21" in found


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([*TWO, None], "line 21: the label is missing (None)"),
        ([*TWO, 1], "line 21: the label 1 is a number, where 'no' in"),
        (["yes"] * 8, "all 8 training examples have the label 'yes': two labels are needed"),
        ([["a"], "b"], "line 2: the label is 'b', where a list of labels is needed"),
        ([["a"], ["b", "b"]], "line 2: the labels ['b', 'b'] name one twice"),
        ([["a"], [None]], "line 2: the label is missing"),
        ([[], []], "no training example has any label"),
        ([0.5, 1, None], "line 3: the label is missing (None): give a number"),
        ([0.5, 0.5], "all 2 training examples have the label 0.5"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused_with_their_row(tmp_path, labels, message):
    assert message in refusal(tmp_path, rows_of(labels))


def test_an_unknown_label_in_another_file_is_refused_with_row_value_and_near_miss(tmp_path):
    message = refusal(tmp_path, rows_of(TWO), validation=rows_of(["yes", "yess"]))
    assert "validation.jsonl, line 2: the validation label 'yess' is none" in message
    assert "did you mean 'yes'?" in message
    assert "the test label 'maybe'" in refusal(
        tmp_path, rows_of(TWO), validation=rows_of(["no"]), test=rows_of(["maybe"])
    )


def test_empty_files_and_files_without_rows_are_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("text,label\n")
    for name, message in (("empty.csv", "is empty"), ("header.csv", "holds no examples")):
        with pytest.raises(RecipeError, match=message):
            read_classification(TextClassificationArguments(train_file=str(tmp_path / name)))


def test_a_test_file_without_labels_is_refused_and_told_apart_from_one_that_lacks_some(tmp_path):
    for unlabelled in (rows_of([-1, -1]), rows_of([None, None])):
        message = refusal(tmp_path, rows_of(TWO), validation=rows_of(TWO), test=unlabelled)
        assert "no test example has a label in column 'label'" in message
        assert "predict_file" in message
    assert "line 2: the label is missing" in refusal(tmp_path, rows_of(TWO), test=rows_of(["no", None]))
    assert "no column 'label': there are text" in refusal(tmp_path, rows_of(TWO), test=[{"text": "a"}])


def test_numbers_with_a_fractional_part_make_a_regression(tmp_path):
    for ending in ("csv", "jsonl"):
        data = read(tmp_path, rows_of([0, 1.5, -2, 4] * 5), ending)
        assert data.problem_type == "regression"
        assert sorted(set(labels_of(data))) == [-2.0, 0.0, 1.5, 4.0]
    assert read(tmp_path, rows_of([0, 1, 2] * 5), problem_type="regression").problem_type == "regression"
    single = read(tmp_path, rows_of([1.5, 2.5] * 5), "csv", problem_type="single_label_classification")
    assert single.names.names == ("1.5", "2.5")
    assert "where a regression needs" in refusal(tmp_path, rows_of([0.5, 1.5, float("inf")]), problem_type="regression")


def test_lists_make_several_labels(tmp_path):
    data = read(
        tmp_path, rows_of([["b", "a"], [], ["c"]] * 5, label="labels"), validation=rows_of([["a", "c"]], label="labels")
    )
    assert data.problem_type == "multi_label_classification"
    assert data.names.names == ("a", "b", "c")
    assert labels_of(data)[:3] == [("a", "b"), (), ("c",)]
    assert labels_of(data, "validation") == [("a", "c")]


def test_a_separator_makes_several_labels_of_a_text(tmp_path):
    data = read(tmp_path, rows_of(["b; a", "", "10;9"] * 4), "csv", label_separator=";")
    assert data.names.names == ("9", "10", "a", "b")
    assert set(labels_of(data)) | set(labels_of(data, "validation")) == {("a", "b"), (), ("9", "10")}


def test_columns_of_0_and_1_make_several_labels(tmp_path):
    rows = [{"text": "x", "toxic": a, "rude": b} for a, b in ((1, 0), (0, 0), (1, 1), ("0", "1.0"), (False, True)) * 3]
    data = read(tmp_path, rows, label_column="toxic,rude", validation=rows)
    assert data.names.names == ("toxic", "rude")
    assert labels_of(data)[:5] == [("toxic",), (), ("toxic", "rude"), ("rude",), ("rude",)]
    rows[2]["rude"] = 2
    assert "line 3: column 'rude' holds 2, where 0 or 1 is needed" in refusal(tmp_path, rows, label_column="toxic,rude")


def test_several_labels_are_held_out_by_the_rarest(tmp_path):
    labels = [["common"]] * 80 + [["common", "rare"]] * 20
    data = read(tmp_path, rows_of(labels))
    assert sum("rare" in label for label in labels_of(data, "validation")) == 2


def test_max_train_examples_keeps_the_first_and_must_leave_two_labels(tmp_path):
    data = read(tmp_path, rows_of(TWO), validation=rows_of(TWO), max_train_examples=3)
    assert labels_of(data) == ["no", "yes", "no"]
    assert len(data.splits["validation"]) == 20
    with pytest.raises(RecipeError, match="all 1 training examples have the label"):
        read(tmp_path, rows_of(TWO), validation=rows_of(TWO), max_train_examples=1)


def test_a_file_to_predict_for_needs_the_texts_only(tmp_path):
    data = read(tmp_path, rows_of(TWO))
    path = write_rows(tmp_path / "new.csv", [{"id": 1, "text": "neu"}])
    assert [example.texts for example in read_texts(Path(path), data)] == [("neu",)]
    path = write_rows(tmp_path / "other.csv", [{"id": 1, "txt": "neu"}])
    with pytest.raises(RecipeError, match="no column 'text': there are id, txt"):
        read_texts(Path(path), data)


def test_a_folder_that_datasets_can_load_is_read_like_a_data_set_of_the_hub(tmp_path):
    write_rows(tmp_path / "train.csv", rows_of(TWO))
    write_rows(tmp_path / "test.csv", rows_of(["yes"]))
    data = read_classification(TextClassificationArguments(dataset_name=str(tmp_path)))
    assert {split: len(examples) for split, examples in data.splits.items()} == {
        "train": 18,
        "validation": 2,
        "test": 1,
    }
    with pytest.raises(RecipeError, match="cannot be loaded"):
        read_classification(TextClassificationArguments(dataset_name=str(tmp_path / "nowhere")))
