"""hmmlearn learns the same hidden Markov model, and gensim's word vectors come into the table of baselines.py."""

import json

import numpy as np
import pytest
from helpers import runs
from helpers.documents import blocks, joined, make_documents
from hmmlearn.hmm import CategoricalHMM

from weft.recipes import baselines
from weft.recipes.classical.hidden_markov import EMITTED, LEFT, HiddenMarkovModel, unigrams_of
from weft.recipes.classical.word_vectors import VECTORS, learn_vectors

STATES, VOCABULARY = 4, 12


def test_hmmlearn_learns_and_scores_the_same() -> None:
    documents = [each[1:] for each in make_documents(50, VOCABULARY)]
    unigrams = unigrams_of(blocks(documents), VOCABULARY)
    ours = HiddenMarkovModel.random(STATES, unigrams, False, seed=0, dtype=np.float64)
    theirs = CategoricalHMM(
        STATES,
        n_features=VOCABULARY,
        startprob_prior=1 + LEFT / STATES,
        transmat_prior=1 + LEFT / STATES,
        emissionprob_prior=np.tile(1 + EMITTED * unigrams, (STATES, 1)),
        n_iter=5,
        tol=-np.inf,
        init_params="",
    )
    theirs.startprob_, theirs.transmat_, theirs.emissionprob_ = ours.initial, ours.transitions, ours.emissions.T
    theirs.fit(np.concatenate(documents)[:, None], [len(each) for each in documents])
    for _ in range(5):
        ours = ours.expect(*joined(documents)).maximize(unigrams, False)
    np.testing.assert_allclose(theirs.startprob_, ours.initial, rtol=1e-6)
    np.testing.assert_allclose(theirs.transmat_, ours.transitions, rtol=1e-6)
    np.testing.assert_allclose(theirs.emissionprob_.T, ours.emissions, rtol=1e-6)
    total = ours.expect(*joined(documents)).log_likelihood
    scored = theirs.score(np.concatenate(documents)[:, None], [len(each) for each in documents])
    assert scored == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("kind", VECTORS)
def test_vectors_are_the_same_every_time(kind: str) -> None:
    sentences = [f"the {animal} sees the {other}".split() for animal in ("cat", "dog") for other in ("bird", "tree")]
    one, other = (learn_vectors(kind, sentences * 5, seed=1) for _ in range(2))
    np.testing.assert_array_equal(one["cat"], other["cat"])
    assert not np.array_equal(one["cat"], learn_vectors(kind, sentences * 5, seed=2)["cat"])


def test_word_vectors_stand_in_the_table(tmp_path) -> None:
    text, pairs = runs.write_sentences(tmp_path / "text.txt"), tmp_path / "pairs.csv"
    words = runs.WORDS[2:10]
    pairs.write_text("".join(f"{a},{b},{len(a) + len(b)}\n" for a in words for b in words if a < b))
    given = ["--train_files", text, "--vocab_size", 300, "--models", "ngram-1", "--output_dir", tmp_path / "out"]
    baselines.main([*map(str, given), "--similarity_file", str(pairs)])
    found = json.loads((tmp_path / "out" / "baselines.json").read_text())["word_similarity"]
    assert list(found["spearman"]) == ["Word2Vec", "FastText"] and found["in_the_text"] == 28
    assert all(-1 <= value <= 1 for value in found["spearman"].values())
