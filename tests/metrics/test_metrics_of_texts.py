"""BLEU and chrF are sacreBLEU's, ROUGE is that of Google's scorer, several references and Chinese included."""

import math

import numpy as np
import pytest
import sacrebleu
from helpers.metric_cases import CASES_OF_TEXTS
from helpers.metrics import assert_scores_are_those_of, assert_some_scores_are
from rouge_score.rouge_scorer import RougeScorer


def streams(references):
    """As many lists of references as the most that a text has, with None for one that it has not."""
    filled = [[*texts, None, None][:3] for texts in references]
    return [list(one) for one in zip(*filled)]


def number_of_references(references):
    several = {len(texts) for texts in references}
    return several.pop() if len(several) == 1 else "var"


def expected_bleu(predictions, references, tokenize="13a", lowercase=False):
    found = sacrebleu.corpus_bleu(predictions, streams(references), tokenize=tokenize, lowercase=lowercase)
    case, count = "lc" if lowercase else "mixed", number_of_references(references)
    version = sacrebleu.__version__
    return {
        "bleu": found.score,
        "precisions": found.precisions,
        "brevity_penalty": min(1.0, math.exp(1 - found.ref_len / found.sys_len)),
        "prediction_length": found.sys_len,
        "reference_length": found.ref_len,
        "signature": f"nrefs:{count}|case:{case}|eff:no|tok:{tokenize}|smooth:exp|version:{version}",
    }


def expected_chrf(predictions, references, word_order=0):
    found = sacrebleu.corpus_chrf(predictions, streams(references), word_order=word_order)
    count, version = number_of_references(references), sacrebleu.__version__
    return {
        "chrf": found.score,
        "signature": f"nrefs:{count}|case:mixed|eff:yes|nc:6|nw:{word_order}|space:no|version:{version}",
    }


def expected_rouge(predictions, references):
    """The library with its own tokenizer, which is given each Chinese character as a word that it knows."""

    def ascii_of(text):
        return "".join(f" u{ord(c)} " if "\u4e00" <= c <= "\u9fa5" else c for c in text)

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    found = {"rouge1": [], "rouge2": [], "rougeL": []}
    for text, texts in zip(predictions, references):
        each = [scorer.score(ascii_of(reference), ascii_of(text)) for reference in texts]
        for kind, scores in found.items():
            scores.append(max(one[kind].fmeasure for one in each))
    return {kind: np.mean(scores) for kind, scores in found.items()}


EXPECTED = {"bleu": expected_bleu, "chrf": expected_chrf, "rouge": expected_rouge}


@pytest.mark.parametrize("name", CASES_OF_TEXTS)
def test_every_score_is_that_of_the_reference(name):
    assert_scores_are_those_of(EXPECTED[name], name, CASES_OF_TEXTS[name])


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [
        # From sacreBLEU's README: three texts with two references each.
        (
            "bleu",
            (
                ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."],
                [
                    ["The dog bit the man.", "The dog had bit the man."],
                    ["It was not unexpected.", "No one was surprised."],
                    ["The man bit him first.", "The man had bitten the dog."],
                ],
                {},
            ),
            {"bleu": 48.530827009929865, "prediction_length": 17},
        ),
        # An empty reference is none, and does not count as the one of the closest length.
        ("bleu", (["a b c d"], [["a b c d e", ""]], {}), {"reference_length": 5, "bleu": 100 * math.exp(-1 / 4)}),
        ("chrf", (["abc"], [["abc", "xyz"]], {}), {"chrf": 100}),
        # Two of three words, one of two pairs, two in order; umlauts belong to words.
        ("rouge", (["Grün über alles"], [["grün über all"]], {}), {"rouge1": 2 / 3, "rouge2": 1 / 2, "rougeL": 2 / 3}),
    ],
)
def test_examples_worked_out_by_hand(name, case, expected):
    assert_some_scores_are(name, case, expected)
