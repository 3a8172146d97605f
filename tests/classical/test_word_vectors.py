"""Pairs of words are read as WordSim-353 has them, or made of Python's own names, and compared by rank."""

from collections import Counter

import numpy as np
import pytest

from weft.recipes.classical.word_vectors import WordPair, agreement, grouped_pairs, python_groups, read_pairs
from weft.recipes.common.errors import RecipeError


def test_pairs_are_read_with_commas_or_tabs_and_with_or_without_a_heading(tmp_path):
    path, expected = tmp_path / "pairs.csv", [WordPair("tiger", "cat", 7.35), WordPair("book", "paper", 7.46)]
    for text in (
        "Word 1,Word 2,Human (mean)\ntiger,Cat,7.35\nbook,paper,7.46\n",
        "tiger\tcat\t7.35\nbook\tpaper\t7.46",
    ):
        path.write_text(text)
        assert read_pairs(path) == expected


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("tiger,cat,7\ntiger,dog\n", "line 2: 'tiger,dog' is no pair of words"),
        ("tiger,cat,7\ntiger,dog,much\n", "line 2"),
        ("", "holds no pairs of words"),
        ("word,word,score\n", "holds no pairs of words"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_line(tmp_path, text, sentence):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(RecipeError, match=sentence):
        read_pairs(path)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_pairs(tmp_path / "missing.csv")


def test_pairs_of_python_are_of_one_list_or_of_two():
    groups = python_groups()
    assert {"while", "import"} <= groups["keywords"] and "valueerror" in groups["exceptions"]
    assert "monday" in groups["days and months"] and not any("_" in word for word in groups["modules"])
    place = {word: name for name, words in groups.items() for word in words}
    counts = Counter(dict.fromkeys(place, 9) | {"while": 3})
    pairs = grouped_pairs(counts, seed=0)
    assert {pair.score == (place[pair.first] == place[pair.second]) for pair in pairs} == {True}
    assert sum(pair.score for pair in pairs) * 2 == len(pairs) > 100
    assert "while" not in {word for pair in pairs for word in pair[:2]}
    assert grouped_pairs(counts, seed=0) == pairs != grouped_pairs(counts, seed=1)


def test_agreement_is_the_rank_correlation_of_cosines():
    vectors = {"a": np.array([1.0, 0]), "b": np.array([1.0, 0.1]), "c": np.array([0, 1.0]), "d": np.zeros(2)}
    rising = [WordPair("a", "b", 9), WordPair("b", "c", 3), WordPair("a", "d", 1)]
    assert agreement(vectors.__getitem__, rising) == pytest.approx(1)
    assert agreement(vectors.__getitem__, [pair._replace(score=-pair.score) for pair in rising]) == pytest.approx(-1)
    assert agreement(vectors.__getitem__, [pair._replace(score=1) for pair in rising]) is None
