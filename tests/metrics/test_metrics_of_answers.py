"""Exact match and F1 of answers in English and Chinese: the numbers of the official rules, written down once more."""

import math
import re
import string

import numpy as np
import pytest
from helpers.metric_cases import CASES_OF_ANSWERS
from helpers.metrics import METRICS_FOLDER, assert_scores_are_those_of, assert_some_scores_are

from weft.recipes.metrics import load_metric


def english_words(text):
    """Lower case, no punctuation, no articles."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in ("a", "an", "the")]


def english_f1(gold, guess):
    gold, guess = english_words(gold), english_words(guess)
    common = sum(min(gold.count(word), guess.count(word)) for word in set(gold))
    if common == 0:
        return 0.0
    precision, recall = common / len(guess), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def english_exact(gold, guess):
    return float(english_words(gold) == english_words(guess))


CHINESE_PUNCTUATION = {*"-:_*^/\\~`+=", *map(chr, (0xFF0C, 0x3002, 0xFF1A, 0xFF1F, 0xFF01, 0x201C, 0x201D, 0xFF1B))}
CHINESE_PUNCTUATION |= {*map(chr, (0x2019, 0xB7, 0x3001, 0xFF08, 0xFF09, 0xFF0D, 0xFF5E)), *"《》「」『』"}


def chinese_text(text):
    return "".join(character for character in text.lower().strip() if character not in CHINESE_PUNCTUATION)


def chinese_units(text):
    units, word = [], ""
    for character in chinese_text(text) + " ":
        if "\u4e00" <= character <= "\u9fa5" or character.isspace():
            # Of the tokenizer's cuts, those that the words of these tests ask for.
            units += re.findall(r"n't|do(?=n't)|[^,!%\s]+(?:,\d+)*|[,!%]", word)
            units += [character] if not character.isspace() else []
            word = ""
        else:
            word += character
    return units


def chinese_f1(gold, guess):
    gold, guess = chinese_units(gold), chinese_units(guess)
    runs = [gold[i:j] for i in range(len(gold)) for j in range(i + 1, len(gold) + 1)]
    longest = max(
        (len(run) for run in runs if any(guess[k : k + len(run)] == run for k in range(len(guess)))), default=0
    )
    if longest == 0:
        return 0.0
    precision, recall = longest / len(guess), longest / len(gold)
    return 2 * precision * recall / (precision + recall)


def chinese_exact(gold, guess):
    return float(chinese_text(gold) == chinese_text(guess))


RULES = {"en": (english_exact, english_f1, english_words), "zh": (chinese_exact, chinese_f1, chinese_units)}


def expected_squad(predictions, references, language="en"):
    exact, f1, _ = RULES[language]
    guesses = {prediction["id"]: prediction["prediction_text"] for prediction in predictions}
    pairs = [(reference["answers"]["text"], guesses[reference["id"]]) for reference in references]
    return {
        "exact_match": 100 * np.mean([max(exact(gold, guess) for gold in golds) for golds, guess in pairs]),
        "f1": 100 * np.mean([max(f1(gold, guess) for gold in golds) for golds, guess in pairs]),
    }


def expected_squad_v2(predictions, references, language="en", no_answer_threshold=1.0):
    """With every threshold tried from scratch."""
    exact, f1, units = RULES[language]
    golds = {reference["id"]: reference["answers"]["text"] for reference in references}
    empty = {"en": lambda text: not english_words(text), "zh": lambda text: not chinese_text(text)}[language]

    def both(name, guess):
        valid = [gold for gold in golds[name] if not empty(gold)] or [""]
        pairs = [(exact(gold, guess), f1(gold, guess), not units(gold) and not units(guess)) for gold in valid]
        return max(e for e, _, _ in pairs), max(1.0 if nothing else f for _, f, nothing in pairs)

    raw = {prediction["id"]: both(prediction["id"], prediction["prediction_text"]) for prediction in predictions}

    def mean(kept, place):
        def one(prediction):
            if prediction["no_answer_probability"] > no_answer_threshold:
                return float(not golds[prediction["id"]])
            return raw[prediction["id"]][place]

        return 100 * np.mean([one(prediction) for prediction in kept])

    result = {}
    groups = {
        "": predictions,
        "HasAns_": [prediction for prediction in predictions if golds[prediction["id"]]],
        "NoAns_": [prediction for prediction in predictions if not golds[prediction["id"]]],
    }
    for prefix, kept in groups.items():
        result |= {f"{prefix}exact": mean(kept, 0), f"{prefix}f1": mean(kept, 1), f"{prefix}total": len(kept)}
    order = sorted(predictions, key=lambda prediction: prediction["no_answer_probability"])
    for place, key in enumerate(("exact", "f1")):
        points = []
        for answered in range(len(order) + 1):
            gained = [
                raw[prediction["id"]][place]
                if golds[prediction["id"]] and i < answered
                else float(not golds[prediction["id"]] and not (i < answered and prediction["prediction_text"]))
                for i, prediction in enumerate(order)
            ]
            points.append(100 * math.fsum(gained) / len(order))
        result[f"best_{key}"] = max(points)
        first = next(i for i, point in enumerate(points) if point > max(points) - 1e-9)
        result[f"best_{key}_thresh"] = order[first - 1]["no_answer_probability"] if first else 0.0
    return result


EXPECTED = {"squad": expected_squad, "squad_v2": expected_squad_v2}


@pytest.mark.parametrize("name", CASES_OF_ANSWERS)
def test_every_score_is_that_of_the_reference(name):
    assert_scores_are_those_of(EXPECTED[name], name, CASES_OF_ANSWERS[name])


def question(name, *answers):
    return {"id": name, "answers": {"text": list(answers), "answer_start": [0] * len(answers)}}


ANSWERS = [question("a", "1976"), question("b", "Beyoncé and Bruno Mars"), question("c", "climate change")]
GUESSES = [
    {"id": name, "prediction_text": text, "no_answer_probability": 0.0}
    for name, text in (("a", "1976"), ("b", "Beyonce"), ("c", "climate change"))
]


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [
        # From the documentation of the libraries and of evaluate's own modules.
        ("squad", ([{k: g[k] for k in ("id", "prediction_text")} for g in GUESSES], ANSWERS, {}), {"f1": 200 / 3}),
        ("squad_v2", (GUESSES, ANSWERS, {}), {"exact": 200 / 3, "f1": 200 / 3, "total": 3, "best_f1": 200 / 3}),
        # Equal probabilities: the prediction that costs a point comes before the one that gains it.
        (
            "squad_v2",
            ([{**GUESSES[1], "id": "d"}, GUESSES[0]], [ANSWERS[0], question("d")], {}),
            {"exact": 50.0, "best_exact": 50.0, "best_exact_thresh": 0.0},
        ),
        # CMRC counts the longest run of characters that both hold, not those that they share: 4 of 6 and of 5.
        (
            "squad",
            (
                [{"id": "a", "prediction_text": "在南京长江"}],
                [question("a", "南京长江大桥", "苏州")],
                {"language": "zh"},
            ),
            {"exact_match": 0.0, "f1": 100 * 8 / 11},
        ),
    ],
)
def test_worked_examples(name, case, expected):
    assert_some_scores_are(name, case, expected)


def test_both_question_metrics_compare_answers_by_the_same_code():
    texts = [(METRICS_FOLDER / name / "answers.py").read_text(encoding="utf-8") for name in ("squad", "squad_v2")]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["squad", "squad_v2"])
def test_answers_in_scripts_without_blanks_are_compared_by_characters(name):
    """The run of signs that two answers have in common, each with its marks; blanks and punctuation do not matter."""

    def scores(gold, guess):
        references = [{"id": "1", "answers": {"text": [gold], "answer_start": [0]}}]
        guesses = [{"id": "1", "prediction_text": guess, **({"no_answer_probability": 0.0} if name != "squad" else {})}]
        found = load_metric(name).compute(predictions=guesses, references=references, language="unspaced")
        return found["exact_match" if name == "squad" else "exact"], found["f1"]

    assert scores("กรุงเทพ มหานคร!", "กรุงเทพมหานคร") == (100, 100)
    # ก รุ ง เ ท พ and ก รุ ง: three signs in common of six and three
    assert scores("กรุงเทพ", "กรุง") == (0, pytest.approx(100 * 2 * 3 / 9))
    assert scores("กรุงเทพ", "กรัง") == (0, pytest.approx(100 * 2 * 1 / 9))  # another vowel makes another sign
    assert scores("東京タワー", "タワー") == (0, pytest.approx(100 * 2 * 3 / 8))
    assert scores("ປະເທດລາວ in Asia", "ລາວ in Asia") == (0, pytest.approx(100 * 2 * 5 / 15))
    assert scores("กรุงเทพ", "") == (0, 0)
