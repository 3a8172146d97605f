"""A number stands with its noun in the right form, and many names are told by the first ones."""

import pytest

from weft.recipes.common.wording import counted, some_of


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("example",), "0 examples"),
        (1, ("example",), "1 example"),
        (2000, ("example",), "2,000 examples"),
        (1, ("process", "processes"), "1 process"),
        (3, ("process", "processes"), "3 processes"),
    ],
)
def test_numbers_agree_with_their_nouns(number: int, words: tuple[str, ...], said: str) -> None:
    assert counted(number, *words) == said


def test_few_names_are_told_whole() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(list("abcdefgh")) == "a, b, c, d, e, f, g, h"
    assert some_of(list("abcdefghi")) == "a, b, c and 6 more"
