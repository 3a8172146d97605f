"""Scores of entities are those of seqeval's own report, and of a reader that knows only what an entity is."""

import pytest
import seqeval.metrics
import seqeval.scheme
from helpers.metric_cases import CASES_OF_TAGS, SEEDS
from helpers.metrics import assert_scores_are_those_of, assert_some_scores_are, score

TAGS = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
GUESSED_TAGS = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]


def expected_seqeval(predictions, references, mode=None, scheme="IOB2", suffix=False):
    """The library's report, which is another way into it than the one that the metric takes."""
    report = seqeval.metrics.classification_report(
        references,
        predictions,
        output_dict=True,
        mode=mode,
        scheme=getattr(seqeval.scheme, scheme),
        suffix=suffix,
        zero_division=0,
    )
    named = {
        name: {
            "precision": scores["precision"],
            "recall": scores["recall"],
            "f1": scores["f1-score"],
            "support": scores["support"],
        }
        for name, scores in report.items()
    }
    overall = named.pop("micro avg")
    types = {name: scores for name, scores in named.items() if name not in ("macro avg", "weighted avg")}
    return {**overall, "accuracy": seqeval.metrics.accuracy_score(references, predictions), "types": types}


def test_every_score_is_that_of_the_reference():
    assert_scores_are_those_of(expected_seqeval, "seqeval", CASES_OF_TAGS["seqeval"])


def test_the_worked_example_of_the_library():
    assert_some_scores_are("seqeval", (GUESSED_TAGS, TAGS, {}), {"f1": 0.5, "accuracy": 0.8, "support": 2})


def test_entities_are_those_that_conlleval_reads():
    """The library's reading of IOB2 tags against a reader of its own, which knows only what an entity is."""

    def entities(sentence):
        found, kinds = [], [tag[2:] for tag in sentence]
        i = 0
        while i < len(sentence):
            end = i + 1
            if sentence[i] != "O":
                while end < len(sentence) and sentence[end] == "I-" + kinds[i]:
                    end += 1
                found.append((kinds[i], i, end))
            i = end
        return found

    cases = [case for case in CASES_OF_TAGS["seqeval"] if case[2] == {}]
    cases = [case for case in cases if not any("S-LOC" in tags for tags in case[1])]
    assert len(cases) == len(SEEDS)
    for predictions, references, options in cases:
        guessed = {(i, *entity) for i, sentence in enumerate(predictions) for entity in entities(sentence)}
        right = {(i, *entity) for i, sentence in enumerate(references) for entity in entities(sentence)}
        found = score("seqeval", (predictions, references, options))
        assert found["precision"] == pytest.approx(len(guessed & right) / len(guessed))
        assert found["recall"] == pytest.approx(len(guessed & right) / len(right))
