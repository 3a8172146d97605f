"""Scores that cannot be computed have a documented value and a sentence that says so; nothing else is touched."""

import json
import math
import sys
import warnings
from pathlib import Path

import evaluate
import pytest

from weft.recipes import metrics
from weft.recipes.common.errors import RecipeError
from weft.recipes.metrics import HEADLINES, METRICS, load_metric

WORST = sys.float_info.max
NAN = float("nan")


def score(name, predictions, references, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_metric(name).compute(predictions=predictions, references=references, **options)


def answer(text, probability=None):
    return {"id": "q", "prediction_text": text, "no_answer_probability": probability}


def question(*answers):
    return {"id": "q", "answers": {"text": list(answers), "answer_start": [0] * len(answers)}}


@pytest.mark.parametrize(
    ("name", "predictions", "references", "options", "expected", "words"),
    [
        ("accuracy", [], [], {}, {"accuracy": 0.0}, ["no examples"]),
        ("bleu", [], [], {}, {"bleu": 0.0}, ["no examples"]),
        ("bleu", [""], [["a b"]], {}, {"bleu": 0.0, "prediction_length": 0}, ["no prediction has a token"]),
        ("chrf", [], [], {}, {"chrf": 0.0}, ["no examples"]),
        ("f1", [], [], {}, {"f1": 0.0, "precision": 0.0, "recall": 0.0}, ["no examples"]),
        ("f1", [], [], {"average": "weighted"}, {"f1": 0.0}, ["no examples"]),
        ("f1", [], [], {"average": None}, {"f1": [], "labels": []}, ["no examples"]),
        ("f1", [0, 0], [0, 0], {}, {"f1": 0.0}, ["f1, precision and recall of class 1: never predicted nor present"]),
        ("f1", [0, 0], [1, 0], {}, {"f1": 0.0}, ["precision of class 1: never predicted"]),
        ("f1", [1, 0], [0, 0], {}, {"f1": 0.0}, ["recall of class 1: never present"]),
        ("f1", [0, 2], [0, 1], {"average": "macro"}, {"f1": 1 / 3}, ["precision of class 1", "recall of class 2"]),
        ("f1", [5], [5], {"average": "weighted", "labels": [3]}, {"f1": 0.0}, ["of class 3: never predicted nor"]),
        ("f1", [5], [5], {"average": "micro", "labels": [3, 4]}, {"f1": 0.0}, ["of all classes together: never"]),
        ("matthews", [], [], {}, {"matthews_correlation": 0.0}, ["no examples"]),
        ("matthews", [1, 1], [0, 1], {}, {"matthews_correlation": 0.0}, ["all predictions are class 1"]),
        (
            "matthews",
            [3],
            [2],
            {},
            {"matthews_correlation": 0.0},
            ["predictions are class 3", "references are class 2"],
        ),
        ("pearsonr", [], [], {}, {"pearsonr": 0.0}, ["two examples or more are needed, and 0 given"]),
        ("pearsonr", [0.1] * 3, [1, 2, 3], {}, {"pearsonr": 0.0}, ["all predictions are equal"]),
        ("spearmanr", [1, 2], [0.1, 0.1], {}, {"spearmanr": 0.0}, ["all references are equal"]),
        ("spearmanr", [NAN, 2], [1, 2], {}, {"spearmanr": 0.0}, ["some predictions are not finite"]),
        ("pearson_spearman", [1], [1], {}, {"pearson": 0.0, "spearmanr": 0.0, "corrcoef": 0.0}, ["and 1 given"]),
        ("multilabel", [], [], {}, {"f1_micro": 0.0, "hamming_loss": 1.0}, ["no examples"]),
        ("multilabel", [[1]], [[-100]], {"threshold": 0}, {"f1_macro": 0.0, "lrap": 0.0}, ["no examples"]),
        ("multilabel", [[0], [0]], [[0], [0]], {}, {"f1_micro": 0.0, "subset_accuracy": 1.0}, ["micro", "label 0"]),
        ("multilabel", [[0, 1]], [[1, 0]], {}, {"f1_weighted": 0.0}, ["precision of label 0", "recall of label 1"]),
        (
            "multilabel",
            [[0.1, 0.9], [0.4, 0.8]],
            [[0, 1], [1, 1]],
            {"threshold": 0.5},
            {"roc_auc_macro": 1.0, "roc_auc_micro": 1.0},
            ["precision of label 0", "roc_auc of label 1"],
        ),
        ("multilabel", [[NAN, 1]], [[0, 1]], {"threshold": 0}, {"f1_micro": 1.0, "lrap": 0.0}, ["0", "not numbers"]),
        ("seqeval", [], [], {}, {"f1": 0.0, "accuracy": 0.0, "types": {}}, ["all entities", "no tags"]),
        ("seqeval", [["O"]], [["O"]], {}, {"f1": 0.0, "accuracy": 1.0}, ["all entities: never predicted nor present"]),
        ("seqeval", [["O"]], [["O"]], {"zero_division": 1}, {"f1": 1.0, "recall": 1.0}, ["all entities"]),
        ("seqeval", [["I-A"]], [["O"]], {"mode": "strict"}, {"f1": 0.0, "types": {}}, ["all entities"]),
        ("seqeval", [["O"]], [["B-A"]], {}, {"f1": 0.0, "support": 1}, ["precision of all", "precision of type A"]),
        ("rouge", [], [], {}, {"rouge1": 0.0, "rougeL": 0.0}, ["no examples"]),
        (
            "rouge",
            ["a", "?"],
            [["a"], ["!"]],
            {},
            {"rouge1": 0.5, "rouge2": 0.0},
            ["rouge1, rougeL of 1 texts: no reference has a word", "rouge2 of 2 texts: no reference has two words"],
        ),
        ("squad", [], [], {}, {"exact_match": 0.0, "f1": 0.0}, ["no questions"]),
        ("squad_v2", [], [], {}, {"exact": 0.0, "f1": 0.0, "total": 0}, ["no questions"]),
        ("perplexity", [], [], {}, {"loss": WORST, "perplexity": WORST, "tokens": 0}, ["no tokens"]),
        (
            "perplexity",
            [[1.0]],
            [[-100]],
            {"byte_count": 0},
            {"bits_per_byte": WORST},
            ["no tokens", "byte_count is 0"],
        ),
        ("perplexity", [NAN], [3], {"byte_count": 1}, {"loss": WORST, "bits_per_byte": WORST}, ["not finite"]),
        ("perplexity", [2e3], [2], {}, {"loss": 1e3, "perplexity": WORST}, ["larger than the largest float"]),
        ("calibration", [], [], {}, {"ece": 1.0, "mce": 1.0, "brier": 2.0, "accuracy": 0.0}, ["no examples"]),
        ("calibration", [[NAN, NAN]], [0], {}, {"ece": 1.0, "accuracy": 0.0}, ["not finite"]),
        (
            "calibration",
            [[1.0, 0.0]],
            [1],
            {},
            {"ece": 1.0, "nll": 52 * math.log(2)},
            ["1 right classes have probability 0"],
        ),
    ],
)
def test_an_undefined_score_has_its_documented_value_and_is_named(
    name, predictions, references, options, expected, words
):
    found = score(name, predictions, references, **options)
    json.dumps(found, allow_nan=False)
    for key, value in expected.items():
        assert found[key] == (pytest.approx(value) if isinstance(value, float) else value)
    assert len(found["undefined"]) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found["undefined"])), found["undefined"]


GOOD_AND_BAD = {
    "accuracy": ([0, 1], [1, 1], [0, 1]),
    "bleu": (["a b c d e"], ["a b c e d"], [["a b c d e"]]),
    "calibration": ([[0.9, 0.1], [0.2, 0.8]], [[0.4, 0.6], [0.9, 0.1]], [0, 1]),
    "chrf": (["abc"], ["acb"], [["abc"]]),
    "f1": ([0, 1, 1], [1, 1, 0], [0, 1, 1]),
    "matthews": ([0, 1, 1], [1, 1, 0], [0, 1, 1]),
    "multilabel": ([[1, 0], [0, 1]], [[1, 1], [1, 0]], [[1, 0], [0, 1]]),
    "pearson_spearman": ([1.0, 2, 3], [1.0, 3, 2], [1.0, 2, 3]),
    "pearsonr": ([1.0, 2, 3], [1.0, 3, 2], [1.0, 2, 3]),
    "perplexity": ([2.0, 3.0], [4.0, 9.0], [2, 2]),
    "rouge": (["a b c"], ["c b a"], [["a b c"]]),
    "seqeval": ([["B-A"], ["B-A", "O"]], [["B-A"], ["B-A", "I-A"]], [["B-A"], ["B-A", "O"]]),
    "spearmanr": ([1.0, 2, 3], [1.0, 3, 2], [1.0, 2, 3]),
    "squad": ([{"id": "q", "prediction_text": "x y"}], [{"id": "q", "prediction_text": "x"}], [question("x y")]),
    "squad_v2": ([answer("x y")], [answer("x")], [question("x y")]),
}


@pytest.mark.parametrize("name", METRICS)
def test_headlines_tell_the_better_of_two_models(name):
    good, bad, references = GOOD_AND_BAD[name]
    headline = HEADLINES[name]
    scores = [score(name, predictions, references) for predictions in (good, bad)]
    assert "undefined" not in scores[0]
    better, worse = (found[headline.key] for found in scores)
    assert better > worse if headline.greater_is_better else better < worse


@pytest.mark.parametrize(
    ("name", "predictions", "references", "options", "words"),
    [
        ("bleu", ["a"], [[""]], {}, "text 0 has no reference, or empty ones only"),
        ("bleu", ["a"], [["a"]], {"tokenize": "ja-mecab"}, "choose one of 13a, intl, zh, char, none"),
        ("chrf", ["a"], [[]], {}, "text 0 has no reference"),
        ("chrf", ["a"], [["a"]], {"beta": 0}, "give at least 1, 0 and 1"),
        ("rouge", ["a"], [[]], {}, "text 0 has no reference"),
        ("f1", [0], [1], {"average": "samples"}, "choose binary, macro"),
        ("f1", [0], [1], {"labels": [1]}, "another average for labels"),
        ("f1", [0, 1], [1, 2], {}, "the data hold 3"),
        ("f1", [0, 2], [0, 2], {}, "pos_label is 1, and the data hold the classes 0 and 2"),
        ("multilabel", [[0, 1]], [[0]], {}, r"rows of \[1, 2\] entries"),
        ("multilabel", [[0, 1]], [[0, 2]], {}, "a reference is 2"),
        ("multilabel", [[0, 0.3]], [[0, 1]], {}, "a prediction is 0.3"),
        ("seqeval", [["O"]], [["O", "O"]], {}, "sentence 0 has 1 predictions and 2 references"),
        ("seqeval", [["PER"]], [["O"]], {}, "the tag 'PER' is none"),
        ("seqeval", [["B-PER"]], [["O"]], {"suffix": True}, "the tag 'B-PER' is none: tags are O or end with"),
        ("seqeval", [["E-PER"]], [["O"]], {"mode": "strict"}, "one of B, I and"),
        ("seqeval", [["O"]], [["O"]], {"mode": "soft"}, "mode is 'soft'"),
        ("seqeval", [["O"]], [["O"]], {"scheme": "IO"}, "choose one of IOB1"),
        ("seqeval", [["O"]], [["O"]], {"zero_division": 0.5}, "choose 0 or 1"),
        ("squad", [{"id": "p", "prediction_text": "x"}], [question("x")], {}, "question 'q' has no prediction"),
        ("squad", [{"id": "q", "prediction_text": "x"}], [question()], {}, "squad_v2 scores such questions"),
        ("squad", [{"id": "q", "prediction_text": "x"}] * 2, [question("x")] * 2, {}, "the same id"),
        ("squad", [{"id": "q", "prediction_text": "x"}], [question("x")], {"language": "fr"}, "choose one of en, zh"),
        (
            "squad_v2",
            [answer("x", 0.2), {**answer("y"), "id": "r"}],
            [question("x"), {**question("y"), "id": "r"}],
            {},
            "give all or none",
        ),
        ("perplexity", [[1.0, 2.0]], [[5]], {}, "text 0 has 2 predictions and 1 references"),
        ("perplexity", [1.0], [-100], {}, "none may be negative"),
        ("calibration", [[0.5, 0.5]], [2], {}, "reference 2 is none of the 2 classes"),
        ("calibration", [[2.5, -1.5]], [0], {}, "row 0 of predictions holds no probabilities"),
        ("calibration", [[0.5, 0.5], [1.0]], [0, 0], {}, r"rows of \[1, 2\] numbers"),
        ("calibration", [[0.5, 0.5]], [0], {"bins": 0}, "give 1 or more"),
        ("calibration", [[0.5, 0.5]], [0], {"binning": "quantile"}, "choose equal-width or equal-mass"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(name, predictions, references, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        score(name, predictions, references, **options)
    assert "\n" not in str(caught.value)


def test_without_no_answer_probabilities_no_threshold_is_applied_or_sought():
    found = score("squad_v2", [answer("x")], [question("x")], no_answer_threshold=-1.0)
    assert found == {"exact": 100, "f1": 100, "total": 1, "HasAns_exact": 100, "HasAns_f1": 100, "HasAns_total": 1}
    assert score("squad_v2", [answer("x", 0.0)], [question("x")], no_answer_threshold=-1.0)["exact"] == 0


def test_loading_and_computing_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in METRICS:
        good, _, references = GOOD_AND_BAD[name]
        assert load_metric(name).name == name
        score(name, good, references)
    assert list(tmp_path.iterdir()) == []


def test_the_table_names_every_folder():
    folders = Path(metrics.__file__).parent.glob("*/__init__.py")
    assert sorted(METRICS) == sorted(path.parent.name for path in folders)


def test_an_unknown_metric_is_refused_naming_the_known():
    with pytest.raises(RecipeError, match=r"no metric 'squadv2'.*accuracy.*squad_v2.*Did you mean 'squad_v2'\?"):
        load_metric("squadv2")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "weft.recipes.metrics.seqeval.seqeval", raising=False)
    for module in [module for module in sys.modules if module.split(".")[0] == "seqeval"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "seqeval", None)
    with pytest.raises(RecipeError, match="the metric 'seqeval' needs seqeval, which is not installed"):
        load_metric("seqeval")
