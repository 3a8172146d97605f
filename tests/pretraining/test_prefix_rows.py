"""Prefixes of documents are seen in both directions and not predicted, each document of a packed row by itself."""

import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.chi_square import assert_fits, assert_share
from helpers.models import make_model, tiny_config
from helpers.text import random_documents, write_ids

from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.datasets.collators import collate_causal
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.pretraining.datasets.prefix import CHOICE, CUT, PrefixRows

ROW = 24
LENGTHS = [int(2 ** random.Random(number).uniform(1, 6)) for number in range(60)]


def make_rows(folder, share=0.5, seed=0, lengths=LENGTHS, vocab_size=1000):
    corpus = write_ids(folder, random_documents(lengths, vocab_size=vocab_size))
    return PrefixRows(TrainingRows(corpus, ROW, 10**6, seed), share)


def same(row, other):
    return row.keys() == other.keys() and all(np.array_equal(row[name], other[name]) for name in row)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_rows_are_those_of_a_plain_loop(tmp_path, share):
    rows = make_rows(tmp_path, share)
    for index in range(3 * rows.rows.rows_per_epoch):
        tokens, labels, positions, mask = [], [], [], []
        for span in rows.rows.spans(index):
            ids = span.tokens.tolist()
            key = make_key(0, span.pass_number, span.document)
            prefix = 0
            if float(uniform(key, span.first, CHOICE)) < share:
                prefix = 1 + int(float(uniform(key, span.first, CUT)) * (len(ids) - 1))
            for place in range(len(ids) - 1):
                tokens.append(ids[place])
                positions.append(place)
                mask.append(place < prefix)
                labels.append(ids[place + 1] if place + 1 >= prefix else IGNORE_INDEX)
        row = rows[index]
        assert [row[name].tolist() for name in ("input_ids", "labels", "position_ids", "prefix_mask")] == [
            tokens,
            labels,
            positions,
            mask,
        ]


def test_as_many_texts_have_a_prefix_and_it_ends_everywhere_alike(tmp_path):
    rows = make_rows(tmp_path, 0.3, lengths=[9] * 40)  # of which rows hold two or three whole ones
    lengths = Counter()
    for index in range(60 * rows.rows.rows_per_epoch):
        lengths.update(rows.prefix_of(span) for span in rows.rows.spans(index) if len(span.tokens) == 9)
    total = lengths.total()
    assert_share(1 - lengths[0] / total, 0.3, total)
    assert_fits([lengths[length] for length in range(1, 9)], np.full(8, 1 / 8))


def test_a_row_depends_on_its_place_and_not_on_what_was_read_before(tmp_path):
    rows = make_rows(tmp_path)
    places = list(range(2 * rows.rows.rows_per_epoch))
    expected = [rows[index] for index in places]
    again = pickle.loads(pickle.dumps(rows))
    for index in random.Random(0).sample(places, len(places)):
        assert same(again[index], expected[index])
    other = make_rows(tmp_path / "other", seed=1)
    assert not all(same(other[index], expected[index]) for index in places)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_each_document_of_a_batch_has_the_nats_that_it_has_alone(tmp_path, backend):
    rows = make_rows(tmp_path, 0.7, vocab_size=61)
    batch = collate_causal([rows[index] for index in range(4)])
    model = make_model(tiny_config(), backend).double()
    with torch.no_grad():
        loss = model(**batch, use_cache=False).loss
        chunked = model(**batch, use_cache=False, return_logits=False).loss
        nats = []
        for index in range(4):
            for span in rows.rows.spans(index):
                prefix, ids = rows.prefix_of(span), torch.tensor(span.tokens.astype(np.int64))[None]
                size = ids.shape[1] - 1
                is_seen = torch.ones(size, size).tril().bool()
                is_seen[:prefix, :prefix] = True
                blocked = torch.zeros(size, size, dtype=torch.float64).masked_fill(~is_seen, -torch.inf)
                logits = model(input_ids=ids[:, :-1], attention_mask=blocked[None, None], use_cache=False).logits[0]
                of_targets = -logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
                nats += of_targets[max(prefix - 1, 0) :].tolist()
    assert len(nats) == (batch["labels"] != IGNORE_INDEX).sum() < batch["labels"].numel()
    assert loss.item() == pytest.approx(np.mean(nats), rel=1e-9)
    assert chunked.item() == pytest.approx(np.mean(nats), rel=1e-5)


@pytest.mark.parametrize("is_prefix", [True, False])
def test_what_stands_in_another_document_has_no_effect_and_what_stands_in_a_prefix_has(tmp_path, is_prefix):
    rows = make_rows(tmp_path, 0.8, lengths=[9] * 40, vocab_size=61)
    found = (rows[index] for index in range(100))
    row = next(each for each in found if each["position_ids"][1] == 1 and each["prefix_mask"][1] == is_prefix)
    model = make_model(tiny_config())
    ids, positions = torch.tensor(row["input_ids"])[None], torch.tensor(row["position_ids"])[None]
    mask = torch.tensor(row["prefix_mask"])[None]
    second = int((positions[0] == 0).nonzero()[1])
    other = ids.clone()
    other[0, second:] = (other[0, second:] - 3 + 7) % 58 + 3
    with torch.no_grad():
        one, two = (model(each, position_ids=positions, prefix_mask=mask).logits for each in (ids, other))
        assert torch.equal(one[0, :second], two[0, :second])
        within = ids.clone()
        within[0, 1] = within[0, 1] % 58 + 3
        changed = model(within, position_ids=positions, prefix_mask=mask).logits
    assert torch.equal(one[0, 0], changed[0, 0]) != is_prefix
