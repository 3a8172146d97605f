"""What the metrics are tried on: of each, a list of predictions, references and options."""

import itertools

import numpy as np

SEEDS = range(4)


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


CASES_OF_CLASSES = {
    "accuracy": [(*pair, {}) for pair in CLASSES],
    "calibration": probability_cases(),
    "f1": f1_cases(),
    "matthews": [(*pair, {}) for pair in CLASSES],
    "multilabel": matrix_cases(),
}
CASES_OF_NUMBERS = {
    "pearson_spearman": number_cases(),
    "pearsonr": number_cases(),
    "perplexity": nat_cases(),
    "spearmanr": number_cases(),
}
CASES_OF_TAGS = {"seqeval": tag_cases()}
CASES_OF_ANSWERS = {"squad": question_cases(with_no_answer=False), "squad_v2": question_cases(with_no_answer=True)}
CASES_OF_TEXTS = {
    "bleu": text_cases({}, {"tokenize": "zh"}, {"tokenize": "char", "lowercase": True}),
    "chrf": text_cases({}, {"word_order": 2}),
    "rouge": text_cases({}),
}
CASES = {**CASES_OF_CLASSES, **CASES_OF_NUMBERS, **CASES_OF_TAGS, **CASES_OF_ANSWERS, **CASES_OF_TEXTS}
