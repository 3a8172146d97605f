"""A number stands with its noun in the right form, many names are told by the first ones, and texts of others do no
harm."""

import pytest

from weft.recipes.common.wording import counted, printable, some_of


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


@pytest.mark.parametrize(
    "text",
    [
        "an ordinary line\n\tand another",
        "\u3000\u3000\u4e2d\u6587",  # Chinese, with the blanks that a paragraph begins with
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, with a joiner inside of the word
        "\u0915\u094d\u200d\u0937",  # Hindi
        "10\u00a0000\u202f\u20ac, exam\u00adple",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",  # a family
    ],
)
def test_text_of_any_script_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb\x07", "a\\x1b[2Jb\\x07"),
        ("one\rother\x9b2J\x7f", "one\\rother\\x9b2J\\x7f"),
        ("if \u202e\u2066else\u2069", "if \\u202e\\u2066else\\u2069"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()
