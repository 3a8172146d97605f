"""Loss, perplexity and bits per byte are those of scoring each held-out document by itself."""

import math

import pytest
import torch
from helpers.evaluation import StandInTrainer, evaluate_on
from helpers.models import make_model, tiny_config
from helpers.text import CHINESE, EMOJI, prepare_documents, sentences

from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.datasets.packed import ValidationRows
from weft.recipes.pretraining.objectives.causal import CausalEvaluator
from weft.recipes.pretraining.validation import token_nats

ROW = 32
RELATIVE = 1e-5  # the model computes in float32
TEXTS = [*sentences(6, words=6), CHINESE, EMOJI, "x"]  # all shorter than a row, in characters as tokens


def make_corpus(folder, **changes):
    """A corpus whose documents are all held out but a few."""
    folder.mkdir(exist_ok=True)
    held_out = folder / "held_out.txt"
    held_out.write_text("\n\n".join(TEXTS), encoding="utf-8")
    train = [*sentences(3, seed=5), CHINESE[::-1], EMOJI[::-1]]
    changes = {"tokenizer_type": "char", "validation_files": [str(held_out)], **changes}
    return prepare_documents(folder, train, **changes)


def model_for(corpus):
    return make_model(tiny_config(vocab_size=corpus.description["vocab_size"], max_position_embeddings=1024))


@torch.no_grad()
def score_by_hand(model, corpus, piece_length):
    """Nats of all targets, nats of the text's tokens, number of targets, bytes: document by document in float64.

    A document longer than a row goes on in the next one as a document of its own: `piece_length` says where rows end.
    """
    model = model.double()
    nats = text_nats = 0.0
    targets = byte_count = place = 0
    for document in corpus.documents("validation"):
        ids = corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]].tolist()
        byte_count += int(corpus.byte_counts[document])
        first = 0
        while first < len(ids) - 1:
            length = min(len(ids) - 1 - first, piece_length - place % piece_length)
            piece = torch.tensor([ids[first : first + length]])
            logits = model(input_ids=piece, use_cache=False).logits[0].double()
            for i in range(length):
                target = ids[first + i + 1]
                cost = (torch.logsumexp(logits[i], 0) - logits[i, target]).item()
                nats += cost
                targets += 1
                is_end = corpus.has_end_tokens and first + i + 1 == len(ids) - 1
                text_nats += 0.0 if is_end else cost
            first, place = first + length, place + length
    model.float()
    return nats, text_nats, targets, byte_count


def expected_metrics(*arguments):
    nats, text_nats, targets, byte_count = score_by_hand(*arguments)
    return {
        "loss": nats / targets,
        "perplexity": math.exp(nats / targets),
        "bits_per_byte": text_nats / math.log(2) / byte_count,
    }


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("row_length", [ROW, 1000])
def test_metrics_are_those_of_each_document_alone(tmp_path, row_length, batch_size):
    corpus = make_corpus(tmp_path)
    model = model_for(corpus)
    metrics = CausalEvaluator(ValidationRows(corpus, row_length))(StandInTrainer(model, batch_size))
    assert metrics == pytest.approx(expected_metrics(model, corpus, row_length), rel=RELATIVE)


def test_end_tokens_count_in_the_loss_and_not_in_bits_per_byte(tmp_path):
    corpus = make_corpus(tmp_path)
    model = model_for(corpus)
    nats, text_nats, targets, byte_count = score_by_hand(model, corpus, 1000)
    assert targets == sum(map(len, TEXTS)) + len(TEXTS)
    assert byte_count == sum(len(text.encode()) for text in TEXTS)
    assert nats > text_nats * (1 + 100 * RELATIVE)  # the difference is not lost in rounding
    metrics = CausalEvaluator(ValidationRows(corpus, 1000))(StandInTrainer(model, 2))
    assert metrics["bits_per_byte"] == pytest.approx(text_nats / math.log(2) / byte_count, rel=RELATIVE)
    assert metrics["loss"] == pytest.approx(nats / targets, rel=RELATIVE)


def test_a_model_that_knows_nothing_needs_log_vocabulary_bits_per_token(tmp_path):
    corpus = make_corpus(tmp_path)
    model = model_for(corpus)
    for parameter in model.parameters():
        parameter.data.zero_()
    metrics = CausalEvaluator(ValidationRows(corpus, ROW))(StandInTrainer(model, 4))
    size, characters, byte_count = corpus.description["vocab_size"], sum(map(len, TEXTS)), len("".join(TEXTS).encode())
    assert metrics["loss"] == pytest.approx(math.log(size), rel=1e-6)
    assert metrics["perplexity"] == pytest.approx(size, rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(characters * math.log2(size) / byte_count, rel=1e-6)


def test_held_out_tails_are_scored_over_their_own_bytes(tmp_path):
    corpus = make_corpus(tmp_path, validation_files=[], validation_split="tail", validation_fraction=0.5)
    model = model_for(corpus)
    metrics = CausalEvaluator(ValidationRows(corpus, ROW))(StandInTrainer(model, 3))
    assert metrics == pytest.approx(expected_metrics(model, corpus, ROW), rel=RELATIVE)


@pytest.mark.parametrize("processes", [3, 4, 16])
def test_any_number_of_processes_gives_the_same_metrics(tmp_path, processes):
    corpus = make_corpus(tmp_path)
    model, evaluator = model_for(corpus), CausalEvaluator(ValidationRows(corpus, ROW))
    alone = evaluator(StandInTrainer(model, 3))
    assert len(evaluator.rows) % processes  # some have rows of padding only
    assert evaluate_on(processes, evaluator, model, 3) == pytest.approx(alone, rel=1e-6)


def test_evaluating_leaves_the_model_and_the_random_numbers_as_they_were(tmp_path):
    corpus = make_corpus(tmp_path)
    model = make_model(tiny_config(vocab_size=corpus.description["vocab_size"], hidden_dropout=0.5)).train()
    evaluator = CausalEvaluator(ValidationRows(corpus, ROW))
    before = torch.get_rng_state()
    first = evaluator(StandInTrainer(model, 3))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert first == evaluator(StandInTrainer(model, 3))  # no dropout
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nats_are_float64_and_zero_without_a_target():
    logits = torch.tensor([[[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]])
    nats = token_nats(logits, torch.tensor([[2, IGNORE_INDEX]]))
    assert nats.dtype == torch.float64
    assert nats.tolist() == [pytest.approx([math.log(1 + math.exp(-1) + math.exp(-2)), 0.0])]
