"""Search by words is BM25, in any script, and is the same however the index came about."""

import math
import random
import string
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import snowballstemmer

from weft.recipes.data.word_index import ARRAYS, K1, B, WordIndex, terms_of
from weft.recipes.searching.build import normal_form
from weft.recipes.searching.show import marked


def wide(word: str) -> str:
    """An ASCII word in the full-width signs of East Asian typography."""
    return "".join(chr(ord(sign) + 0xFEE0) for sign in word)


TEXTS = [
    "The cat sat on the mat.",
    "A cat and another CAT, and a third cat.",
    "Dogs chase cats.",
    "",
    "敏捷的棕色狐狸跳过懒狗。",
    "我们去公园散步吧。",
    f"Σίσυφος pushes {wide('CAT')} uphill",
]


def by_definition(question: str, texts: list[str]) -> np.ndarray:
    """BM25 as the paper has it, with Lucene's inverse document frequency."""
    counts = [Counter(terms_of(text)) for text in texts]
    mean = sum(sum(each.values()) for each in counts) / len(texts)
    scores = []
    for each in counts:
        score = 0.0
        for term in terms_of(question):
            holding = sum(term in other for other in counts)
            rarity = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            score += rarity * each[term] / (each[term] + K1 * (1 - B + B * sum(each.values()) / mean))
        scores.append(score)
    return np.array(scores)


def random_texts(seed: int, number: int = 60) -> list[str]:
    draw = random.Random(seed)
    return [
        " ".join(f"w{min(draw.randrange(40), draw.randrange(40))}" for _ in range(draw.randrange(30)))
        for _ in range(number)
    ]


@pytest.mark.parametrize("question", ["cat", "the cat", "cat cat dogs", "nothing here", "", "狐狸", "公园 cat"])
def test_scores_are_those_of_the_formula(question: str) -> None:
    np.testing.assert_allclose(WordIndex.of(TEXTS).scores(question), by_definition(question, TEXTS), atol=1e-12)
    texts = random_texts(1)
    np.testing.assert_allclose(WordIndex.of(texts).scores("w1 w7 w7"), by_definition("w1 w7 w7", texts), atol=1e-12)


@pytest.mark.parametrize(
    "question, best",
    [("CAT", 1), ("cats", 2), ("狐狸", 4), ("公园", 5), ("σίσυφοσ", 6), (wide("dogs"), 2)],
)
def test_any_script_and_case_is_found(question: str, best: int) -> None:
    assert int(np.argmax(WordIndex.of(TEXTS).scores(question))) == best


def test_terms_are_words_and_neighbours_in_scripts_without_blanks() -> None:
    assert list(terms_of("It's a list_of 3 things!")) == ["it's", "a", "list", "of", "3", "things"]
    assert list(terms_of("狐狸跳。狗")) == ["狐狸", "狸跳", "狗"]


def test_joined_indexes_are_the_index_of_all(tmp_path: Path) -> None:
    texts = random_texts(2)
    draw = random.Random(3)
    whole = WordIndex.of(texts)
    old_rows = sorted(draw.sample(range(60), 40))
    old = WordIndex.of(["w1 gone"] + [texts[row] for row in old_rows] + ["w2 gone too"])
    old.save(tmp_path / "words")
    new_rows = sorted(set(range(60)) - set(old_rows))
    new = WordIndex.of(texts[row] for row in new_rows)
    places = np.array([-1, *old_rows, -1])
    joined = WordIndex.joined([(new, np.array(new_rows)), (WordIndex.load(tmp_path / "words"), places)], 60)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)


def test_files_are_plain_arrays_that_are_not_read_before_they_are_needed(tmp_path: Path) -> None:
    WordIndex.of(TEXTS).save(tmp_path / "words")
    loaded = WordIndex.load(tmp_path / "words")
    assert all(isinstance(getattr(loaded, name), np.memmap) for name in ARRAYS)
    np.testing.assert_array_equal(loaded.scores("the cat"), WordIndex.of(TEXTS).scores("the cat"))


def test_words_of_the_question_are_marked_and_the_text_stays_whole() -> None:
    pieces = list(marked("The Cat sat. 敏捷的狐狸跳", "cat 狐狸跳"))
    assert pieces == [("The ", False), ("Cat", True), (" sat. 敏捷的", False), ("狐狸", True), ("跳", True)]
    assert list(marked("nothing", "cat")) == [("nothing", False)]


def test_a_word_has_one_form_whatever_is_asked_beside_it() -> None:
    """A stemmer works on one word at a time, and the page has a thread for each request."""
    endings = ("ing", "ations", "fulness", "ed", "ies", "ization")
    stems = [f"w{one}ll{other}" for one in string.ascii_lowercase for other in string.ascii_lowercase]
    words = [f"{each}{ending}" for each in stems for ending in endings]
    stem = snowballstemmer.stemmer("english").stemWord
    expected, form, interval = {word: stem(word) for word in words}, normal_form("english"), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            parts = [words[start:] + words[:start] for start in range(0, len(words), len(words) // 4)]
            found = list(pool.map(lambda part: {word: form(word) for word in part}, parts))
    finally:
        sys.setswitchinterval(interval)
    assert all(each == expected for each in found)
