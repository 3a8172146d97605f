"""A number stands with its noun in the right form."""

import pytest

from weft.recipes.common.wording import counted


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
