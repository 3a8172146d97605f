"""`evaluate_lm.py --baseline` scores n-grams, or another model, on the text of the model, and tells the difference."""

import json
import math

import numpy as np
import pytest
from helpers.documents import joined
from helpers.scored import TEXTS, make_scored_model, make_tokenizer, text_ids
from helpers.text import sentences, write_paragraphs

from weft.recipes import evaluate_lm
from weft.recipes.classical.folders import save_token_model
from weft.recipes.classical.ngrams import count_ngrams
from weft.recipes.common.errors import RecipeError
from weft.tokenizer.vocabulary import number_of_ids


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A text, a causal and a masked model, and a trigram model."""
    root = tmp_path_factory.mktemp("baselines")
    write_paragraphs(root / "text.txt", TEXTS)
    for family in ("weft", "gpt2", "weft-masked"):
        tokenizer = make_tokenizer(encoder=family == "weft-masked")
        make_scored_model(family, tokenizer).save_pretrained(root / family)
        tokenizer.save_pretrained(root / family)
    tokenizer = make_tokenizer()
    documents = [[1, *text_ids(tokenizer, text), 2] for text in sentences(40)]
    model = count_ngrams(lambda: iter([joined(documents)]), 3, number_of_ids(tokenizer), quiet=True)
    (root / "ngram").mkdir()
    save_token_model(model, tokenizer, root / "ngram")
    return root, model, tokenizer


def run(root, out, baseline, *words, model="weft"):
    given = ["--model", root / model, "--baseline", root / baseline, "--files", root / "text.txt", *words]
    evaluate_lm.main([*map(str, given), "--output_file", str(out)])
    return json.loads(out.read_text())


def test_ngrams_are_scored_on_the_same_bytes_and_the_difference_is_told(places, tmp_path, capsys):
    root, model, tokenizer = places
    found = run(root, tmp_path / "out.json", "ngram")
    (ours,), (theirs,) = found["results"].values(), found["baseline"]["results"].values()
    rows = [np.array([1, *text_ids(tokenizer, text)]) for text in TEXTS]
    nats = -sum(model.log_probs(*joined([row])).sum() for row in rows)
    assert theirs["bits_per_byte"] == pytest.approx(nats / math.log(2) / ours["bytes"], rel=1e-12)
    for name in ("documents", "tokens", "words", "bytes", "characters"):
        assert theirs[name] == ours[name], name
    difference = ours["bits_per_byte"] - theirs["bits_per_byte"]
    assert theirs["model_minus_baseline"] == pytest.approx(difference, rel=1e-12)
    printed = capsys.readouterr().out
    assert f"beside {root / 'ngram'} (3-gram, Kneser-Ney)" in printed
    assert f"model_minus_baseline{difference:>16.4f}" in printed


def test_another_network_may_be_the_baseline(places, tmp_path):
    root = places[0]
    alone = run(root, tmp_path / "alone.json", "ngram", "--limit", 3, model="gpt2")["results"]
    found = run(root, tmp_path / "both.json", "gpt2", "--limit", 3)["baseline"]
    (expected,), (theirs,) = alone.values(), found["results"].values()
    assert {name: theirs[name] for name in expected} == expected
    same = run(root, tmp_path / "same.json", "weft", "--limit", 3)["baseline"]["results"].values()
    assert [each["model_minus_baseline"] for each in same] == [0.0]


@pytest.mark.parametrize(
    "model, baseline, words, sentence",
    [
        ("weft", "ngram", ["--max_tokens", 9], "max_tokens cannot be given together with baseline"),
        ("weft", "ngram", ["--task", "last-word"], "baseline has no effect on last-word"),
        ("weft-masked", "ngram", ["--scoring", "masked"], "baseline is scored causally, and the model masked"),
        ("weft-masked", "ngram", [], "is scored masked: give --scoring causal"),
        ("ngram", "weft", [], "is no network, and only compared with"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_scored(
    places, tmp_path, model, baseline, words, sentence
):
    with pytest.raises(RecipeError, match=sentence):
        run(places[0], tmp_path / "out.json", baseline, *words, model=model)
    assert not (tmp_path / "out.json").exists()
