"""Cells of Markdown tables show texts of the data as they are, whatever these hold."""

import pytest

from weft.recipes.common.markdown import in_cell, table


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a|b", "a\\|b"),
        ("a\nb\u2028c\td", "a b c d"),
        ("C:\\x", "C:\\\\x"),
        ("<b>", "&lt;b>"),
        ("&lt; & a&b", "&amp;lt; & a&b"),
        ("5 * 3 `x` ~~no~~", "5 \\* 3 \\`x\\` \\~\\~no\\~\\~"),
        ("[a](http://b)", "\\[a\\](http://b)"),
        ("__init__ learning_rate", "\\_\\_init\\_\\_ learning_rate"),
        ("漢字 🙂", "漢字 🙂"),
        ("", ""),
        (0.5, "0.5"),
        (None, "None"),
    ],
)
def test_what_would_be_markup_is_shown_as_text(value: object, written: str) -> None:
    assert in_cell(value) == written


def test_a_cut_never_leaves_half_an_escape() -> None:
    assert in_cell("|" * 10, longest=3) == "\\|\\|\\| ..."
    assert in_cell("abc", longest=3) == "abc"


def test_a_table_has_its_cells_whatever_is_in_them() -> None:
    found = table(("label", "n", ""), [("a|b", "1,000", "x"), ("", "2.5", 7)])
    assert found.splitlines() == ["| label | n | |", "| --- | ---: | --- |", "| a\\|b | 1,000 | x |", "| | 2.5 | 7 |"]
    assert table(("", ""), []) == "| | |\n| --- | --- |"
