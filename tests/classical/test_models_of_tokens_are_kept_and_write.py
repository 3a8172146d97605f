"""Models of tokens are saved without pickle, load as they were or are refused, score held-out text, and write."""

import json
import math
import shutil

import numpy as np
import pytest
from helpers.documents import joined

from weft.recipes.classical.folders import CONFIG, WEIGHTS, holds_token_model, load_token_model, save_token_model
from weft.recipes.classical.hidden_markov import learn
from weft.recipes.classical.ngrams import count_ngrams
from weft.recipes.classical.sampling import draw_token, write_text
from weft.recipes.classical.text import Documents, score_held_out
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus


@pytest.fixture(scope="module")
def prepared(english):
    return Corpus.open(english)


@pytest.fixture(scope="module")
def models(prepared):
    vocabulary, train = prepared.description["vocab_size"], Documents(prepared, "train")
    return [count_ngrams(train, 3, vocabulary, quiet=True), learn(train, 4, 3, vocabulary, has_start=True)]


@pytest.fixture(scope="module")
def folders(models, prepared, tmp_path_factory):
    found = []
    for model in models:
        found.append(tmp_path_factory.mktemp(model.KIND))
        save_token_model(model, prepared.tokenizer(), found[-1])
    return found


@pytest.fixture(params=[0, 1], ids=["n-gram", "hmm"])
def number(request):
    return request.param


def test_a_saved_model_is_the_same_and_no_file_of_it_is_pickled(number, models, folders, prepared):
    assert sorted(path.name for path in folders[number].iterdir()) == [CONFIG, WEIGHTS, "tokenizer"]
    assert holds_token_model(folders[number]) and not holds_token_model(prepared.folder)
    model, tokenizer = load_token_model(folders[number])
    assert tokenizer.get_vocab() == prepared.tokenizer().get_vocab()
    assert (model.title, model.size) == (models[number].title, models[number].size)
    for tokens, begins in Documents(prepared, "validation")():
        np.testing.assert_array_equal(model.log_probs(tokens, begins), models[number].log_probs(tokens, begins))


def test_held_out_text_is_scored_as_pretraining_scores_it(number, models, prepared):
    """Every token of a text and its end token given the start token and those before it; end tokens cost no bits."""
    model, nats, text_nats, targets, byte_count = models[number], 0.0, 0.0, 0, 0
    for document in prepared.documents("validation"):
        ids = prepared.tokens[prepared.offsets[document] : prepared.offsets[document + 1]].tolist()
        own = -model.log_probs(*joined([ids]))[1:]
        nats, text_nats, targets = nats + own.sum(), text_nats + own[:-1].sum(), targets + len(own)
        byte_count += int(prepared.byte_counts[document])
    found = score_held_out(model, prepared)
    assert found["loss"] == pytest.approx(nats / targets, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / targets), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(text_nats / math.log(2) / byte_count, rel=1e-5)
    assert byte_count == prepared.description["splits"]["validation"]["bytes"]


def test_blocks_hold_whole_documents_and_all_of_them(prepared):
    found = list(Documents(prepared, "train", block_tokens=100)())
    ids = [prepared.tokens[prepared.offsets[n] : prepared.offsets[n + 1]] for n in prepared.documents("train")]
    assert len(found) > 3
    np.testing.assert_array_equal(np.concatenate([tokens for tokens, _ in found]), np.concatenate(ids))
    lengths = np.concatenate([np.diff(begins) for _, begins in found])
    np.testing.assert_array_equal(lengths, [len(each) for each in ids])
    assert Documents(prepared, "train").tokens == sum(map(len, ids))


def test_the_same_seed_writes_the_same_text(number, models, prepared):
    tokenizer = prepared.tokenizer()
    texts = [write_text(models[number], tokenizer, "The", 20, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2] and texts[0].startswith("The") and len(texts[0]) > 3
    assert tokenizer.bos_token not in texts[0]
    assert write_text(models[number], tokenizer, "The", 0) == "The"


def test_tokens_are_drawn_as_often_as_temperature_and_top_p_say():
    probabilities, draw = np.array([0.1, 0.5, 0.1, 0.3]), np.random.default_rng(0)
    for temperature, top_p, expected in (
        (1.0, 1.0, probabilities),
        (0.5, 1.0, np.square(probabilities) / np.square(probabilities).sum()),
        (1.0, 0.7, np.array([0, 5 / 8, 0, 3 / 8])),
        (1.0, 0.01, np.array([0, 1, 0, 0])),
    ):
        drawn = [draw_token(probabilities, draw, temperature, top_p) for _ in range(1500)]
        shares = np.bincount(drawn, minlength=4) / 1500
        assert np.all(abs(shares - expected) <= 5 * np.sqrt(expected * (1 - expected) / 1500) + 1e-12)


def change(folder, **fields):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    "break_it, sentence",
    [
        (lambda folder: (folder / WEIGHTS).write_bytes(b"torn"), "cannot be loaded"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot be loaded"),
        (lambda folder: (folder / CONFIG).unlink(), "cannot be loaded"),
        (lambda folder: change(folder, token_model="maximum-entropy"), "reads n-gram, hmm of version 1"),
        (lambda folder: change(folder, format_version=2), "reads n-gram, hmm of version 1"),
        (lambda folder: change(folder, vocab_size=7), "cannot be loaded"),
    ],
    ids=["torn", "no weights", "no config", "kind", "version", "vocabulary"],
)
def test_a_broken_folder_is_refused_in_a_sentence(number, folders, tmp_path, break_it, sentence):
    folder = shutil.copytree(folders[number], tmp_path / "copy")
    break_it(folder)
    with pytest.raises(RecipeError, match=sentence) as raised:
        load_token_model(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_counts_that_contradict_each_other_are_refused(models):
    model = models[0]
    for name, change in (
        ("counts.2", lambda a: a[:-1]),
        ("begins.3", lambda a: a[::-1]),
        ("tokens.2", lambda a: a + 1),
    ):
        arrays = {**model.arrays(), name: change(model.arrays()[name])}
        with pytest.raises(ValueError, match=r"contradict|no order"):
            type(model).from_saved(model.settings(), arrays)
