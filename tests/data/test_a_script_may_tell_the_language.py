"""The language of a text is read off its script, and only where that says it."""

import pytest

from weft.recipes.data.language import language_of_script


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("今天天气很好。我们去公园吧。", "zh"),
        ("Python pandas 编程", None),
        ("今天我们在学校里用 Python 写了一个很小的程序。", "zh"),
        ("今日はとても天気がいいですね。", "ja"),
        ("東京都は日本の首都である。", "ja"),
        ("カタカナ", "ja"),
        ("오늘은 날씨가 좋다.", "ko"),
        ("วันนี้อากาศดี", "th"),
        ("Σήμερα είναι καλός καιρός.", "el"),
        ("დღეს კარგი ამინდია", "ka"),
        ("இன்று வானிலை நன்றாக உள்ளது", "ta"),
        ("The weather is fine today.", None),
        ("Погода сегодня хорошая.", None),
        ("الطقس جميل اليوم", None),
        ("आज मौसम अच्छा है", None),
        ("1234 ... !?", None),
        ("", None),
    ],
)
def test_only_a_script_of_one_language_tells_it(text: str, language: str | None) -> None:
    assert language_of_script([text]) == language
    assert language_of_script(list(text)) == language


def test_no_texts_tell_nothing_and_long_ones_are_read_in_part() -> None:
    assert language_of_script([]) is None
    assert language_of_script(iter(["天" * 500 + "a" * 10_000] * 2)) == "zh"
