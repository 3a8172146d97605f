"""Each metric that comes with the recipes gives the numbers of its reference, however it is loaded."""

import functools
import itertools
import json
import math
import os
import re
import string
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import scipy.stats
import seqeval.metrics
import seqeval.scheme
import sklearn.metrics
from helpers.elsewhere import BLOCK_THE_PACKAGE
from rouge_score.rouge_scorer import RougeScorer

from weft.recipes.metrics import METRICS, load_metric

FOLDER = Path(__file__).resolve().parents[1] / "recipes" / "metrics"
EXACT = {"rel": 1e-12, "abs": 1e-12}  # sums in another order
SEEDS = range(4)


@functools.cache
def metric_of(name):
    return load_metric(name)


def score(name, case):
    predictions, references, options = case
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return metric_of(name).compute(predictions=predictions, references=references, **options)


# What the metrics are tried on: of each, a list of predictions, references and options.


def classes_of(seed, classes, size):
    """Predictions that are right more often than by chance; the last two classes are often absent on one side."""
    rng = np.random.default_rng(seed)
    references = rng.integers(0, max(classes - 1, 2), size)
    guesses = rng.integers(0, classes, size)
    return np.where(rng.random(size) < 0.4, references, guesses).tolist(), references.tolist()


CLASSES = [classes_of(*case) for case in itertools.product(SEEDS, (2, 3, 30), (2, 150))]
AVERAGES = ("macro", "micro", "weighted", None)


def f1_cases():
    cases = [(*pair, {"average": average}) for pair in CLASSES[::2] for average in AVERAGES]
    cases += [(*pair, {"average": average, "labels": [2, 0, 77]}) for pair in CLASSES[::3] for average in AVERAGES]
    two = [classes_of(seed, 2, size) for seed in SEEDS for size in (5, 200)]
    return cases + [(*pair, {"pos_label": label}) for pair in two for label in (0, 1)]


def number_cases():
    cases = []
    for seed, size in itertools.product(SEEDS, (2, 9, 500)):
        rng = np.random.default_rng(seed)
        references = rng.normal(size=size)
        cases.append(((references + rng.normal(size=size)).tolist(), references.tolist(), {}))
        ties = rng.integers(0, 6, size) / 5 + np.arange(size) % 2
        cases.append((ties.tolist(), (ties * 1e-160 + np.arange(size) * 1e-161).tolist(), {}))
    return cases


def matrix_cases():
    """0/1 matrices with rare labels, with and without scores, some with entries that are left out."""
    cases = []
    for seed, (rows, labels), hidden in itertools.product(SEEDS, [(3, 1), (40, 5)], (0.0, 0.3)):
        rng = np.random.default_rng(seed)
        references = (rng.random((rows, labels)) < rng.random(labels) * 0.6).astype(int)
        scores = np.round(rng.random((rows, labels)) * 0.6 + references * 0.3, 1 if seed % 2 else 6)
        references[rng.random((rows, labels)) < hidden] = -100
        references[0, 0] = 1  # never is nothing known
        cases.append(((scores >= 0.5).astype(int).tolist(), references.tolist(), {}))
        cases.append((scores.tolist(), references.tolist(), {"threshold": 0.4}))
    return cases


def tag_cases():
    cases = []
    schemes = {"IOB2": "BI", "IOB1": "BI", "IOE2": "IE", "IOBES": "BIES", "BILOU": "BILU"}
    for seed, (scheme, prefixes) in itertools.product(SEEDS, schemes.items()):
        rng = np.random.default_rng(seed)
        names = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC", "LONG-NAME"))]
        lengths = rng.integers(0, 12, 30)
        references = [rng.choice(names, length).tolist() for length in lengths]
        predictions = [
            [tag if rng.random() < 0.8 else str(rng.choice(names[:6])) for tag in sentence] for sentence in references
        ]
        cases.append((predictions, references, {"mode": "strict", "scheme": scheme}))
        if scheme in ("IOB2", "IOBES"):
            cases.append((predictions, references, {}))
    flipped = [["-".join(reversed(tag.split("-"))) for tag in sentence] for sentence in [["B-PER", "I-PER", "O"]] * 2]
    return [*cases, (flipped, [flipped[0], ["O", "PER-B", "O"]], {"suffix": True})]


ENGLISH = "the a an An The river, stones. stones river's (light) 12 1,000 an-swer Light!  U.S. is"
CHINESE = "江苏省 南京 \uff0c长江 。 大桥 1968 年 the Yangtze River 《大桥》 「长江」 A-b , ! 江江 don't 3.5% 1,000"


def question_cases(with_no_answer):
    cases = []
    for seed, (language, words) in itertools.product(SEEDS, [("en", ENGLISH), ("zh", CHINESE)]):
        rng = np.random.default_rng(seed)

        def text(longest, rng=rng, words=words):
            return " ".join(rng.choice(words.split(" "), rng.integers(0, longest + 1)))

        predictions, references = [], []
        for i in range(60):
            answers = [text(6) for _ in range(rng.integers(0 if with_no_answer else 1, 4))]
            near = " ".join(rng.permutation((answers or [""])[0].split(" "))[:4])
            guess = text(5) if rng.random() < 0.3 else near if rng.random() < 0.8 else ""
            references.append({"id": f"q{i}", "answers": {"text": answers, "answer_start": [0] * len(answers)}})
            predictions.append({"id": f"q{i}", "prediction_text": guess})
            if with_no_answer:
                predictions[-1]["no_answer_probability"] = round(float(rng.random()), 1 if seed % 2 else 6)
        predictions = [predictions[i] for i in rng.permutation(len(predictions))]
        cases.append((predictions, references, {"language": language}))
        if with_no_answer:
            cases.append((predictions, references, {"language": language, "no_answer_threshold": 0.5}))
    return cases


def text_cases(*options):
    """Texts of one to three references, some of which are like them; in Chinese no words have blanks between them."""
    cases = []
    for seed, (words, blank) in itertools.product(SEEDS, [(ENGLISH.split(), " "), (list("江苏省南京长江。大桥a"), "")]):
        rng = np.random.default_rng(seed)
        predictions, references = [], []
        for _ in range(25):
            texts = [rng.choice(words, rng.integers(1, 14)) for _ in range(rng.integers(1, 4))]
            near = [word for word in texts[-1] if rng.random() < 0.8]
            predictions.append(blank.join(near if rng.random() < 0.8 else rng.permutation(near)))
            references.append([blank.join(text) for text in texts])
        cases += [(predictions, references, option) for option in options]
    return cases


def nat_cases():
    cases = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(0, 30, 20)
        nats = [(rng.random(length) * 8).tolist() for length in lengths]
        labels = [np.where(rng.random(length) < 0.3, -100, 5).tolist() for length in lengths]
        cases.append((nats, labels, {"byte_count": 321}))
        cases.append(([sum(numbers) for numbers in nats], lengths.tolist(), {"byte_count": 654}))
        cases.append(([sum(numbers) for numbers in nats], lengths.tolist(), {}))
    return cases


def probability_cases():
    cases = []
    for seed, (size, classes), bins in itertools.product(SEEDS, [(1, 2), (10, 3), (400, 20)], (15, 4)):
        rng = np.random.default_rng(seed)
        logits = rng.normal(size=(size, classes)) * 3
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        if seed % 2:  # confidences on the edges of bins
            probabilities = np.array([[confidence, 1 - confidence] for confidence in rng.integers(8, 16, size) / 15])
        references = rng.integers(0, probabilities.shape[1], size)
        for binning in ("equal-width", "equal-mass"):
            cases.append((probabilities.tolist(), references.tolist(), {"bins": bins, "binning": binning}))
    return cases


CASES = {
    "accuracy": [(*pair, {}) for pair in CLASSES],
    "bleu": text_cases({}, {"tokenize": "zh"}, {"tokenize": "char", "lowercase": True}),
    "calibration": probability_cases(),
    "chrf": text_cases({}, {"word_order": 2}),
    "f1": f1_cases(),
    "matthews": [(*pair, {}) for pair in CLASSES],
    "multilabel": matrix_cases(),
    "pearson_spearman": number_cases(),
    "pearsonr": number_cases(),
    "perplexity": nat_cases(),
    "rouge": text_cases({}),
    "seqeval": tag_cases(),
    "spearmanr": number_cases(),
    "squad": question_cases(with_no_answer=False),
    "squad_v2": question_cases(with_no_answer=True),
}
EMPTY = ([], [], {})


# The references.


def expected_accuracy(predictions, references):
    return {"accuracy": sklearn.metrics.accuracy_score(references, predictions)}


def expected_f1(predictions, references, average="binary", pos_label=1, labels=None):
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        references, predictions, average=average, pos_label=pos_label, labels=labels, zero_division=0
    )
    if average is not None:
        return {"f1": f1, "precision": precision, "recall": recall}
    labels = labels or sorted({*predictions, *references})
    return {"f1": f1.tolist(), "precision": precision.tolist(), "recall": recall.tolist(), "labels": labels}


def expected_matthews(predictions, references):
    return {"matthews_correlation": sklearn.metrics.matthews_corrcoef(references, predictions)}


def expected_pearsonr(predictions, references):
    references = np.array(references)
    if np.ptp(references) < 1e-100:
        references = references * 1e160  # scipy's squares leave the range of floats
    return {"pearsonr": scipy.stats.pearsonr(predictions, references).statistic}


def expected_spearmanr(predictions, references):
    return {"spearmanr": scipy.stats.spearmanr(predictions, references).statistic}


def expected_pearson_spearman(predictions, references):
    pearson, spearman = expected_pearsonr(predictions, references), expected_spearmanr(predictions, references)
    return {
        "pearson": pearson["pearsonr"],
        "spearmanr": spearman["spearmanr"],
        "corrcoef": (pearson["pearsonr"] + spearman["spearmanr"]) / 2,
    }


def expected_multilabel(predictions, references, threshold=None):
    """scikit-learn's scores of what is known: of matrices where all is, else of each label or example by itself."""
    scores, true = np.array(predictions), np.array(references)
    true = true[kept := (true != -100).any(axis=1)]
    scores = scores[kept]
    guess = (scores >= threshold).astype(int) if threshold is not None else scores
    known = true != -100
    found = {}
    scorers = {
        "f1": sklearn.metrics.f1_score,
        "precision": sklearn.metrics.precision_score,
        "recall": sklearn.metrics.recall_score,
    }
    for name, scorer in scorers.items():
        if known.all() and true.shape[1] > 1:
            for average in ("micro", "macro", "weighted"):
                found[f"{name}_{average}"] = scorer(true, guess, average=average, zero_division=0)
            continue
        found[f"{name}_micro"] = scorer(true[known], guess[known], zero_division=0)
        each = [scorer(t[k], g[k], zero_division=0) for t, g, k in zip(true.T, guess.T, known.T)]
        found[f"{name}_macro"] = np.mean(each)
        found[f"{name}_weighted"] = np.average(each, weights=(true == 1).sum(axis=0))
    found["subset_accuracy"] = np.mean([(t[k] == g[k]).all() for t, g, k in zip(true, guess, known)])
    found["hamming_loss"] = sklearn.metrics.zero_one_loss(true[known], guess[known])
    if threshold is not None:
        ranking = sklearn.metrics.label_ranking_average_precision_score
        found["lrap"] = np.mean(  # scikit-learn refuses examples of one label, which it would count as 1
            [ranking(t[k][None], s[k][None]) if k.sum() > 1 else 1.0 for t, s, k in zip(true, scores, known)]
        )
        areas = [
            sklearn.metrics.roc_auc_score(t[k], s[k])
            for t, s, k in zip(true.T, scores.T, known.T)
            if len(set(t[k])) == 2
        ]
        found["roc_auc_macro"] = np.mean(areas) if areas else 0.0
        both = len(set(true[known])) == 2
        found["roc_auc_micro"] = sklearn.metrics.roc_auc_score(true[known], scores[known]) if both else 0.0
    return found


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


def streams(references):
    """As many lists of references as the most that a text has, with None for one that it has not."""
    filled = [[*texts, None, None][:3] for texts in references]
    return [list(one) for one in zip(*filled)]


def expected_bleu(predictions, references, tokenize="13a", lowercase=False):
    found = sacrebleu.corpus_bleu(predictions, streams(references), tokenize=tokenize, lowercase=lowercase)
    several = {len(texts) for texts in references}
    case, count = "lc" if lowercase else "mixed", several.pop() if len(several) == 1 else "var"
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
    several = {len(texts) for texts in references}
    count, version = several.pop() if len(several) == 1 else "var", sacrebleu.__version__
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


def expected_perplexity(predictions, references, byte_count=None):
    if isinstance(predictions[0], list):
        kept = [n for nats, labels in zip(predictions, references) for n, label in zip(nats, labels) if label >= 0]
        nats, tokens = sum(kept), len(kept)
    else:
        nats, tokens = sum(predictions), sum(references)
    found = {"loss": nats / tokens, "perplexity": 2 ** (nats / tokens / math.log(2)), "tokens": tokens}
    return found if byte_count is None else found | {"bits_per_byte": nats * math.log2(math.e) / byte_count}


def expected_calibration(predictions, references, bins, binning):
    """Equations 2 to 5 of the paper, one example after the other."""
    confidences = [max(row) for row in predictions]
    hits = [row.index(max(row)) == reference for row, reference in zip(predictions, references)]
    order = sorted(range(len(hits)), key=confidences.__getitem__)
    if binning == "equal-width":
        parts = [[i for i in order if m / bins < confidences[i] <= (m + 1) / bins] for m in range(bins)]
    else:
        larger = len(order) % bins
        sizes = [len(order) // bins + (m < larger) for m in range(bins)]
        starts = [sum(sizes[:m]) for m in range(bins)]
        parts = [order[start : start + size] for start, size in zip(starts, sizes)]
    assert sorted(i for part in parts for i in part) == list(range(len(hits)))
    gaps = [
        (abs(sum(hits[i] for i in part) / len(part) - sum(confidences[i] for i in part) / len(part)), len(part))
        for part in parts
        if part
    ]
    return {
        "ece": sum(gap * size for gap, size in gaps) / len(hits),
        "mce": max(gap for gap, _ in gaps),
        "brier": sum(
            (p - (k == reference)) ** 2 for row, reference in zip(predictions, references) for k, p in enumerate(row)
        )
        / len(hits),
        "nll": sklearn.metrics.log_loss(references, predictions, labels=range(len(predictions[0]))),
        "accuracy": sum(hits) / len(hits),
    }


def defined_part(result):
    return {key: value for key, value in result.items() if key != "undefined"}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_close(found[key], value)
        elif isinstance(value, str):
            assert found[key] == value
        else:
            assert found[key] == pytest.approx(value, **EXACT), key


@pytest.mark.parametrize("name", METRICS)
def test_every_score_is_that_of_the_reference(name):
    for predictions, references, options in CASES[name]:
        with warnings.catch_warnings(action="ignore"):  # the references' own
            expected = globals()[f"expected_{name}"](predictions, references, **options)
        assert_close(defined_part(score(name, (predictions, references, options))), expected)


@pytest.mark.parametrize("name", METRICS)
def test_batches_give_the_scores_of_all_at_once(name):
    for predictions, references, options in CASES[name][-3:]:
        metric = load_metric(name)
        for i in range(0, len(references), 7):
            metric.add_batch(predictions=predictions[i : i + 7], references=references[i : i + 7])
        assert metric.compute(**options) == score(name, (predictions, references, options))
        assert metric.compute(predictions=[], references=[], **options).get("undefined")  # nothing is left over


IN_ANOTHER_PROCESS = """
import json, socket, warnings

def refuse(*arguments, **options):
    raise AssertionError("a metric asked for the network")

socket.socket.connect = socket.getaddrinfo = refuse
sys.modules["transformers"] = None  # evaluate would load it, which takes seconds; no metric needs it
import evaluate
del sys.modules["transformers"]

folder, given, found = sys.argv[1:]
results = {}
for name, cases in json.load(open(given, encoding="utf-8")).items():
    metric = evaluate.load(f"{folder}/{name}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results[name] = [metric.compute(predictions=p, references=r, **options) for p, r, options in cases]
json.dump(results, open(found, "w", encoding="utf-8"), allow_nan=False)
"""


def test_evaluate_loads_each_without_network_and_without_the_package(tmp_path):
    """As a recipe is launched: its folder comes first on the path, where `metrics` and `seqeval` must not be found."""
    cases = {name: [*some[:: max(1, len(some) // 4)], EMPTY] for name, some in CASES.items()}
    given, found = tmp_path / "given.json", tmp_path / "found.json"
    given.write_text(json.dumps(cases), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    environment["PYTHONPATH"] = str(FOLDER.parent)
    command = [sys.executable, "-c", BLOCK_THE_PACKAGE + IN_ANOTHER_PROCESS, str(FOLDER), str(given), str(found)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads(found.read_text(encoding="utf-8"))
    for name, some in cases.items():
        assert results[name] == [score(name, case) for case in some], name


def question(name, *answers):
    return {"id": name, "answers": {"text": list(answers), "answer_start": [0] * len(answers)}}


TAGS = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
GUESSED_TAGS = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
ANSWERS = [question("a", "1976"), question("b", "Beyoncé and Bruno Mars"), question("c", "climate change")]
GUESSES = [
    {"id": name, "prediction_text": text, "no_answer_probability": 0.0}
    for name, text in (("a", "1976"), ("b", "Beyonce"), ("c", "climate change"))
]


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [
        # From the documentation of the libraries and of evaluate's own modules.
        ("matthews", ([1, -1, 1, 1], [1, 1, 1, -1], {}), {"matthews_correlation": -1 / 3}),
        ("multilabel", ([[0.75, 0.5, 1], [1, 0.2, 0.1]], [[1, 0, 0], [0, 0, 1]], {"threshold": 0}), {"lrap": 5 / 12}),
        ("seqeval", (GUESSED_TAGS, TAGS, {}), {"f1": 0.5, "accuracy": 0.8, "support": 2}),
        ("squad", ([{k: g[k] for k in ("id", "prediction_text")} for g in GUESSES], ANSWERS, {}), {"f1": 200 / 3}),
        ("squad_v2", (GUESSES, ANSWERS, {}), {"exact": 200 / 3, "f1": 200 / 3, "total": 3, "best_f1": 200 / 3}),
        # Equal probabilities: the prediction that costs a point comes before the one that gains it.
        (
            "squad_v2",
            ([{**GUESSES[1], "id": "d"}, GUESSES[0]], [ANSWERS[0], question("d")], {}),
            {"exact": 50.0, "best_exact": 50.0, "best_exact_thresh": 0.0},
        ),
        # Two bins of one example each, confidences 0.6 (wrong) and 0.9 (right).
        ("calibration", ([[0.6, 0.4], [0.1, 0.9]], [1, 1], {}), {"ece": 0.35, "mce": 0.6, "brier": 0.37}),
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
        ("perplexity", ([[math.log(4)], [math.log(16), 9.0]], [[3], [3, -100]], {"byte_count": 3}), {"perplexity": 8}),
    ],
)
def test_worked_examples(name, case, expected):
    found = score(name, case)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9)


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

    cases = [case for case in CASES["seqeval"] if case[2] == {} and not any("S-LOC" in tags for tags in case[1])]
    assert len(cases) == len(SEEDS)
    for predictions, references, options in cases:
        guessed = {(i, *entity) for i, sentence in enumerate(predictions) for entity in entities(sentence)}
        right = {(i, *entity) for i, sentence in enumerate(references) for entity in entities(sentence)}
        found = score("seqeval", (predictions, references, options))
        assert found["precision"] == pytest.approx(len(guessed & right) / len(guessed))
        assert found["recall"] == pytest.approx(len(guessed & right) / len(right))


def test_both_question_metrics_compare_answers_by_the_same_code():
    """They cannot share a file, since each has to work where only its own is."""
    mark = "# From here on squad and squad_v2 are the same"
    texts = [(FOLDER / name / f"{name}.py").read_text(encoding="utf-8") for name in ("squad", "squad_v2")]
    assert all(text.count(mark) == 1 for text in texts)
    assert len({text.partition(mark)[2] for text in texts}) == 1
