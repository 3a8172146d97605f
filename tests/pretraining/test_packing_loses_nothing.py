"""Rows hold every token of the text once an epoch, never cross a document, and depend on seed and place only."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from helpers.text import END, prepare_documents, random_documents, sentences, write_ids
from torch.utils.data import DataLoader

from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.collators import collate_causal
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows

DRAW = random.Random(7)
LENGTHS = {
    "longer than a row": [DRAW.randint(20, 90) for _ in range(30)],
    "shorter than a row": [DRAW.randint(2, 9) for _ in range(120)],
    "of any length": [int(2 ** DRAW.uniform(0, 7)) for _ in range(80)],
    "of one and two tokens": [1, 2, 1, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1],
    "a single one": [333],
    "exact rows": [14] * 12,
}
ROW = 13


@pytest.fixture(params=LENGTHS)
def documents(request):
    """Token ids of documents in which no id is there twice, so that each token tells its document and place."""
    first = 10
    documents = []
    for length in LENGTHS[request.param]:
        documents.append(list(range(first, first + length)))
        first += length
    return documents


def as_tuple(row):
    return tuple(tuple(row[name].tolist()) for name in sorted(row))


def all_pairs(documents):
    return {pair for ids in documents for pair in pairwise(ids)}


def pairs_of(row):
    return list(zip(row["input_ids"].tolist(), row["labels"].tolist()))


def reference_rows(documents, row_length, seed, epoch):
    """The rows of an epoch in plain loops; only the random draws are those of the packing."""
    documents = [ids for ids in documents if len(ids) > 1]
    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(len(documents))
    stream = []  # (token, next token, document)
    for document in order:
        ids = documents[document]
        for place in range(len(ids) - 1):
            stream.append((ids[place], ids[place + 1], int(document), place))
    first = int(draw.integers(row_length))
    number = len(stream) // row_length
    rows = []
    for row in draw.permutation(number):
        tokens, labels, positions = [], [], []
        for i in range(row_length):
            at = (first + int(row) * row_length + i) % len(stream)
            token, label, _, _ = stream[at]
            goes_on = i > 0 and at > 0 and stream[at][2] == stream[at - 1][2]
            tokens.append(token)
            labels.append(label)
            positions.append(positions[-1] + 1 if goes_on else 0)
        rows.append((tuple(tokens), tuple(labels), tuple(positions)))
    return rows


def test_the_rows_are_those_of_a_plain_loop(tmp_path, documents):
    corpus = write_ids(tmp_path, documents)
    for seed in (0, 5):
        rows = TrainingRows(corpus, ROW, 10**6, seed)
        for epoch in range(3):
            expected = reference_rows(documents, ROW, seed, epoch)
            assert len(expected) == rows.rows_per_epoch
            for i, row in enumerate(expected):
                packed = rows[epoch * rows.rows_per_epoch + i]
                got = tuple(tuple(packed[name].tolist()) for name in ("input_ids", "labels", "position_ids"))
                assert got == row


def test_an_epoch_holds_every_pair_at_most_once_and_misses_less_than_a_row(tmp_path, documents):
    rows = TrainingRows(write_ids(tmp_path, documents), ROW, 10**6, seed=3)
    expected = all_pairs(documents)
    for epoch in range(3):
        places = range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch)
        seen = Counter(pair for i in places for pair in pairs_of(rows[i]))
        assert set(seen.values()) == {1}
        assert set(seen) <= expected  # a label from another document would be a pair that no document has
        assert len(expected) - len(seen) < ROW


def test_positions_restart_where_a_document_does(tmp_path, documents):
    home = {token: number for number, ids in enumerate(documents) for token in ids}
    rows = TrainingRows(write_ids(tmp_path, documents), ROW, 10**6, seed=1)
    for i in range(2 * rows.rows_per_epoch):
        row = rows[i]
        tokens, positions = row["input_ids"].tolist(), row["position_ids"].tolist()
        assert positions[0] == 0
        for (before, position_before), (token, position) in pairwise(zip(tokens, positions)):
            same = home[token] == home[before] and token == before + 1
            assert position == (position_before + 1 if same else 0)


def test_every_epoch_and_every_seed_has_its_own_order(tmp_path):
    corpus = write_ids(tmp_path, random_documents([20] * 50))
    rows, other = TrainingRows(corpus, ROW, 10**6, seed=0), TrainingRows(corpus, ROW, 10**6, seed=1)
    number = rows.rows_per_epoch
    epochs = [[as_tuple(rows[epoch * number + i]) for i in range(number)] for epoch in range(3)]
    epochs.append([as_tuple(other[i]) for i in range(number)])
    for i, one in enumerate(epochs):
        for two in epochs[:i]:
            assert one != two
            assert set(one) != set(two)  # cut at other places, too


def test_a_row_depends_on_its_place_and_not_on_what_was_read_before(tmp_path):
    corpus = write_ids(tmp_path, random_documents(LENGTHS["of any length"]))
    rows = TrainingRows(corpus, ROW, 10**6, seed=2)
    places = list(range(3 * rows.rows_per_epoch))
    expected = [as_tuple(rows[i]) for i in places]
    np.random.seed(99)
    torch.manual_seed(99)
    shuffled = TrainingRows(corpus, ROW, 10**6, seed=2)
    for i in random.Random(0).sample(places, len(places)):
        assert as_tuple(shuffled[i]) == expected[i]
    assert as_tuple(TrainingRows(corpus, ROW, places[-1] + 1, seed=2)[places[-1]]) == expected[-1]


def test_the_length_of_the_run_changes_no_row(tmp_path):
    corpus = write_ids(tmp_path, random_documents([30] * 20))
    short, long = TrainingRows(corpus, ROW, 10, seed=2), TrainingRows(corpus, ROW, 1000, seed=2)
    assert (len(short), len(long)) == (10, 1000)
    assert [as_tuple(short[i]) for i in range(10)] == [as_tuple(long[i]) for i in range(10)]


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader_workers_give_the_same_batches(tmp_path, workers):
    corpus = write_ids(tmp_path, random_documents([30] * 20))
    rows = TrainingRows(corpus, ROW, 120, seed=2)
    loader = DataLoader(rows, batch_size=8, num_workers=workers, collate_fn=collate_causal)
    batches = list(loader)
    assert len(batches) == 15
    for number, batch in enumerate(batches):
        expected = collate_causal([rows[number * 8 + i] for i in range(8)])
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[name], expected[name]) for name in batch)


@pytest.mark.parametrize("micro_batch", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_rows_of_a_step(tmp_path, processes, micro_batch):
    rows_per_step, steps = 8, 12
    corpus = write_ids(tmp_path, random_documents([30] * 20))
    rows = TrainingRows(corpus, ROW, rows_per_step * steps, seed=2)
    assert rows.rows_per_epoch < len(rows)  # more than one epoch
    accumulation = rows_per_step // processes // micro_batch
    seen = [[] for _ in range(steps)]
    for process in range(processes):
        loader = DataLoader(rows, batch_size=micro_batch, collate_fn=collate_causal)
        share = list(prepare_data_loader(loader, num_processes=processes, process_index=process, put_on_device=False))
        assert len(share) == steps * accumulation
        for number, batch in enumerate(share):
            for i in range(micro_batch):
                row = {name: batch[name][i] for name in ("input_ids", "labels", "position_ids")}
                seen[number // accumulation].append(as_tuple(row))
    for step in range(steps):
        expected = [as_tuple(rows[step * rows_per_step + i]) for i in range(rows_per_step)]
        assert Counter(seen[step]) == Counter(expected)


def test_a_batch_has_its_labels_under_the_names_that_trainer_and_model_read(tmp_path):
    rows = TrainingRows(write_ids(tmp_path, random_documents([30] * 20)), ROW, 8, seed=2)
    batch = collate_causal([rows[0], rows[1], rows[2]])
    assert set(batch) == {"input_ids", "labels", "position_ids", "shift_labels"}
    assert all(tensor.shape == (3, ROW) and tensor.dtype == torch.int64 for tensor in batch.values())
    assert torch.equal(batch["labels"], batch["shift_labels"])


def test_held_out_documents_are_not_trained_on_and_the_others_not_evaluated(tmp_path, documents):
    def is_held_out(i):
        return i % 3 == 1

    corpus = write_ids(tmp_path, [*documents, list(range(1, 9)), [60000, 60001]], is_held_out)
    train = all_pairs([ids for i, ids in enumerate(documents) if not is_held_out(i)])
    rows = ValidationRows(corpus, ROW)
    scored = {pair for i in range(len(rows)) for pair in pairs_of(rows[i]) if pair[1] != IGNORE_INDEX}
    assert not scored & train
    if len(train) >= ROW:
        rows = TrainingRows(corpus, ROW, 10**6, seed=0)
        assert not {pair for i in range(2 * rows.rows_per_epoch) for pair in pairs_of(rows[i])} & scored


def test_validation_scores_every_token_once_in_order(tmp_path, documents):
    rows = ValidationRows(write_ids(tmp_path, documents, lambda i: True), ROW)
    everything = [rows[i] for i in range(len(rows))]
    scored = [pair for row in everything for pair in pairs_of(row) if pair[1] != IGNORE_INDEX]
    assert scored == [pair for ids in documents for pair in pairwise(ids)]
    assert len(rows) == -(-len(scored) // ROW)
    flat = np.concatenate([row["labels"] for row in everything])
    padding = np.flatnonzero(flat == IGNORE_INDEX)
    assert padding.tolist() == list(range(len(scored), len(rows) * ROW))  # only at the end of the last row


def test_validation_positions_restart_with_each_document_and_with_padding(tmp_path):
    rows = ValidationRows(write_ids(tmp_path, [[1, 2, 3, 4], [5, 6], [7], [8, 9, 10, 11, 12]], lambda i: True), 6)
    assert len(rows) == 2
    assert rows[0]["input_ids"].tolist() == [1, 2, 3, 5, 8, 9]
    assert rows[0]["labels"].tolist() == [2, 3, 4, 6, 9, 10]
    assert rows[0]["position_ids"].tolist() == [0, 1, 2, 0, 0, 1]
    assert rows[1]["input_ids"].tolist()[:2] == [10, 11]
    assert rows[1]["labels"].tolist() == [11, 12, *[IGNORE_INDEX] * 4]
    assert rows[1]["position_ids"].tolist() == [0, 1, 0, 1, 2, 3]


@pytest.mark.parametrize("end_token_id", [END, None])
def test_text_is_every_target_but_end_tokens(tmp_path, end_token_id):
    documents = random_documents([2, 14, 15, 40, 3, 5], vocab_size=50)
    corpus = write_ids(tmp_path, documents, lambda i: True, end_token_id=end_token_id)
    rows = ValidationRows(corpus, ROW)
    marked = [
        bool(is_text)
        for i in range(len(rows))
        for is_text, label in zip(rows[i]["is_text"], rows[i]["labels"])
        if label != IGNORE_INDEX
    ]
    expected = []
    for ids in documents:
        expected += [True] * (len(ids) - 2) + [end_token_id is None]
    assert marked == expected
    assert not any(rows[i]["is_text"][rows[i]["labels"] == IGNORE_INDEX].any() for i in range(len(rows)))


def test_rows_beyond_the_last_hold_padding_only(tmp_path):
    rows = ValidationRows(write_ids(tmp_path, random_documents([10, 20]), lambda i: True), ROW)
    for beyond in (len(rows), len(rows) + 5):
        row = rows[beyond]
        assert (row["labels"] == IGNORE_INDEX).all()
        assert not row["is_text"].any()
        assert row["position_ids"].tolist() == list(range(ROW))
        assert {name: value.dtype for name, value in row.items()} == {n: v.dtype for n, v in rows[0].items()}


def test_a_corpus_smaller_than_a_row_is_refused(tmp_path):
    corpus = write_ids(tmp_path, [[1, 5, 2]] * 6)
    assert TrainingRows(corpus, 12, 1, seed=0).rows_per_epoch == 1
    with pytest.raises(RecipeError, match="has 12 tokens, fewer than one row of 13"):
        TrainingRows(corpus, 13, 1, seed=0)


def test_text_goes_through_preparation_and_packing_unchanged(tmp_path):
    texts = sentences(100)
    corpus = prepare_documents(tmp_path, texts, validation_fraction=0.1)
    tokenizer = corpus.tokenizer()
    rows = ValidationRows(corpus, 32)
    labels = np.concatenate([rows[i]["labels"][rows[i]["is_text"]] for i in range(len(rows))])
    held_out = [text for text, flag in zip(texts, corpus.is_validation) if flag]
    assert tokenizer.decode(labels) == "".join(held_out)
    assert rows.byte_count == len("".join(held_out).encode())
