"""Packed rows of sources and targets against plain loops: nothing is lost, and no document sees another."""

import math

import numpy as np
import pytest
import torch
from helpers.denoised import restored
from helpers.evaluation import StandInTrainer, evaluate_on
from helpers.masks import END, MASK, PAD, START, VOCAB_SIZE, random_text, write_marked
from helpers.models import make_model, tiny_config
from helpers.text import write_ids
from torch.utils.data import DataLoader

from weft import WeftForConditionalGeneration
from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.counter_rng import make_key
from weft.recipes.pretraining.datasets.denoising.frame import Frame
from weft.recipes.pretraining.datasets.denoising.infilling import InfillDenoiser
from weft.recipes.pretraining.datasets.denoising.mixture import MixtureDenoiser
from weft.recipes.pretraining.datasets.denoising.pieces import Piece, TextPair
from weft.recipes.pretraining.datasets.denoising.prefix import PrefixDenoiser
from weft.recipes.pretraining.datasets.denoising.rows import (
    FILLED,
    ContinuationRows,
    DenoisingRows,
    PieceReader,
    collate_pairs,
    pack_pairs,
)
from weft.recipes.pretraining.datasets.denoising.spans import SpanDenoiser
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.prefix_continuation import ContinuationEvaluator
from weft.recipes.pretraining.objectives.text_to_text import DenoisingEvaluator

ROW, SEED = 32, 3
RELATIVE = 1e-5  # the model computes in float32
SENTINELS = np.arange(VOCAB_SIZE, VOCAB_SIZE + 20)
MODES = (VOCAB_SIZE + 20, VOCAB_SIZE + 21)
FRAME = Frame((START,), (END,), (), (END,))
SPAN = SpanDenoiser(SENTINELS, 0.3, 2.0)
DENOISERS = {
    "span": SPAN,
    "infill": InfillDenoiser(MASK),
    "prefix": PrefixDenoiser(),
    "mixture": MixtureDenoiser((SPAN, PrefixDenoiser()), MODES, (0, 1), (1.0, 1.0)),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lengths = np.random.default_rng(0).integers(1, 70, 40)
    documents, words = random_text(lengths, longest=9)
    return write_marked(tmp_path_factory.mktemp("rows") / "ids", documents, words, held_out=lambda i: i % 4 == 3)


def make_rows(corpus, kind="span", number=10**6):
    rows = TrainingRows(corpus, ROW, number, seed=1, overlap=0)
    return DenoisingRows(rows, PieceReader(corpus, SEED, with_sentences=True), DENOISERS[kind], FRAME)


def documents_of(row):
    """The pairs of a row, without what stands around them."""
    sides = []
    for ids, positions in (("input_ids", "position_ids"), ("labels", "decoder_position_ids")):
        begins = np.flatnonzero(row[positions] == 0)
        sides.append(np.split(row[ids], begins[1:]) if len(begins) else [])
        assert row[positions].tolist() == [place for part in sides[-1] for place in range(len(part))]
    assert len(sides[0]) == len(sides[1])
    for source, target in zip(*sides):
        assert source[0] == START and source[-1] == END and target[-1] == END
        yield source[1:-1], target[:-1]


def text_of(corpus, document):
    """The tokens of a document between its start and its end token, and which of them begin a sentence."""
    first, last = int(corpus.offsets[document]) + 1, int(corpus.offsets[document + 1]) - 1
    return corpus.tokens[first:last].astype(np.int64), corpus.begins("sentences", first, last)


@pytest.mark.parametrize("kind", DENOISERS)
def test_rows_are_those_of_a_plain_loop(corpus, kind):
    rows = make_rows(corpus, kind)
    assert rows.rows.rows_per_epoch < 60
    for index in range(0, 120, 3):  # two passes
        expected = []
        for span in rows.rows.spans(index):
            text, begins = text_of(corpus, span.document)
            places = [place - 1 for place in range(span.first, span.first + len(span.tokens))]
            places = [place for place in places if 0 <= place < len(text)]
            if places:
                first, end = places[0], places[-1] + 1
                key = make_key(SEED, span.pass_number, span.document)
                pair = DENOISERS[kind](Piece(text[first:end], first, len(text), key, begins[first:end]))
                if len(pair.target):
                    expected.append([pair.source.tolist(), pair.target.tolist()])
        assert [[side.tolist() for side in pair] for pair in documents_of(rows[index])] == expected
        assert all(values.dtype == np.int64 for values in rows[index].values())


def test_an_epoch_has_every_token_and_each_document_is_spoilt_as_a_whole(corpus):
    rows, noise, seen = make_rows(corpus), {}, 0
    for index in range(rows.rows.rows_per_epoch):
        pairs = documents_of(rows[index])
        for span in rows.rows.spans(index):
            piece = rows.read(span)
            if piece is None:
                continue
            mask = SPAN.mask(piece)
            noise.setdefault(span.document, []).append((piece.first, mask))
            seen += len(piece.tokens)
            if mask.any():
                source, target = next(pairs)
                assert restored(TextPair(source, target), SENTINELS) == piece.tokens.tolist()
    whole = [text_of(corpus, document)[0] for document in corpus.documents("train")]
    assert sum(map(len, whole)) - seen < ROW  # the last row is not full
    for document, parts in noise.items():
        text = text_of(corpus, document)[0]
        expected = SPAN.mask(Piece(text, 0, len(text), make_key(SEED, 0, document)))
        for first, mask in parts:
            assert np.array_equal(mask, expected[first : first + len(mask)])
    assert any(len(parts) > 1 for parts in noise.values())


@pytest.mark.parametrize("kind", DENOISERS)
def test_rows_depend_on_their_number_only(corpus, kind):
    """Whatever was read before: any number of processes, workers and rows of a micro-batch."""
    rows = make_rows(corpus, kind, number=60)
    expected = [rows[index] for index in range(60)]
    for step in (7, 11):
        again = make_rows(corpus, kind, number=60)
        for index in (i * step % 60 for i in range(60)):
            assert all(np.array_equal(again[index][name], value) for name, value in expected[index].items())
    loader = DataLoader(make_rows(corpus, kind, number=60), batch_size=6, num_workers=2, collate_fn=collate_pairs)
    for number, batch in enumerate(loader):
        of_batch = collate_pairs(expected[6 * number : 6 * number + 6])
        assert batch.keys() == of_batch.keys()
        assert all(torch.equal(batch[name], tensor) for name, tensor in of_batch.items())


def rows_of(batch):
    """The rows of a batch without padding, of which this says that it is nothing but padding."""
    sides = {"attention_mask": ("input_ids", "position_ids")}
    sides["decoder_attention_mask"] = tuple(batch.keys() - {*sides["attention_mask"], "attention_mask"})
    rows = [{} for _ in batch["labels"]]
    for mask, names in sides.items():
        is_token, lengths = batch[mask].bool(), batch[mask].sum(-1)
        assert is_token.tolist() == [[place < length for place in range(is_token.shape[1])] for length in lengths]
        for name in names:
            assert (batch[name][~is_token] == (IGNORE_INDEX if name == "labels" else PAD)).all()
            for row, values, length in zip(rows, batch[name], lengths):
                row[name] = values[:length].numpy()
    return rows


def pairs_of(rows):
    """The pairs of rows, each with the modes of its target, in the order of their tokens."""
    pairs = []
    for row in rows:
        ends = np.flatnonzero(row["decoder_position_ids"] == 0)[1:]
        modes = [each.tolist() for each in np.split(row["modes"], ends)]
        pairs += [(source.tolist(), target.tolist(), mode) for (source, target), mode in zip(documents_of(row), modes)]
    return sorted(pairs)


@pytest.mark.parametrize("size", [1, 2, 8, 32])
@pytest.mark.parametrize("kind", DENOISERS)
def test_both_sides_of_a_batch_are_nearly_full_and_it_has_every_pair_once(corpus, kind, size):
    rows = make_rows(corpus, kind)
    for start in range(0, 64, size):
        given = [rows[index] for index in range(start, start + size)]
        batch = collate_pairs([*given, pack_pairs([], modes=[])])
        assert pairs_of(rows_of(batch)) == pairs_of([row for row in given if len(row["labels"])])
        for mask in ("attention_mask", "decoder_attention_mask"):
            assert batch[mask].float().mean() >= FILLED >= 0.95


def test_a_batch_without_any_pair_changes_no_weight():
    """All its documents are empty, or of one token, of which no span can be taken."""
    batch = collate_pairs([pack_pairs([], modes=[])] * 3)
    assert {tuple(tensor.shape) for tensor in batch.values()} == {(1, 1)} and not pairs_of(rows_of(batch)[1:])
    for backend in ("sdpa", "eager"):
        model = two_stacks()
        model.set_attn_implementation(backend)
        given = {name: tensor for name, tensor in batch.items() if name != "modes"}
        loss = model(**given, return_logits=False, use_cache=False, num_items_in_batch=torch.tensor(1)).loss
        loss.backward()
        assert loss == 0
        assert all(not weight.grad.any() for weight in model.parameters() if weight.grad is not None)


def two_stacks(**changes):
    config = tiny_config(
        vocab_size=96, is_encoder_decoder=True, decoder_start_token_id=START, pad_token_id=0, **changes
    )
    return make_model(config, model_class=WeftForConditionalGeneration)


def nats_of(model, batch):
    """The loss of each target [rows, targets], as training computes it."""
    given = {name: tensor for name, tensor in batch.items() if name != "modes"}
    outputs = model(**given, return_logits=False, use_cache=False)
    assert outputs.logits is None
    return outputs.target_nats.view(batch["labels"].shape)


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", DENOISERS)
def test_other_documents_of_a_row_change_no_bit_of_a_loss(corpus, kind, backend):
    model, batch = two_stacks(), collate_pairs([make_rows(corpus, kind)[index] for index in range(32)])
    model.set_attn_implementation(backend)
    rows = rows_of(batch)
    assert len(rows) > 1
    with torch.no_grad():
        before = nats_of(model, batch)
    changed = {name: tensor.clone() for name, tensor in batch.items()}
    is_other = []
    for number, row in enumerate(rows):
        documents = [np.cumsum(row[name] == 0) - 1 for name in ("position_ids", "decoder_position_ids")]
        chosen = documents[0][-1] // 2
        for name, of_tokens in zip(("input_ids", "labels"), documents):
            places = np.flatnonzero(of_tokens == chosen)
            changed[name][number, places] = torch.randint(5, VOCAB_SIZE, (len(places),))
        mask = torch.zeros(batch["labels"].shape[1], dtype=torch.bool)
        mask[: len(documents[1])] = torch.from_numpy(documents[1] != chosen)
        is_other.append(mask)
    is_other = torch.stack(is_other)
    with torch.no_grad():
        after = nats_of(model, changed)
    assert is_other.sum() > 20 and torch.equal(before[is_other], after[is_other])
    inside = ~is_other & (batch["labels"] != IGNORE_INDEX)
    assert (before[inside] != after[inside]).float().mean() > 0.9


@pytest.mark.parametrize("kind", DENOISERS)
def test_a_packed_document_is_as_it_is_alone_and_gradients_are_finite(corpus, kind):
    model, whole = two_stacks().double(), collate_pairs([make_rows(corpus, kind)[index] for index in range(32)])
    packed, rows = nats_of(model, whole).detach(), rows_of(whole)
    assert len(rows) > 1
    for number, row in enumerate(rows):
        place = 0
        for source, target in documents_of(row):
            ids, labels = [START, *source.tolist(), END], [*target.tolist(), END]
            inputs = {"input_ids": torch.tensor([ids]), "decoder_input_ids": torch.tensor([[START, *labels[:-1]]])}
            log_shares = model(**inputs).logits[0].log_softmax(-1)
            expected = -log_shares.gather(1, torch.tensor(labels)[:, None])[:, 0]
            found = packed[number, place : place + len(labels)]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
            place += len(labels)
    batch = {name: tensor for name, tensor in whole.items() if name != "modes"}
    model(**batch, return_logits=False, use_cache=False).loss.backward()
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


def test_a_tail_of_a_document_and_texts_without_an_end_are_read_from_their_first_token(tmp_path):
    """A head has no end token; its tail begins with the token before it, which is none of its text."""
    corpus = write_ids(tmp_path / "ids", [[START, 11, 12, 13], [13, 14, 15, END], [START, END]])
    read, rows = PieceReader(corpus, SEED), TrainingRows(corpus, 10, 1, seed=1, overlap=0)
    pieces = {span.document: read(span) for span in rows.spans(0) if span.first == 0 and len(span.tokens) == 4}
    for document, text in ((0, [11, 12, 13]), (1, [14, 15])):
        if document in pieces:
            assert pieces[document].tokens.tolist() == text and pieces[document].length == len(text)
    assert [read.text_of(document) for document in range(3)] == [(1, 4), (5, 7), (9, 9)]


def model_for_text(**changes):
    return two_stacks(max_position_embeddings=512, **changes)


@torch.no_grad()
def nats_by_hand(model, source, target):
    logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([[START, *target[:-1]]])).logits[0].double()
    return (-logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None])[:, 0]).tolist(), logits.argmax(-1).tolist()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_denoising_scores_are_those_of_each_document_alone(corpus, batch_size):
    model = model_for_text()
    rows = DenoisingRows(
        ValidationRows(corpus, ROW, overlap=0), PieceReader(corpus, 0, True), DENOISERS["mixture"], FRAME
    )
    evaluator = DenoisingEvaluator(rows, ("regular", "sequential"))
    nats, right = {0: [], 1: []}, []
    for index in range(len(rows)):
        for source, target in documents_of(rows[index]):
            of_target, best = nats_by_hand(model, [START, *source.tolist(), END], [*target.tolist(), END])
            nats[MODES.index(source[0])] += of_target
            right += [one == other for one, other in zip(best, [*target.tolist(), END])]
    every = nats[0] + nats[1]
    expected = {"loss": np.mean(every), "denoising_loss": np.mean(every), "target_accuracy": np.mean(right)}
    expected |= {"regular_loss": np.mean(nats[0]), "sequential_loss": np.mean(nats[1])}
    assert evaluator(StandInTrainer(model, batch_size)) == pytest.approx(expected, rel=RELATIVE)
    assert evaluate_on(5, evaluator, model, batch_size) == pytest.approx(expected, rel=RELATIVE)


@pytest.mark.parametrize("modes", [(), MODES[1:]], ids=["plain", "mode"])
@pytest.mark.parametrize("window", [16, 500])
def test_bits_per_byte_are_those_of_every_token_given_what_is_before_it(corpus, window, modes):
    model = model_for_text()
    rows = ContinuationRows(PieceReader(corpus, 0), window, FRAME, modes)
    nats = text_nats = targets = byte_count = 0
    for document in corpus.documents("validation").tolist():
        text = text_of(corpus, document)[0].tolist()
        byte_count += int(corpus.byte_counts[document])
        for start in range(0, len(text), window):
            before, inside = text[max(0, start - window) : start], text[start : start + window]
            target = [*inside, END] if start + window >= len(text) else inside
            costs = nats_by_hand(model, [START, *modes, *before, END], target)[0]
            nats, text_nats, targets = nats + sum(costs), text_nats + sum(costs[: len(inside)]), targets + len(target)
    expected = {"loss": nats / targets, "perplexity": math.exp(nats / targets)}
    expected["bits_per_byte"] = text_nats / math.log(2) / byte_count
    evaluator = ContinuationEvaluator(rows)
    assert evaluator(StandInTrainer(model, 3)) == pytest.approx(expected, rel=RELATIVE)
    assert evaluate_on(4, evaluator, model, 3) == pytest.approx(expected, rel=RELATIVE)
    assert window == 500 or len(rows) < len(rows.windows)


def test_held_out_text_with_nothing_to_predict_is_refused(tmp_path):
    corpus = write_marked(tmp_path / "ids", *random_text([1] * 8), held_out=lambda i: i % 2)
    rows = DenoisingRows(ValidationRows(corpus, ROW, overlap=0), PieceReader(corpus, 0), SPAN, FRAME)
    with pytest.raises(RecipeError, match="nothing of the held-out text is predicted, so short is it: hold more text"):
        DenoisingEvaluator(rows)
    corpus = write_ids(tmp_path / "empty", [[START, 5, END], [START, END]], held_out=lambda i: i == 1)
    with pytest.raises(RecipeError, match=r"the held-out text of .* has no token to predict: hold more text out"):
        ContinuationRows(PieceReader(corpus, 0), 8, FRAME)
