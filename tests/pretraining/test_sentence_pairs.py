"""Rows of sentence pairs: whole sentences, every text once, labels that nothing but the text itself tells."""

import random
from itertools import pairwise

import numpy as np
import pytest
from helpers.masks import END, START, VOCABULARY, mask_by_hand, write_marked
from helpers.text import prepare_documents, write_ids

from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.source_mixture import Source
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.datasets.sentence_pairs import IN_ORDER, SPOILT, SentencePairCollator, SentencePairRows
from weft.recipes.pretraining.objectives.masked import make_vocabulary
from weft.recipes.training.batch_schedule import Steps

ROW = 48
HELD_OUT = 6  # every so manieth document


def write_sentences(folder, documents=150, seed=0, longest=16, **fields):
    """Documents of sentences of any length, among them some that fit no row, and empty documents."""
    draw = np.random.default_rng(seed)
    ids, words, sentences = [], [], []
    for _ in range(documents):
        begins: list[bool] = []
        for _ in range(int(draw.integers(0, 20))):
            begins += [True, *[False] * int(draw.integers(70 if draw.random() < 0.02 else longest))]
        ids.append([START, *draw.integers(5, 60, len(begins)).tolist(), END])
        sentences.append([True, *begins, True])
        words.append([True] * len(ids[-1]))
    return write_marked(folder / "ids", ids, words, sentences, **fields)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_sentences(tmp_path_factory.mktemp("pairs"), held_out=lambda i: i % HELD_OUT == 1)


def make_rows(corpus, swap, seed=3, row=ROW, split="train", shuffle=True, **fields):
    fields = {"mask_rate": 0.2, "mask_rate_end": None, **fields}
    masker = Masker(corpus, MaskingArguments(**fields), VOCABULARY, seed)
    rows = SentencePairRows(corpus, split, row, masker, swap, seed, shuffle)
    if split == "train":
        rows.schedule(10**6, Steps(8, 125_000))
    return rows


class Text:
    """Where stretches of tokens stand in a corpus: the test's documents are random, so that no two are alike."""

    def __init__(self, corpus, split="train"):
        self.corpus = corpus
        self.documents = corpus.documents(split).tolist()
        self.bounds = set()
        self.ids = {}
        for document in self.documents:
            first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
            self.ids[document] = corpus.tokens[first:last].tolist()
            begins = corpus.begins("sentences", first, last)
            self.bounds |= {(document, i) for i, flag in enumerate(begins) if flag and i}

    def find(self, tokens):
        """Document and place of a stretch; of short ones there may be several."""
        size = len(tokens)
        return [
            (document, i)
            for document, ids in self.ids.items()
            for i in range(1, len(ids) - size)
            if ids[i] == tokens[0] and ids[i : i + size] == tokens
        ]


def pairs_of(row):
    """Segments as they were before they were masked, masked ids, and the label of each pair of a row."""
    original = np.where(row["targets"] == IGNORE_INDEX, row["input_ids"], row["targets"]).tolist()
    positions = row["position_ids"]
    used = row["used"]
    ends = [*row["pool_from"].tolist()[1:], used]
    for begin, end, label in zip(row["pool_from"].tolist(), ends, row["pair_labels"].tolist()):
        ids, types = original[begin:end], row["token_type_ids"][begin:end].tolist()
        assert positions[begin:end].tolist() == list(range(end - begin))
        assert ids[0] == START and ids[-1] == END
        stops = [i for i, token in enumerate(ids) if token == END]
        assert ids.count(START) == 1 and len(stops) in (1, 2)
        assert types == [0] * (stops[0] + 1) + [1] * (len(ids) - stops[0] - 1)
        assert all(len(segment) for segment in (ids[1 : stops[0]], ids[stops[0] + 1 : -1][: len(stops) - 1] or [0]))
        yield ids[1 : stops[0]], ids[stops[0] + 1 : -1] if len(stops) == 2 else None, label


def read(rows, index):
    """A row, with the number of its places that are not padding."""
    row = rows[index]
    assert {
        name: len(row[name]) for name in ("input_ids", "position_ids", "token_type_ids", "targets")
    } == dict.fromkeys(("input_ids", "position_ids", "token_type_ids", "targets"), rows.row_length)
    used = int(np.flatnonzero(row["input_ids"])[-1]) + 1 if row["input_ids"].any() else 0
    padding = slice(used, None)
    assert (row["targets"][padding] == IGNORE_INDEX).all() and not row["token_type_ids"][padding].any()
    assert row["position_ids"][padding].tolist() == list(range(rows.row_length - used))
    return {**row, "used": used}


def whole_epoch(rows, epoch=0):
    size = rows.rows_per_epoch
    return [pair for index in range(epoch * size, (epoch + 1) * size) for pair in pairs_of(read(rows, index))]


@pytest.mark.parametrize("swap", [False, True], ids=["next-sentence", "sentence-order"])
def test_pairs_are_whole_sentences_in_order_or_spoilt(corpus, swap):
    text = Text(corpus)
    labels, unlabelled = [], 0
    for first, second, label in whole_epoch(make_rows(corpus, swap)):
        if second is None:
            assert label == IGNORE_INDEX
            assert any(True for _ in text.find(first))
            continue
        if swap and label == SPOILT:
            first, second = second, first
        at_first, at_second = text.find(first), text.find(second)
        assert at_first and at_second
        for places, size in ((at_first, len(first)), (at_second, len(second))):
            assert any({(document, i), (document, i + size)} <= text.bounds for document, i in places)
        follows = any((document, i + len(first)) in at_second for document, i in at_first)
        if label == IGNORE_INDEX:
            unlabelled += 1
        elif label == IN_ORDER or swap:
            assert follows
        elif len(second) > 3 and len(first) > 3:  # shorter ones may stand anywhere by chance
            assert not {document for document, _ in at_first} & {document for document, _ in at_second}
        labels.append(label)
    assert len(labels) > 200 and unlabelled < 0.05 * len(labels)
    assert abs(labels.count(SPOILT) / (len(labels) - unlabelled) - 0.5) < 5 * 0.5 / len(labels) ** 0.5


@pytest.mark.parametrize("row", [8, 24, ROW, 500])
def test_an_epoch_of_sentence_order_holds_every_token_of_the_text_once(corpus, row):
    rows, found = make_rows(corpus, True, row=row), []
    for first, second, _ in whole_epoch(rows, 1):
        found += first + (second or [])
    text = [token for document in corpus.documents("train") for token in Text(corpus).ids[document][1:-1]]
    assert np.bincount(found).tolist() == np.bincount(text).tolist()
    assert rows.num_places == len(text)


def test_next_sentence_pairs_keep_the_first_segments_of_every_text(corpus):
    """Only what a replaced segment held is missing."""
    rows = make_rows(corpus, False)
    kept = sum(len(a) + len(b or []) for a, b, label in whole_epoch(rows) if label != SPOILT)
    kept += sum(len(a) for a, _, label in whole_epoch(rows) if label == SPOILT)
    missing = rows.num_places - kept
    replaced = sum(len(b) for _, b, label in whole_epoch(rows) if label == SPOILT)
    assert 0 < missing < rows.num_places / 2 and replaced == pytest.approx(missing, rel=0.05)


@pytest.mark.parametrize("swap", [False, True], ids=["next-sentence", "sentence-order"])
def test_lengths_do_not_tell_the_label(tmp_path, swap):
    """A classifier that knows for each length which label is the more frequent one, tried on other pairs."""
    rows = make_rows(write_sentences(tmp_path, documents=500, longest=30), swap)
    lengths, labels = [], []
    for epoch in range(2):
        for first, second, label in whole_epoch(rows, epoch):
            if label != IGNORE_INDEX:
                lengths.append((len(first), len(second), len(first) + len(second), len(first) - len(second)))
                labels.append(label)
    lengths, labels = np.array(lengths), np.array(labels)
    half = len(labels) // 2
    assert half > 800
    for feature in lengths.T:
        votes = np.zeros(2 * ROW)
        np.add.at(votes, feature[:half] % (2 * ROW), labels[:half] * 2 - 1)
        right = (votes[feature[half:] % (2 * ROW)] > 0) == labels[half:]
        assert abs(right.mean() - 0.5) < 0.06


def test_segments_are_masked_as_the_documents_they_come_from(corpus):
    rows, text = make_rows(corpus, False, mask_rate=0.3), Text(corpus)
    by_hand = {document: mask_by_hand(rows.masker, document, 0.3) for document in text.documents}
    seen = 0
    for index in range(rows.rows_per_epoch):
        row = rows[index]
        if not row["targets"].max() >= 0:
            continue
        original = np.where(row["targets"] == IGNORE_INDEX, row["input_ids"], row["targets"]).tolist()
        edges = [i for i, token in enumerate(original) if token in (START, END)]
        for left, right in pairwise(edges):
            if right - left < 7 or (original[left] == END and original[right] == START):
                continue
            (document, place), *others = text.find(original[left + 1 : right])
            assert not others
            here = slice(place, place + right - left - 1)
            assert row["input_ids"][left + 1 : right].tolist() == by_hand[document][1][here]
            assert (row["targets"][left + 1 : right] >= 0).tolist() == by_hand[document][0][here]
            seen += 1
    assert seen > 200


@pytest.mark.parametrize("swap", [False, True], ids=["next-sentence", "sentence-order"])
def test_rows_are_functions_of_seed_and_epoch(corpus, swap):
    rows = make_rows(corpus, swap)
    size = rows.rows_per_epoch

    def contents(rows, index):
        return tuple(rows[index][name].tobytes() for name in ("input_ids", "targets", "pair_labels", "pool_from"))

    epochs = [[contents(rows, epoch * size + i) for i in range(size)] for epoch in range(2)]
    again = make_rows(corpus, swap)
    for index in random.Random(1).sample(range(2 * size), 40):
        assert contents(again, index) == epochs[index // size][index % size]
    other = make_rows(corpus, swap, seed=4)
    epochs.append([contents(other, i) for i in range(other.rows_per_epoch)])
    for i, one in enumerate(epochs):
        for two in epochs[:i]:
            assert len(set(one) & set(two)) < 0.02 * size


def test_the_rate_is_that_of_the_step(corpus):
    rows = make_rows(corpus, True, mask_rate=0.8, mask_rate_end=0.1)
    size = rows.rows_per_epoch
    rows.schedule(2 * size, Steps(size, 2))
    shares = []
    for epoch in range(2):
        targets = [rows[epoch * size + i]["targets"] for i in range(size)]
        shares.append(sum((each >= 0).sum() for each in targets) / rows.num_places)
    assert shares == pytest.approx([0.8, 0.1], abs=0.03)


def test_rows_are_nearly_full(tmp_path):
    rows = make_rows(write_sentences(tmp_path, documents=300, longest=12), True, row=64)
    used = np.mean([read(rows, index)["used"] for index in range(rows.rows_per_epoch)]) / 64
    assert used > 0.85


def test_validation_holds_the_text_once_and_then_padding_without_pairs(corpus):
    rows = make_rows(corpus, True, split="validation", shuffle=False)
    assert len(rows) == rows.rows_per_epoch
    found = [token for a, b, _ in whole_epoch(rows) for token in a + (b or [])]
    text = [token for ids in Text(corpus, "validation").ids.values() for token in ids[1:-1]]
    assert sorted(found) == sorted(text)
    for beyond in (len(rows), len(rows) + 3):
        row = read(rows, beyond)
        assert row["used"] == 0 and row["input_ids"].shape == (ROW,)
        assert len(row["pool_from"]) == len(row["pair_labels"]) == 0
    batch = SentencePairCollator()([rows[len(rows) - 1], rows[len(rows)]])
    assert len(batch["pool_from"]) == len(batch["next_sentence_label"]) == len(rows[len(rows) - 1]["pool_from"])


def test_a_batch_pools_the_beginning_of_every_pair(corpus):
    rows = [make_rows(corpus, False)[index] for index in range(5)]
    batch = SentencePairCollator()(rows)
    ids = batch["input_ids"].flatten()
    assert (ids[batch["pool_from"]] == START).all() and len(batch["pool_from"]) == int((ids == START).sum())
    assert batch["next_sentence_label"].tolist() == [label for row in rows for label in row["pair_labels"].tolist()]
    targets = np.stack([row["targets"] for row in rows]).ravel()
    assert targets[batch["predict_from"]].tolist() == batch["labels"].tolist()
    assert (targets >= 0).sum() == len(batch["labels"])
    assert set(batch) == {
        *("input_ids", "position_ids", "token_type_ids", "predict_from", "labels", "pool_from", "next_sentence_label")
    }


def test_sources_count_as_often_as_they_weigh(tmp_path):
    documents = 60
    source_of = [i % 3 for i in range(documents)]
    sources = (Source("a", 2.0), Source("b", 0.4), Source("c"))
    corpus = write_sentences(tmp_path, documents, sources=sources, source_of=source_of)
    rows, text = make_rows(corpus, True), Text(corpus)
    tokens = [sum(len(text.ids[i]) - 2 for i in text.documents if i % 3 == source) for source in range(3)]
    home = {row: source for source, members in enumerate(rows._members) for row in members.tolist()}
    assert rows.num_places == pytest.approx(2 * tokens[0] + 0.4 * tokens[1] + tokens[2], abs=1)
    passes = [[], [], []]
    for epoch in range(5):
        numbers, which = rows._row_order(epoch)
        for row, number in zip(numbers.tolist(), which.tolist()):
            passes[home[row]].append((number, row))
    for source, expected in enumerate((10, 2, 5)):
        size = len(rows._members[source])
        assert len(passes[source]) == pytest.approx(expected * size, abs=5)
        assert len(set(passes[source])) == len(passes[source])  # no row comes twice in a pass
    rows = make_rows(corpus, True, split="train", shuffle=False)
    assert rows.rows_per_epoch == len(rows._rows)  # once each


def test_real_text_keeps_its_sentences(tmp_path):
    draw = random.Random(0)
    sentences = [f"Sentence {i} of the {draw.choice(['old', 'new', 'long'])} story ends here." for i in range(400)]
    texts = [" ".join(sentences[i : i + 10]) for i in range(0, 400, 10)]
    corpus = prepare_documents(tmp_path, texts, tokenizer_type="wordpiece", segmenter="characters", dedup="off")
    tokenizer = corpus.tokenizer()
    masker = Masker(corpus, MaskingArguments(), make_vocabulary(tokenizer), 0)
    rows = SentencePairRows(corpus, "train", 128, masker, False, 0)
    rows.schedule(100, Steps(4, 25))
    number = 0
    for first, second, label in whole_epoch(rows):
        for segment in (first, second):
            if segment is not None and label != IGNORE_INDEX:
                text = tokenizer.decode(segment)
                assert text.startswith("Sentence") and text.endswith((".", " ."))
                number += 1
    assert number > 40


@pytest.mark.parametrize("swap", [False, True])
def test_text_that_makes_no_pairs_is_refused(tmp_path, corpus, swap):
    words = [[True] * 6] * 4
    ids = [[START, 5, 6, 7, 8, END]] * 4
    one_sentence = [[True, True, False, False, False, True]] * 4
    with pytest.raises(RecipeError, match="does not know where sentences begin: prepare it again with --segmenter"):
        make_rows(write_ids(tmp_path / "unmarked", ids), swap)
    single = write_marked(tmp_path / "single", ids, words, one_sentence)
    with pytest.raises(RecipeError, match=r"no document of the train text of .* has two sentences that fit 48 tokens"):
        make_rows(single, swap)
    with pytest.raises(RecipeError, match="sequence_length is 7: a pair of sentences needs at least 8 tokens"):
        make_rows(corpus, swap, row=7)
    empty = write_marked(tmp_path / "empty", [[START, END]], [[True, True]])
    with pytest.raises(RecipeError, match="no document of the train text"):
        make_rows(empty, swap)
    alone = write_marked(tmp_path / "alone", ids[:1], words[:1])
    if swap:
        assert make_rows(alone, swap).rows_per_epoch == 1
    else:
        with pytest.raises(RecipeError, match="is one document, so no sentence can come from another"):
            make_rows(alone, swap)
    corpus = prepare_documents(
        tmp_path / "bare", ["A b. C d."] * 3, segmenter="characters", document_tokens="none", dedup="off"
    )
    with pytest.raises(RecipeError, match="has no start and end tokens: prepare it with --document_tokens both"):
        make_rows(corpus, swap)
    light = write_marked(tmp_path / "light", ids, words, sources=(Source("a", 0.1),))
    with pytest.raises(RecipeError, match="its source weights leave none"):
        make_rows(light, swap)


def test_held_out_tails_lose_no_token(tmp_path):
    texts = [" ".join(f"Number {i} of {j} is here." for j in range(8)) for i in range(6)]
    fields = {"segmenter": "characters", "validation_split": "tail", "validation_fraction": 0.4}
    corpus = prepare_documents(tmp_path, texts, tokenizer_type="char", **fields)
    masker = Masker(corpus, MaskingArguments(), make_vocabulary(corpus.tokenizer()), 0)
    found = {}
    for split in ("train", "validation"):
        rows = SentencePairRows(corpus, split, 64, masker, True, 0, shuffle=False)
        found[split] = [token for a, b, _ in whole_epoch(rows) for token in a + (b or [])]
    decoded = corpus.tokenizer().decode(found["train"] + found["validation"])
    assert sorted(decoded) == sorted("".join(texts))
