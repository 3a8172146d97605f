"""An epoch passes over each source as often as its weight says, and over its documents equally often."""

from collections import Counter
from itertools import pairwise

import pytest
from helpers.masks import write_sources

from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.packed import TrainingRows

ROW = 16
WEIGHTS = (2.5, 1.0, 0.3, 0.07)
EPOCHS = 23


def places_of(span, overlap):
    return [(span.pass_number, span.document, span.first + i) for i in range(len(span.tokens) - overlap)]


@pytest.mark.parametrize("overlap", [0, 1])
def test_an_epoch_takes_weight_times_the_places_of_each_source(tmp_path, overlap):
    corpus, ids = write_sources(tmp_path, WEIGHTS)
    rows = TrainingRows(corpus, ROW, 10**6, seed=0, overlap=overlap)
    sizes = [sum(len(each) - overlap for each in ids[i::4]) for i in range(4)]
    assert rows.num_places == pytest.approx(sum(size * weight for size, weight in zip(sizes, WEIGHTS)), abs=4)
    for epoch in range(4):
        found = Counter()
        for index in range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch):
            spans = rows.spans(index)
            assert sum(len(span.tokens) - overlap for span in spans) == ROW
            for span in spans:
                expected = ids[span.document][span.first : span.first + len(span.tokens)]
                assert span.tokens.tolist() == expected and len(span.tokens) > overlap
                assert span.is_end == (span.first + len(span.tokens) == len(ids[span.document]))
                found[span.document % 4] += len(span.tokens) - overlap
        missing = [size * weight - found[source] for source, (size, weight) in enumerate(zip(sizes, WEIGHTS))]
        assert min(missing) > -1 and sum(missing) < ROW + 4  # less than a row, and what is not whole


@pytest.mark.parametrize("overlap", [0, 1])
def test_nothing_comes_again_before_all_else_has_come_and_nothing_is_lost_between_epochs(tmp_path, overlap):
    """By the concatenated documents of the epochs, which the rows are cut from."""
    corpus, ids = write_sources(tmp_path, WEIGHTS)
    rows = TrainingRows(corpus, ROW, 10**6, seed=0, overlap=overlap)
    taken = [Counter() for _ in WEIGHTS]
    for epoch in range(EPOCHS):
        text = rows._make_epoch(epoch).text
        for document, first, length, number in zip(*(column.tolist() for column in text.columns)):
            assert length > 0
            taken[document % 4].update((number, document, first + i) for i in range(length))
        for source, counts in enumerate(taken):
            every = {(d, i) for d in range(source, 60, 4) for i in range(len(ids[d]) - overlap)}
            share = int(len(every) * WEIGHTS[source])
            assert counts.total() == share * (epoch + 1) and set(counts.values()) <= {1}
            whole, begun = divmod(counts.total(), len(every))
            for number in range(whole):
                assert {(document, place) for n, document, place in counts if n == number} == every
            assert sum(1 for n, _, _ in counts if n == whole) == begun
            assert all(n <= whole for n, _, _ in counts)


def test_the_rows_of_an_epoch_are_its_layout_but_for_less_than_a_row(tmp_path):
    corpus, _ = write_sources(tmp_path, WEIGHTS)
    rows = TrainingRows(corpus, ROW, 10**6, seed=0)
    for epoch in range(3):
        text = rows._make_epoch(epoch).text
        expected = Counter(
            (number, document, first + i)
            for document, first, length, number in zip(*(column.tolist() for column in text.columns))
            for i in range(length)
        )
        indices = range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch)
        found = Counter(place for index in indices for span in rows.spans(index) for place in places_of(span, 1))
        assert set(found.values()) == {1} and found.keys() <= expected.keys()
        assert len(expected) - len(found) < ROW


def test_every_pass_has_its_own_order(tmp_path):
    corpus, _ = write_sources(tmp_path, weights=(0.5, 2.0))
    rows = TrainingRows(corpus, ROW, 10**6, seed=0)
    for source in range(2):
        orders = [rows._pass_order(source, number).tolist() for number in range(4)]
        assert all(sorted(one) == sorted(orders[0]) for one in orders)
        assert all(one != other for one, other in pairwise(orders))


def test_rows_depend_on_their_place_only(tmp_path):
    corpus, _ = write_sources(tmp_path, WEIGHTS)
    rows = TrainingRows(corpus, ROW, 10**6, seed=5)
    indices = list(range(0, 5 * rows.rows_per_epoch, 3))
    expected = {index: rows[index]["input_ids"].tolist() for index in indices}
    for index in reversed(indices):
        assert rows[index]["input_ids"].tolist() == expected[index]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0)])
def test_weights_of_one_pass_over_everything_once_an_epoch(tmp_path, weights):
    corpus, ids = write_sources(tmp_path, weights=weights)
    rows = TrainingRows(corpus, ROW, 10**6, seed=5, overlap=0)
    assert rows.num_places == sum(map(len, ids))
    for epoch in range(2):
        indices = range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch)
        found = Counter(place for index in indices for span in rows.spans(index) for place in places_of(span, 0))
        assert set(found.values()) == {1} and {number for number, _, _ in found} == {epoch}
        assert rows.num_places - len(found) < ROW


def test_weights_that_leave_no_row_are_refused(tmp_path):
    corpus, _ = write_sources(tmp_path, weights=(0.01, 0.001))
    with pytest.raises(RecipeError, match="fewer than one row of 16"):
        TrainingRows(corpus, ROW, 1, seed=0)
    corpus, _ = write_sources(tmp_path / "one", weights=(0.0001, 1.0))
    rows = TrainingRows(corpus, ROW, 100, seed=0)  # too light for a single token
    assert all(span.document % 2 for index in range(100) for span in rows.spans(index))
