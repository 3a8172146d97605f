"""Labels have the names that the user gave them, from the file to the model's config and back."""

import math

import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.task import label_fields
from weft.recipes.finetuning.tasks.text_classification.class_weights import weights_of
from weft.recipes.finetuning.tasks.text_classification.labels import LabelNames, collect_names, name_of


def names_of(*values):
    return collect_names((value, f"row {number}") for number, value in enumerate(values)).names


def refusal(*values):
    with pytest.raises(RecipeError) as error:
        names_of(*values)
    return str(error.value)


def test_twelve_classes_are_sorted_by_number_whether_numbers_or_text():
    shuffled = [7, 0, 11, 3, 10, 1, 9, 2, 8, 4, 6, 5]
    assert names_of(*shuffled) == tuple(str(number) for number in range(12))
    assert names_of(*map(str, shuffled)) == tuple(str(number) for number in range(12))
    assert names_of(*(f"class {number}" for number in shuffled)) == tuple(f"class {number}" for number in range(12))


def test_numbers_below_zero_and_with_fractions_are_sorted_by_size():
    assert names_of("1.5", "-2", "10", "2") == ("-2", "1.5", "2", "10")


def test_text_is_sorted_by_the_alphabet_and_loses_the_blanks_around_it():
    assert names_of("pos ", "neg", "pos", "中性") == ("neg", "pos", "中性")


@pytest.mark.parametrize(
    ("values", "names"), [((True, False), ("false", "true")), ((1.0, 0.0), ("0.0", "1.0")), ((2, 1.0), ("1.0", "2"))]
)
def test_truth_values_and_floats_are_named_as_they_are_written(values, names):
    assert names_of(*values) == names


def test_another_file_may_write_the_same_label_in_another_way():
    numbers, truth = LabelNames(("0", "1")), LabelNames(("false", "true"))
    assert [numbers.find(value) for value in (1, 1.0, "1.0", "1", " 1 ")] == [1] * 5
    assert [truth.find(value) for value in (True, "True", "true", "TRUE")] == [1] * 4
    assert numbers.find(True) is None
    assert numbers.find("2") is None


def test_two_labels_that_mean_the_same_number_stay_apart():
    names = LabelNames(("01", "1"))
    assert [names.find("01"), names.find("1"), names.find(1), names.find("1.0")] == [0, 1, 1, None]


def test_labels_of_mixed_type_are_refused_with_both_places():
    message = refusal(1, 2, "a")
    assert "row 2: the label 'a' is a text" in message
    assert "1 in row 0 is a number" in message
    assert "truth value" in refusal("yes", True)


@pytest.mark.parametrize("value", [None, "", "  ", math.nan])
def test_a_missing_label_is_refused_with_its_row(value):
    assert "row 1: the label is missing" in refusal("a", value)


def test_a_label_that_is_no_label_is_refused():
    assert "row 0: the label is a dict" in refusal({"a": 1})


def test_an_unknown_label_is_refused_with_row_value_and_near_miss():
    names = LabelNames(("negative", "positive"))
    with pytest.raises(RecipeError) as error:
        names.check("postive", "dev.csv, line 7", "validation")
    message = str(error.value)
    for part in ("dev.csv, line 7", "validation", "'postive'", "did you mean 'positive'?", "'negative'"):
        assert part in message
    with pytest.raises(RecipeError, match="did you mean 'b'"):
        LabelNames(("a", "b")).check("B", "x", "test")


def test_config_fields_name_every_output():
    fields = label_fields(LabelNames(("neg", "pos")).names)
    assert fields == {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}}


def test_an_existing_model_keeps_its_order():
    names = LabelNames(("a", "b", "c"))
    assert names.in_order_of({0: "c", 1: "a", 2: "b"}).names == ("c", "a", "b")
    assert names.in_order_of({"2": "a", "0": "c", "1": "b"}).names == ("c", "b", "a")


def test_a_model_with_other_labels_is_not_taken_over():
    names = LabelNames(("a", "b"))
    for others in (
        {0: "a", 1: "x"},
        {0: "a", 1: "b", 2: "c"},
        {0: "LABEL_0", 1: "LABEL_1"},
        {0: "a", 1: "a"},
        {},
        None,
    ):
        assert names.in_order_of(others) is None


def test_a_model_without_names_has_the_labels_that_are_its_numbers():
    numbers = {n: f"LABEL_{n}" for n in range(12)}
    assert LabelNames(tuple(str(n) for n in range(12))).in_order_of(numbers).names == tuple(str(n) for n in range(12))


def test_weights_are_given_by_name():
    names = LabelNames(("no", "yes", "1=2"))
    assert weights_of(["none"], names, [5.0] * 3) is None
    assert weights_of(["balanced"], names, [5.0, 6.0, 7.0]) == [5.0, 6.0, 7.0]
    assert weights_of(["yes=3", "1=2=0.5"], names, [0.0] * 3) == [1.0, 3.0, 0.5]


@pytest.mark.parametrize("word", ["yes", "yes=0", "yes=-1", "yes=x", "yes=inf", "maybe=2"])
def test_weights_that_make_no_sense_are_refused(word):
    with pytest.raises(RecipeError, match=r"class_weights (has|names)"):
        weights_of([word], LabelNames(("no", "yes")), [1.0, 1.0])


def test_names_are_text():
    assert [name_of(value) for value in (" a ", 3, 1.0, True)] == ["a", "3", "1.0", "true"]
