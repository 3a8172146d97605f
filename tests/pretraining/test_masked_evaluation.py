"""Losses and accuracies of masked, hybrid and pair models are those of each document by itself, on any processes."""

import math

import numpy as np
import pytest
import torch
from helpers.evaluation import StandInTrainer, evaluate_on
from helpers.masks import END, START, VOCAB_SIZE, VOCABULARY, mask_by_hand, random_text, write_marked
from helpers.models import make_model, tiny_config
from helpers.text import write_ids

from weft import WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining
from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.masked import MaskedValidationRows
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.datasets.packed import ValidationRows
from weft.recipes.pretraining.datasets.sentence_pairs import SentencePairRows
from weft.recipes.pretraining.objectives.causal import CausalEvaluator
from weft.recipes.pretraining.objectives.hybrid import HybridEvaluator
from weft.recipes.pretraining.objectives.masked import MaskedEvaluator
from weft.recipes.pretraining.objectives.sentence_pairs import SentencePairEvaluator

ROW, RATE = 24, 0.3
RELATIVE = 1e-5  # the model computes in float32


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lengths = np.random.default_rng(0).integers(1, 60, 12)
    return write_marked(
        tmp_path_factory.mktemp("evaluation") / "ids", *random_text(lengths), held_out=lambda i: i % 3 != 2
    )


def masker_for(corpus):
    return Masker(corpus, MaskingArguments(masking="word", mask_rate_end=RATE), VOCABULARY, 0)


def model_of(model_class, **changes):
    return make_model(tiny_config(vocab_size=VOCAB_SIZE, is_causal=False, **changes), model_class=model_class)


def stretches(corpus, overlap):
    """Documents of the held-out text, cut where rows end: document, first place, places."""
    place = 0
    for document in corpus.documents("validation").tolist():
        length = int(corpus.offsets[document + 1] - corpus.offsets[document]) - overlap
        first = 0
        while first < length:
            size = min(length - first, ROW - place % ROW)
            yield document, first, size
            first, place = first + size, place + size


class Score:
    """Nats and right answers of one prediction after another, in float64."""

    def __init__(self):
        self.nats, self.right = [], []

    def add(self, logits, target):
        logits = logits.double()
        self.nats.append((torch.logsumexp(logits, 0) - logits[target]).item())
        self.right.append(int(logits.argmax()) == target)

    def metrics(self, name):
        return {f"{name}_loss": np.mean(self.nats), f"{name}_accuracy": np.mean(self.right)}


@torch.no_grad()
def masked_by_hand(model, corpus, overlap):
    """Each stretch alone; with overlap 1, a masked token is predicted from the place before it."""
    score, masker = Score(), masker_for(corpus)
    for document, first, size in stretches(corpus, overlap):
        selected, masked = mask_by_hand(masker, document, RATE)
        ids = corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]].tolist()
        hidden = model.model(torch.tensor([masked[first : first + size]]), is_causal=False).last_hidden_state[0]
        logits = model.get_logits(hidden)
        for i in range(size):
            if selected[first + i + overlap]:
                score.add(logits[i], ids[first + i + overlap])
    return score.metrics("masked")


@torch.no_grad()
def causal_by_hand(model, corpus):
    causal = WeftForCausalLM(model.config).eval()
    causal.load_state_dict(model.state_dict())
    score, text_nats = Score(), 0.0
    for document, first, size in stretches(corpus, 1):
        ids = corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]].tolist()
        logits = causal(torch.tensor([ids[first : first + size]]), use_cache=False).logits[0]
        for i in range(size):
            score.add(logits[i], ids[first + i + 1])
            text_nats += score.nats[-1] if first + i + 2 < len(ids) else 0.0
    byte_count = sum(int(corpus.byte_counts[document]) for document in corpus.documents("validation"))
    loss = np.mean(score.nats)
    return {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": text_nats / math.log(2) / byte_count}


def masked_evaluator(corpus, overlap):
    return MaskedEvaluator(MaskedValidationRows(ValidationRows(corpus, ROW, overlap), masker_for(corpus), RATE))


def assert_metrics(evaluator, model, expected, processes=(2, 3, 16)):
    expected = pytest.approx(expected, rel=RELATIVE)
    for batch_size in (1, 3, 100):
        assert evaluator(StandInTrainer(model, batch_size)) == expected
    for number in processes:
        assert evaluate_on(number, evaluator, model, 2) == expected


@pytest.mark.parametrize("overlap", [0, 1])
def test_masked_metrics_are_those_of_each_document_alone(corpus, overlap):
    model = model_of(WeftForMaskedLM, masked_next_token=bool(overlap))
    expected = masked_by_hand(model, corpus, overlap)
    assert_metrics(masked_evaluator(corpus, overlap), model, {**expected, "loss": expected["masked_loss"]})


def test_a_model_that_always_says_the_same_is_right_as_often_as_it_is_there(corpus):
    model = model_of(WeftForMaskedLM, lm_head_bias=True)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.lm_head.bias.data[7] = 3.0
    evaluator = masked_evaluator(corpus, 0)
    targets = [evaluator.rows[index]["targets"] for index in range(len(evaluator.rows))]
    targets = np.concatenate([each[each != IGNORE_INDEX] for each in targets])
    metrics = evaluator(StandInTrainer(model, 4))
    assert metrics["masked_accuracy"] == pytest.approx((targets == 7).mean())
    loss = math.log(VOCAB_SIZE - 1 + math.exp(3)) - 3 * (targets == 7).mean()
    assert metrics["masked_loss"] == pytest.approx(loss, rel=1e-6)


def test_the_causal_metrics_of_a_masked_model_are_those_of_the_causal_class(corpus):
    model = model_of(WeftForMaskedLM, masked_next_token=True)
    evaluator = CausalEvaluator(ValidationRows(corpus, ROW), masked_model=True)
    assert_metrics(evaluator, model, causal_by_hand(model, corpus))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_hybrid_metrics_are_both_and_the_loss_their_weighted_mean(corpus, share):
    model = model_of(WeftForMaskedLM, masked_next_token=True)
    causal, masked = causal_by_hand(model, corpus), masked_by_hand(model, corpus, 1)
    evaluator = HybridEvaluator(
        CausalEvaluator(ValidationRows(corpus, ROW), masked_model=True), masked_evaluator(corpus, 1), share
    )
    expected = {**causal, **masked, "causal_loss": causal["loss"]}
    expected["loss"] = share * causal["loss"] + (1 - share) * masked["masked_loss"]
    assert_metrics(evaluator, model, expected, processes=(2, 3))


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    draw = np.random.default_rng(1)
    ids, begins = [], []
    for _ in range(14):
        lengths = draw.integers(1, 9, 8)
        ids.append([START, *draw.integers(5, VOCAB_SIZE, lengths.sum()).tolist(), END])
        begins.append([True, *(i == 0 for length in lengths for i in range(length)), True])
    folder = tmp_path_factory.mktemp("sentences") / "ids"
    return write_marked(folder, ids, [[True] * len(each) for each in ids], begins, held_out=lambda i: i % 2 == 0)


@pytest.mark.parametrize("swap", [False, True], ids=["next-sentence", "sentence-order"])
@torch.no_grad()
def test_pair_metrics_are_those_of_each_pair_alone(sentences, swap):
    model = model_of(WeftForPreTraining, type_vocab_size=2)
    rows = SentencePairRows(sentences, "validation", ROW, masker_for(sentences), swap, 0, shuffle=False)
    masked, order = Score(), Score()
    for index in range(len(rows)):
        row = rows[index]
        ends = [*row["pool_from"].tolist()[1:], int(np.flatnonzero(row["input_ids"])[-1]) + 1]
        for begin, end, label in zip(row["pool_from"].tolist(), ends, row["pair_labels"].tolist()):
            ids, types = (torch.from_numpy(row[name][begin:end])[None] for name in ("input_ids", "token_type_ids"))
            outputs = model(ids, token_type_ids=types)
            for i, target in enumerate(row["targets"][begin:end].tolist()):
                if target != IGNORE_INDEX:
                    masked.add(outputs.prediction_logits[0, i], target)
            if label != IGNORE_INDEX:
                order.add(outputs.seq_relationship_logits[0], label)
    assert 0 < sum(order.right) < len(order.right)
    expected = {**masked.metrics("masked"), **order.metrics("next_sentence")}
    expected["loss"] = expected["masked_loss"] + expected["next_sentence_loss"]
    assert_metrics(SentencePairEvaluator(rows), model, expected)


def test_held_out_text_in_which_nothing_is_masked_is_refused(tmp_path):
    corpus = write_ids(tmp_path, [[START, 5, END], [START, 6, END]], held_out=lambda i: i == 0)
    masker = Masker(corpus, MaskingArguments(), VOCABULARY, 0)
    with pytest.raises(RecipeError, match="no token of the held-out text is masked, so short is it: hold more"):
        MaskedEvaluator(MaskedValidationRows(ValidationRows(corpus, ROW, 0), masker, 1e-9))
