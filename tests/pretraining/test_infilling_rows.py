"""Documents are rearranged for infilling by their definition: nothing is lost, and all follows from seed and place."""

import pickle
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from helpers.chi_square import assert_fits
from helpers.masks import write_marked
from helpers.rearranged import TOKENS, by_hand, make_rows, put_back, rearranged_by_hand
from helpers.text import prepare_documents, random_documents, sentences, write_ids

from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.source_mixture import Source
from weft.recipes.pretraining.datasets.fill_in_the_middle import ADDED, InfillingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.pretraining.objectives.causal import CausalObjective

ROW = 13
DRAW = random.Random(5)
LENGTHS = {
    "longer than a row": [DRAW.randint(20, 90) for _ in range(30)],
    "shorter than a row": [DRAW.randint(2, 9) for _ in range(121)],
    "of any length": [int(2 ** DRAW.uniform(0, 7)) for _ in range(80)],
    "without text": [1, 2, 2, 3, 2, 2, 1, 2, 2, 2, 3, 2, 2, 2],
    "a single one": [333],
}


def numbered(lengths):
    """Token ids of documents in which no id is there twice, so that each token tells its document and place."""
    ends = np.cumsum(lengths) + 10
    return [list(range(end - length, end)) for end, length in zip(ends.tolist(), lengths)]


@pytest.fixture(params=LENGTHS)
def documents(request):
    return numbered(LENGTHS[request.param])


def as_tuple(row):
    return tuple(tuple(row[name].tolist()) for name in ("input_ids", "labels", "position_ids"))


def reference_rows(documents, seed, epoch, rate, share):
    """The rows of an epoch in plain loops; only the random draws are those of the packing."""
    kept = {index: ids for index, ids in enumerate(documents) if len(ids) > 1}
    rearranged = list(rearranged_by_hand(kept, seed, epoch, rate, share).values())
    draw = np.random.default_rng([seed, epoch])
    stream = []  # (token, next token, whether a document begins)
    for number in draw.permutation(len(rearranged)):
        ids = rearranged[number]
        stream += [(ids[place], ids[place + 1], place == 0) for place in range(len(ids) - 1)]
    first, number = int(draw.integers(ROW)), len(stream) // ROW
    rows = []
    for row in draw.permutation(number):
        tokens, labels, positions = [], [], []
        for place in range(ROW):
            token, label, begins = stream[(first + int(row) * ROW + place) % len(stream)]
            tokens.append(token)
            labels.append(IGNORE_INDEX if label in TOKENS.ids else label)
            positions.append(0 if begins or not positions else positions[-1] + 1)
        rows.append((tuple(tokens), tuple(labels), tuple(positions)))
    return rows


@pytest.mark.parametrize(("rate", "share"), [(0.5, 0.5), (1.0, 0.3), (0.2, 1.0)])
def test_the_rows_are_those_of_a_plain_loop(tmp_path, documents, rate, share):
    corpus = write_ids(tmp_path, documents)
    for seed in (0, 5):
        rows = make_rows(corpus, ROW, seed, rate, share)
        for epoch in range(3):
            expected = reference_rows(documents, seed, epoch, rate, share)
            assert len(expected) == rows.rows_per_epoch
            for index, row in enumerate(expected):
                assert as_tuple(rows[epoch * rows.rows_per_epoch + index]) == row


def test_the_rate_of_nothing_is_the_packing_without_infilling(tmp_path, documents):
    corpus = write_ids(tmp_path, documents)
    rows, plain = make_rows(corpus, ROW, 3, rate=1e-9), TrainingRows(corpus, ROW, 10**6, 3)
    assert rows.rows_per_epoch == plain.rows_per_epoch
    assert all(as_tuple(rows[index]) == as_tuple(plain[index]) for index in range(2 * rows.rows_per_epoch))


def test_put_back_in_order_the_rows_of_an_epoch_give_every_document_but_for_less_than_a_row(tmp_path, documents):
    corpus, kept = write_ids(tmp_path, documents), [ids for ids in documents if len(ids) > 1]
    rows = make_rows(corpus, ROW, seed=2)
    assert rows.num_places == sum(len(ids) - 1 for ids in kept) + ADDED * round(0.5 * len(kept))
    for epoch in range(3):
        parts = defaultdict(dict)
        for index in range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch):
            for span in rows.spans(index):
                assert span.pass_number == epoch and span.first not in parts[span.document]
                parts[span.document][span.first] = span
        places = sum(len(span.tokens) - 1 for of_document in parts.values() for span in of_document.values())
        assert 0 <= rows.num_places - places < ROW
        whole = 0
        for document, of_document in parts.items():
            ids, is_whole = [], True
            for first in sorted(of_document):
                span = of_document[first]
                is_whole &= first == max(0, len(ids) - 1) and (not ids or span.tokens[0] == ids[-1])
                ids += span.tokens.tolist()[bool(ids) :]
            if is_whole and of_document[max(of_document)].is_end:
                assert put_back(ids) == documents[document]
                whole += 1
        assert whole >= len(kept) - ROW


def test_every_token_of_the_text_is_a_target_and_the_new_ones_never_are(tmp_path):
    documents = numbered(LENGTHS["of any length"])
    rows = make_rows(write_ids(tmp_path, documents), ROW, seed=4)
    inputs, targets = Counter(), Counter()
    for index in range(rows.rows_per_epoch):
        row = rows[index]
        inputs.update(row["input_ids"].tolist())
        targets.update(row["labels"][row["labels"] != IGNORE_INDEX].tolist())
    chosen = round(0.5 * sum(len(ids) > 1 for ids in documents))
    assert all(chosen - ROW < inputs[token] <= chosen for token in TOKENS.ids)
    assert not set(TOKENS.ids) & set(targets) and set(targets.values()) == {1}
    every = {token for ids in documents for token in ids[1:]}
    assert set(targets) <= every and len(every) - len(targets) < ROW


def test_each_pass_rearranges_as_many_documents_and_each_document_as_often(tmp_path):
    corpus = write_ids(tmp_path, random_documents([8] * 41))
    rows, counts = make_rows(corpus, ROW, seed=6, rate=0.3), Counter()
    for number in range(400):
        chosen = [document for document in range(41) if rows.is_rearranged(document, number)]
        assert len(chosen) == round(0.3 * 41)
        counts.update(chosen)
    assert_fits([counts[document] for document in range(41)], np.full(41, 1 / 41))


def test_both_cuts_fall_everywhere_alike_in_either_form(tmp_path):
    length, passes = 6, 130
    documents = numbered([length + 2] * 30)
    rows = make_rows(write_ids(tmp_path, documents), ROW, seed=1, rate=1.0, suffix_first=0.25)
    found = {True: Counter(), False: Counter()}
    for number in range(passes):
        for document, ids in enumerate(documents):
            parts = [list(part) for part in rows.parts(document, number)]
            flat = [token for part in parts for token in part]
            assert put_back(flat) == ids and len(flat) == len(ids) + ADDED
            suffix_first = parts[1] == [TOKENS.prefix, TOKENS.suffix]
            prefix, middle = parts[4 if suffix_first else 2], parts[-2]
            found[suffix_first][len(prefix), len(prefix) + len(middle)] += 1
    assert_fits([found[form].total() for form in (True, False)], [0.25, 0.75])
    pairs = [(first, last) for first in range(length + 1) for last in range(first, length + 1)]
    expected = [(1 if first == last else 2) / (length + 1) ** 2 for first, last in pairs]
    for counts in found.values():
        assert_fits([counts[pair] for pair in pairs], expected)


def test_a_row_depends_on_its_place_and_not_on_what_was_read_before(tmp_path):
    corpus = write_ids(tmp_path, random_documents(LENGTHS["of any length"]))
    rows = make_rows(corpus, ROW, seed=2)
    places = list(range(3 * rows.rows_per_epoch))
    expected = [as_tuple(rows[index]) for index in places]
    np.random.seed(99)
    torch.manual_seed(99)
    shuffled = pickle.loads(pickle.dumps(make_rows(corpus, ROW, seed=2)))
    for index in random.Random(0).sample(places, len(places)):
        assert as_tuple(shuffled[index]) == expected[index]
    other = make_rows(corpus, ROW, seed=3)
    assert [as_tuple(other[index]) for index in places] != expected
    chosen = [{document for document in range(80) if rows.is_rearranged(document, number)} for number in range(2)]
    assert chosen[0] != chosen[1]
    longest = int(np.argmax(LENGTHS["of any length"]))
    ids = [[token for part in rows.parts(longest, number) for token in part] for number in range(5)]
    assert sum(each != ids[0] for each in ids) >= 3


def test_sources_have_passes_of_their_own(tmp_path):
    weights, documents = (2.5, 1.0, 0.3), numbered(np.random.default_rng(3).integers(2, 30, 60).tolist())
    source_of = [index % 3 for index in range(60)]
    corpus = write_marked(
        tmp_path,
        documents,
        [[True] * len(ids) for ids in documents],
        sources=[Source(f"source {index}", weight) for index, weight in enumerate(weights)],
        source_of=source_of,
    )
    rows = make_rows(corpus, ROW, seed=7)
    sizes = [sum(len(ids) - 1 for ids in documents[source::3]) + ADDED * 10 for source in range(3)]
    assert rows.num_places == sum(int(size * weight) for size, weight in zip(sizes, weights))
    taken: list[Counter] = [Counter() for _ in weights]
    for epoch in range(9):
        text = rows._make_epoch(epoch).text
        for document, first, length, number in zip(*(column.tolist() for column in text.columns)):
            taken[document % 3].update((number, document, first + place) for place in range(length))
    for source, counts in enumerate(taken):
        assert counts.total() == 9 * int(sizes[source] * weights[source]) and set(counts.values()) == {1}
        own = {index: ids for index, ids in enumerate(documents) if index % 3 == source}
        for number in range(counts.total() // sizes[source]):
            expected = rearranged_by_hand(own, 7, number, 0.5, 0.5)
            every = {(number, index, place) for index, ids in expected.items() for place in range(len(ids) - 1)}
            assert {each for each in counts if each[0] == number} == every
    for index in range(0, 4 * rows.rows_per_epoch, 5):
        for span in rows.spans(index):
            ids = documents[span.document]
            if rows.is_rearranged(span.document, span.pass_number):
                ids = by_hand(ids, span.document, 7, span.pass_number, 0.5)
            assert span.tokens.tolist() == ids[span.first : span.first + len(span.tokens)]


def test_a_row_of_a_book_reads_what_it_holds(tmp_path, monkeypatch):
    rows = make_rows(write_ids(tmp_path, random_documents([50_000])), 64, rate=1.0)
    made, asarray = [], np.asarray

    def watch(values, *args, **kwargs):
        made.append(len(values) if np.ndim(values) else 1)
        return asarray(values, *args, **kwargs)

    rows[0]
    monkeypatch.setattr(np, "asarray", watch)
    assert len(rows[rows.rows_per_epoch // 2]["input_ids"]) == 64
    assert 0 < max(made) < 100


@pytest.mark.parametrize("changes", [{"document_tokens": "none"}, {"validation_split": "tail"}])
def test_documents_without_ends_are_refused_before_and_after_they_are_prepared(tmp_path, changes):
    name = "document_tokens both" if "document_tokens" in changes else "validation_split"
    infilling = InfillingArguments(0.5)
    with pytest.raises(RecipeError, match=f"infill_rate needs .*{name}"):
        infilling.check_data(DataArguments(**changes))
    InfillingArguments().check_data(DataArguments(**changes))
    corpus = prepare_documents(tmp_path, sentences(60), **changes)
    objective = CausalObjective(infilling=infilling)
    tokenizer = objective.prepare_tokenizer(corpus.tokenizer())
    with pytest.raises(RecipeError, match=f"infill_rate needs .*{name}"):
        objective.pack(corpus, ROW, 0, tokenizer)


def test_held_out_text_is_read_from_left_to_right_as_ever(tmp_path):
    corpus = prepare_documents(tmp_path, sentences(80), validation_fraction=0.2)
    found = []
    for objective in (CausalObjective(), CausalObjective(infilling=InfillingArguments(1.0))):
        tokenizer = objective.prepare_tokenizer(corpus.tokenizer())
        found.append(objective.make_evaluator(corpus, 32, tokenizer).rows)
    plain, rearranged = found
    assert plain.byte_count == rearranged.byte_count and len(plain) == len(rearranged) > 3
    for index in range(len(plain)):
        assert all(np.array_equal(plain[index][name], rearranged[index][name]) for name in plain[index])
