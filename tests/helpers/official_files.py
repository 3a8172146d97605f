"""Small stand-ins of the files of every known task, in exactly the form in which they are published."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EXAMPLES = {"train": 24, "validation": 6, "test": 6}
NAMES, PLACES = ("Anna", "Boris", "Clara", "Dmitri"), ("Rome", "Oslo", "New York", "Cape Town")
CHINESE_NAMES, CHINESE_PLACES = ("王小明", "李雷", "叶老桂", "韩梅"), ("北京", "上海", "浙江", "大理")

Files = dict[str, str]  # names, with folders, and contents


def english(number: int) -> str:
    return f"{NAMES[number % 4]} went to {PLACES[number // 4 % 4]} on day {number} ."


def chinese(number: int) -> str:
    return f"{CHINESE_NAMES[number % 4]}在第{number}天去了{CHINESE_PLACES[number // 4 % 4]}旅行。"


def numbers(split: str) -> range:
    """Numbers of the examples of a split, so that no two have the same text."""
    first = {"train": 0, "validation": 100, "test": 200}[split]
    return range(first, first + EXAMPLES[split])


def _tsv(row: Callable[[int], Sequence[Any]], header: Sequence[str] = (), **names: str) -> Files:
    """A file between tabs for each split, by its name."""
    return {
        name: "".join(
            "\t".join(map(str, one)) + "\n" for one in ([header] if header else []) + [*map(row, numbers(split))]
        )
        for split, name in names.items()
    }


def _jsonl(row: Callable[[int], dict[str, Any]], **names: str) -> Files:
    return {
        name: "".join(json.dumps(row(number), ensure_ascii=False) + "\n" for number in numbers(split))
        for split, name in names.items()
    }


def _csv(
    row: Callable[[int], Sequence[Any]], header: Sequence[str], quoting: int, mark: str = "", **names: str
) -> Files:
    files = {}
    for split, name in names.items():
        text = io.StringIO()
        writer = csv.writer(text, quoting=quoting, lineterminator="\n")
        writer.writerows(([header] if header else []) + [row(number) for number in numbers(split)])
        files[name] = mark + text.getvalue()
    return files


def _columns(words: Callable[[int], list[tuple[str, ...]]], separator: str, start: str = "", **names: str) -> Files:
    """A word and its tags a line, and blank lines between sentences."""
    return {
        name: start + "".join("".join(separator.join(word) + "\n" for word in words(n)) + "\n" for n in numbers(split))
        for split, name in names.items()
    }


def _tagged(number: int) -> list[tuple[str, str]]:
    """English words with their tags in IOB2."""
    first, *rest = PLACES[number // 4 % 4].split()
    place = [(first, "B-LOC"), *((word, "I-LOC") for word in rest)]
    name = [(NAMES[number % 4], "B-PER")]
    return [*name, ("went", "O"), ("to", "O"), *place, ("on", "O"), ("day", "O"), (f"{number}", "O"), (".", "O")]


def _chinese_tagged(number: int, end: str = "I") -> list[tuple[str, str]]:
    """Chinese signs with their tags; `end` is the letter of the last one of a name."""
    name, place = CHINESE_NAMES[number % 4], CHINESE_PLACES[number // 4 % 4]
    found = []
    for text, kind in ((name, "PER"), (f"第{number}天在", ""), (place, "LOC"), ("旅行。", "")):
        for sign, letter in zip(text, ["B", *"I" * (len(text) - 2), end]):
            found.append((sign, f"{'M' if letter == 'I' and end == 'E' else letter}-{kind}" if kind else "O"))
    return found


def _conllu(words: Callable[[int], list[str]], **names: str) -> Files:
    def rows(number: int) -> str:
        lines = [f"# sent_id = {number}", f"# text = {''.join(words(number))}"]
        for place, word in enumerate(words(number), start=1):
            speech = "PUNCT" if word in ".。" else "NOUN" if place % 2 else "VERB"
            follows = "_" if word.isascii() and place + 1 < len(words(number)) else "SpaceAfter=No"
            lines.append("\t".join([str(place), word, word, speech, "X", "_", "0", "dep", "_", follows]))
        return "\n".join(lines) + "\n\n"

    return {name: "".join(map(rows, numbers(split))) for split, name in names.items()}


def _squad(
    context: Callable[[int], str], answer: Callable[[int], str], question: str, some_without: bool, **names: str
) -> Files:
    files = {}
    for split, name in names.items():
        articles = []
        for number in numbers(split):
            text, found = context(number), answer(number)
            asked: dict[str, Any] = {"id": f"Q{number}", "question": question}
            asked["answers"] = [{"text": found, "answer_start": text.index(found)}]
            if some_without:
                asked["is_impossible"] = number % 3 == 0
                asked |= {"answers": [], "plausible_answers": asked["answers"]} if number % 3 == 0 else {}
            articles.append({"title": f"T{number}", "paragraphs": [{"context": text, "qas": [asked]}]})
        files[name] = json.dumps({"version": "1", "data": articles}, ensure_ascii=False)
    return files


def _piqa() -> Files:
    rows = _jsonl(
        lambda n: {"goal": english(n), "sol1": "go by train", "sol2": "go on foot"},
        train="train.jsonl",
        validation="valid.jsonl",
    )
    labels = {"train": "train-labels.lst", "validation": "valid-labels.lst"}
    return rows | {name: "".join(f"{n % 2}\n" for n in numbers(split)) for split, name in labels.items()}


def _winogrande(size: str) -> Files:
    return _jsonl(
        lambda n: {
            "qID": f"{n}",
            "sentence": f"On day {n} Anna met Boris and _ smiled.",
            "option1": "Anna",
            "option2": "Boris",
            "answer": f"{n % 2 + 1}",
        },
        train=f"train_{size}.jsonl",
        validation="dev.jsonl",
    )


def _arc(name: str) -> Files:
    choices = [{"text": "the sun", "label": "A"}, {"text": "the moon", "label": "B"}]
    return _jsonl(
        lambda n: {"id": f"{n}", "question": {"stem": english(n), "choices": choices}, "answerKey": "AB"[n % 2]},
        train=f"{name}/{name}-Train.jsonl",
        validation=f"{name}/{name}-Dev.jsonl",
        test=f"{name}/{name}-Test.jsonl",
    )


def _folders() -> Files:
    return {
        f"aclImdb/{split}/{label}/{n}_{n % 10}.txt": english(n) + f" {label}"
        for split in ("train", "test")
        for n in numbers(split)
        for label in ("neg", "pos")
    }


def _mnli() -> Files:
    shared = (
        "index",
        "promptID",
        "pairID",
        "genre",
        *(f"sentence{k}_{kind}" for kind in ("binary_parse", "parse") for k in (1, 2)),
        "sentence1",
        "sentence2",
    )
    label = ("entailment", "neutral", "contradiction")

    def row(n: int, annotators: int) -> list[Any]:
        gold = label[n % 3]
        return [n, f"{n}", f"{n}n", "fiction", *["( x )"] * 4, english(n), english(n + 1), *[gold] * annotators, gold]

    dev = (*shared, *(f"label{k}" for k in range(1, 6)), "gold_label")
    return {
        **_tsv(lambda n: row(n, 1), (*shared, "label1", "gold_label"), train="train.tsv"),
        **_tsv(lambda n: row(n, 5), dev, validation="dev_matched.tsv"),
        **_tsv(lambda n: row(n, 5), dev, test="dev_mismatched.tsv"),
    }


SPLITS = {"train": "train.tsv", "validation": "dev.tsv"}
STS_COLUMNS = (
    "index",
    "genre",
    "filename",
    "year",
    "old_index",
    "source1",
    "source2",
    "sentence1",
    "sentence2",
    "score",
)
MRPC_COLUMNS = ("\ufeffQuality", "#1 ID", "#2 ID", "#1 String", "#2 String")
SWAG_COLUMNS = (
    "",
    "video-id",
    "fold-ind",
    "startphrase",
    "sent1",
    "sent2",
    "gold-source",
    *(f"ending{n}" for n in range(4)),
    "label",
)
CSL = {"train": "ts_train.tsv", "validation": "ts_dev.tsv", "test": "ts_test.tsv"}

OFFICIAL: dict[str, Callable[[], Files]] = {
    "cola": lambda: _tsv(lambda n: ("gj04", n % 2, "*" if n % 2 == 0 else "", english(n)), **SPLITS),
    "sst2": lambda: _tsv(lambda n: (english(n), n % 2), ("sentence", "label"), **SPLITS),
    "mrpc": lambda: _tsv(
        lambda n: (n % 2, n, n + 1, english(n), english(n + 1)),
        MRPC_COLUMNS,
        train="msr_paraphrase_train.txt",
        test="msr_paraphrase_test.txt",
    ),
    "stsb": lambda: _tsv(
        lambda n: (n, "news", "x", 2012, n, "none", "none", english(n), english(n + 1), n % 5 + 0.25),
        STS_COLUMNS,
        **SPLITS,
    ),
    "qqp": lambda: _tsv(
        lambda n: (n, n, n + 1, english(n), english(n + 1), n % 2),
        ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
        **SPLITS,
    ),
    "mnli": _mnli,
    "qnli": lambda: _tsv(
        lambda n: (n, english(n), english(n + 1), ("entailment", "not_entailment")[n % 2]),
        ("index", "question", "sentence", "label"),
        **SPLITS,
    ),
    "rte": lambda: _tsv(
        lambda n: (n, english(n), english(n + 1), ("entailment", "not_entailment")[n % 2]),
        ("index", "sentence1", "sentence2", "label"),
        **SPLITS,
    ),
    "wnli": lambda: _tsv(
        lambda n: (n, english(n), english(n + 1), n % 2), ("index", "sentence1", "sentence2", "label"), **SPLITS
    ),
    "imdb": _folders,
    "ag_news": lambda: _csv(
        lambda n: (n % 4 + 1, f"Day {n}", english(n)), (), csv.QUOTE_ALL, train="train.csv", test="test.csv"
    ),
    "trec": lambda: _tsv(
        lambda n: (f"{('HUM:ind', 'LOC:city')[n % 2]} Who {english(n)}",),
        train="train_5500.label",
        test="TREC_10.label",
    ),
    "go_emotions": lambda: _tsv(
        lambda n: (english(n), f"{n % 4},27" if n % 5 == 0 else n % 4, f"id{n}"), test="test.tsv", **SPLITS
    ),
    "chnsenticorp": lambda: _tsv(lambda n: (n % 2, chinese(n)), ("label", "text_a"), test="test.tsv", **SPLITS),
    "tnews": lambda: _jsonl(
        lambda n: {
            "label": ("100", "102")[n % 2],
            "label_desc": ("news_story", "news_entertainment")[n % 2],
            "sentence": chinese(n),
            "keywords": "",
        },
        train="train.json",
        validation="dev.json",
    ),
    "lcqmc": lambda: _tsv(
        lambda n: (chinese(n), chinese(n + 1), n % 2), train="train.txt", validation="dev.txt", test="test.txt"
    ),
    "ocnli": lambda: _jsonl(
        lambda n: {
            "level": "easy",
            "sentence1": chinese(n),
            "sentence2": chinese(n + 1),
            "label": ("neutral", "entailment", "contradiction")[n % 3],
            "genre": "news",
            "prem_id": f"p{n}",
            "id": n,
        },
        train="train.50k.json",
        validation="dev.json",
    ),
    "waimai": lambda: _csv(
        lambda n: (n % 2, chinese(n)), ("label", "review"), csv.QUOTE_MINIMAL, "\ufeff", train="waimai_10k.csv"
    ),
    "conll2000": lambda: _columns(
        lambda n: [(word, "NN", tag.replace("PER", "NP").replace("LOC", "PP")) for word, tag in _tagged(n)],
        " ",
        train="train.txt",
        test="test.txt",
    ),
    "conll2003": lambda: _columns(
        lambda n: [(word, "NN", "I-NP", tag.replace("B-", "I-")) for word, tag in _tagged(n)],
        " ",
        "-DOCSTART- -X- -X- O\n\n",
        train="eng.train",
        validation="eng.testa",
        test="eng.testb",
    ),
    "wnut17": lambda: _columns(
        _tagged, "\t", train="wnut17train.conll", validation="emerging.dev.conll", test="emerging.test.annotated"
    ),
    "cluener": lambda: _jsonl(
        lambda n: {"text": chinese(n), "label": {"name": {CHINESE_NAMES[n % 4]: [[0, len(CHINESE_NAMES[n % 4]) - 1]]}}},
        train="train.json",
        validation="dev.json",
    ),
    "msra_ner": lambda: _columns(_chinese_tagged, "\t", train="msra_train_bio", test="msra_test_bio"),
    "weibo_ner": lambda: _columns(
        lambda n: [
            (f"{sign}{tag.startswith('I'):d}", f"{tag}.NAM" if tag != "O" else tag) for sign, tag in _chinese_tagged(n)
        ],
        "\t",
        train="weiboNER_2nd_conll.train",
        validation="weiboNER_2nd_conll.dev",
        test="weiboNER_2nd_conll.test",
    ),
    "resume_ner": lambda: _columns(
        lambda n: _chinese_tagged(n, "E"),
        " ",
        train="train.char.bmes",
        validation="dev.char.bmes",
        test="test.char.bmes",
    ),
    "people_daily": lambda: _columns(
        _chinese_tagged, " ", train="example.train", validation="example.dev", test="example.test"
    ),
    "ud_en_ewt": lambda: _conllu(
        lambda n: english(n).split(),
        train="en_ewt-ud-train.conllu",
        validation="en_ewt-ud-dev.conllu",
        test="en_ewt-ud-test.conllu",
    ),
    "ud_zh_gsdsimp": lambda: _conllu(
        lambda n: [CHINESE_NAMES[n % 4], "去", CHINESE_PLACES[n // 4 % 4], f"{n}", "。"],
        train="zh_gsdsimp-ud-train.conllu",
        validation="zh_gsdsimp-ud-dev.conllu",
        test="zh_gsdsimp-ud-test.conllu",
    ),
    "squad": lambda: _squad(
        english, lambda n: PLACES[n // 4 % 4], "Where to?", False, train="train-v1.1.json", validation="dev-v1.1.json"
    ),
    "squad_v2": lambda: _squad(
        english, lambda n: PLACES[n // 4 % 4], "Where to?", True, train="train-v2.0.json", validation="dev-v2.0.json"
    ),
    "cmrc2018": lambda: _squad(
        chinese,
        lambda n: CHINESE_PLACES[n // 4 % 4],
        "去了哪里",
        False,
        train="cmrc2018_train.json",
        validation="cmrc2018_dev.json",
        test="cmrc2018_trial.json",
    ),
    "drcd": lambda: _squad(
        chinese,
        lambda n: CHINESE_PLACES[n // 4 % 4],
        "去了哪裡",
        False,
        train="DRCD_training.json",
        validation="DRCD_dev.json",
        test="DRCD_test.json",
    ),
    "swag": lambda: _csv(
        lambda n: (n, f"v{n}", n, english(n), english(n), "She", "gold", "sits.", "stands.", "sleeps.", "eats.", n % 4),
        SWAG_COLUMNS,
        csv.QUOTE_MINIMAL,
        train="train.csv",
        validation="val.csv",
    ),
    "hellaswag": lambda: _jsonl(
        lambda n: {
            "ind": n,
            "activity_label": "Travel",
            "ctx_a": english(n),
            "ctx_b": "she",
            "ctx": f"{english(n)} she",
            "split": "train",
            "split_type": "indomain",
            "label": n % 4,
            "endings": ["sits.", "stands.", "sleeps.", "eats."],
            "source_id": f"a{n}",
        },
        train="hellaswag_train.jsonl",
        validation="hellaswag_val.jsonl",
    ),
    "piqa": _piqa,
    "winogrande": lambda: _winogrande("xl"),
    "winogrande_xs": lambda: _winogrande("xs"),
    "winogrande_s": lambda: _winogrande("s"),
    "winogrande_m": lambda: _winogrande("m"),
    "winogrande_l": lambda: _winogrande("l"),
    "arc_easy": lambda: _arc("ARC-Easy"),
    "arc_challenge": lambda: _arc("ARC-Challenge"),
    "multi30k": lambda: {
        **_tsv(lambda n: (english(n),), train="train.en", validation="val.en", test="test_2016_flickr.en"),
        **_tsv(lambda n: (f"{n} Leute reisen.",), train="train.de", validation="val.de", test="test_2016_flickr.de"),
    },
    "scitldr": lambda: _jsonl(
        lambda n: {
            "source": [english(n), "It rained."],
            "source_labels": [1, 0],
            "rouge_scores": [0.5, 0.1],
            "paper_id": f"p{n}",
            "target": [f"A journey of {n} days.", "A trip."],
            "title": "T",
        },
        train="train.jsonl",
        validation="dev.jsonl",
        test="test.jsonl",
    ),
    "csl": lambda: _tsv(lambda n: ("to title", chinese(n) * 2, f"第{n}天的旅行"), **CSL),
}


def write_official(task: str, folder: Path) -> Path:
    """The stand-in of a task's files in a folder."""
    for name, content in OFFICIAL[task]().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="latin-1" if name.endswith(".label") else "utf-8")
    return folder
