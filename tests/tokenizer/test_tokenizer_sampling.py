"""What a trainer is fed is bounded, even over the whole text, and the same every time."""

import pytest
from helpers.text import sentences

from weft.tokenizer import sampling, train
from weft.tokenizer.sampling import sample, weight


def test_text_that_fits_is_kept_whole_and_in_order():
    texts = sentences(50)
    assert sample(iter(texts), sum(map(len, texts))) == texts
    assert sample(iter([]), 10) == []


def test_more_text_gives_no_more_to_a_trainer(monkeypatch):
    fed = []

    def count(texts, *_):
        fed.append(sum(map(len, texts)))
        raise StopIteration

    monkeypatch.setitem(train._LEARN, "bpe", count)
    for repeats in (1, 10, 100):
        texts = (text for _ in range(repeats) for text in sentences(100))
        with pytest.raises(StopIteration):
            train.train_tokenizer(texts, "bpe", 300, sample_characters=5000)
    assert all(4500 < characters <= 5000 for characters in fed)


def test_no_more_than_the_sample_is_held_at_any_time(monkeypatch):
    largest = 0
    push = sampling.heapq.heappush

    def watch(heap, item):
        nonlocal largest
        push(heap, item)
        largest = max(largest, sum(size for _, _, size, _ in heap))

    monkeypatch.setattr(sampling.heapq, "heappush", watch)
    texts = sentences(3000)
    sample(iter(texts), 4000)
    assert largest <= 4000 + max(map(len, texts))


def test_the_sample_is_even_over_the_text_and_does_not_change():
    texts = [f"{number:06d}" for number in range(20000)]
    kept = sample(iter(texts), 6 * 2000)
    assert len(kept) == 2000 and kept == sorted(kept) == sample(iter(texts), 6 * 2000)
    for first in range(0, 20000, 5000):
        quarter = sum(first <= int(text) < first + 5000 for text in kept)
        assert 430 < quarter < 570  # 500 expected, with a standard deviation of 18


def test_one_huge_document_is_sampled_like_many_small_ones():
    text = "".join(f"{number:010d}" for number in range(100_000))
    kept = sample(iter([text]), 200_000)
    assert 180_000 < sum(map(len, kept)) <= 200_000
    assert max(map(len, kept)) == sampling.LONGEST_PIECE
    assert int(kept[0][:10]) < 25_000 and int(kept[-1][:10]) > 75_000


def test_a_sample_smaller_than_any_document_is_not_empty():
    assert 0 < len("".join(sample(iter(["x" * 50] * 9), 7))) <= 7
    assert "".join(sample(iter(["中" * 50] * 9), 7)) == "中"


def test_characters_of_scripts_without_blanks_count_more():
    assert weight("abc é 12") == 8
    assert weight("中国 abc ไทย") == 2 * 10 + 5 + 3 * 10
    latin, han = sample(iter(["word " * 100] * 100), 20_000), sample(iter(["中国人民" * 125] * 100), 20_000)
    assert sum(map(len, latin)) == pytest.approx(10 * sum(map(len, han)), rel=0.1)
