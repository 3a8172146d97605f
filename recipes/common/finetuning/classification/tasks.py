"""Known tasks of text classification: where each is on the Hub, how its official files look, and how it is scored."""

import difflib
from dataclasses import dataclass, field

from weft.recipes.common.errors import RecipeError

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
TRAIN = ("train.tsv", "train.jsonl", "train.json", "train.csv", "train.parquet")
VALIDATION = tuple(
    f"{name}.{ending}"
    for name in ("dev", "validation", "valid")
    for ending in ("tsv", "jsonl", "json", "csv", "parquet")
)
TEST = ("test.tsv", "test.jsonl", "test.json", "test.csv", "test.parquet")
FILES = {"train": TRAIN, "validation": VALIDATION, "test": ("test-labeled.tsv", *TEST)}
GLUE_SPLITS = {"train": "train", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class Submission:
    """A file of the GLUE submission: its name, the test set it is for, and whether its labels are class numbers.

    Attributes:
        split: of the Hub.
        files: candidates of the test file's name.
    """

    file: str
    split: str = "test"
    files: tuple[str, ...] = TEST
    numbers: bool = True


@dataclass(frozen=True)
class TextTask:
    """Attributes:
    hub, config, hub_splits: id and config on the Hub, and what each split is called there.
    text_columns: one text, or two for a pair.
    label_column: the column of the label.
    labels: their names in the official order; none for a regression.
    metric: what the best weights are chosen by; the loss and errors are better when lower.
    files: for each split candidates of its file's name, in the order in which they are looked for.
    header: the official columns, for files whose first line does not name them.
    columns: other names of columns, to the names used here.
    spelled: other spellings of labels, to their names; the number of a label always means it.
    dropped: labels that mark examples to leave out.
    separator: between several labels of one example.
    layout: how the files are read: "table", "folders" (a folder for each label) or "trec".
    """

    text_columns: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    hub: str | None
    config: str | None = None
    hub_splits: dict[str, str] = field(default_factory=lambda: dict(GLUE_SPLITS))
    label_column: str = "label"
    problem_type: str = SINGLE
    extra_metrics: tuple[str, ...] = ()
    files: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(FILES))
    header: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    separator: str | None = None
    layout: str = "table"
    label_file: str | None = None
    submissions: dict[str, Submission] = field(default_factory=dict)
    language: str = "en"


_GLUE = "nyu-mll/glue"
_MRPC_COLUMNS = {"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"}
_TNEWS = {
    **{"100": "news_story", "101": "news_culture", "102": "news_entertainment", "103": "news_sports"},
    **{"104": "news_finance", "106": "news_house", "107": "news_car", "108": "news_edu", "109": "news_tech"},
    **{"110": "news_military", "112": "news_travel", "113": "news_world", "114": "news_stock"},
    **{"115": "news_agriculture", "116": "news_game"},
}
_EMOTIONS = (
    *("admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion", "curiosity", "desire"),
    *("disappointment", "disapproval", "disgust", "embarrassment", "excitement", "fear", "gratitude", "grief", "joy"),
    *("love", "nervousness", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral"),
)


def _submission(file: str, numbers: bool = True, files: tuple[str, ...] = TEST) -> dict[str, Submission]:
    return {"submission": Submission(file, files=files, numbers=numbers)}


TEXT_TASKS: dict[str, TextTask] = {
    "cola": TextTask(
        ("sentence",),
        ("unacceptable", "acceptable"),
        "matthews_correlation",
        *(_GLUE, "cola"),
        header=("source", "label", "note", "sentence"),
        submissions=_submission("CoLA.tsv"),
    ),
    "sst2": TextTask(
        *(("sentence",), ("negative", "positive"), "accuracy", _GLUE, "sst2"), submissions=_submission("SST-2.tsv")
    ),
    "mrpc": TextTask(
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        "f1_and_accuracy",
        *(_GLUE, "mrpc"),
        extra_metrics=("f1",),
        columns=_MRPC_COLUMNS,
        files={
            "train": (*TRAIN, "msr-para-train.tsv", "msr_paraphrase_train.txt"),
            "validation": (*VALIDATION, "msr-para-val.tsv"),
            "test": (*FILES["test"], "msr-para-test.tsv", "msr_paraphrase_test.txt"),
        },
        submissions=_submission("MRPC.tsv", files=(*TEST, "msr-para-test.tsv", "msr_paraphrase_test.txt")),
    ),
    "stsb": TextTask(
        ("sentence1", "sentence2"),
        (),
        "corrcoef",
        *(_GLUE, "stsb"),
        problem_type=REGRESSION,
        header=(
            *("index", "genre", "filename", "year", "old_index", "source1", "source2"),
            *("sentence1", "sentence2", "score"),
        ),
        columns={"score": "label"},
        submissions=_submission("STS-B.tsv"),
    ),
    "qqp": TextTask(
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        "f1_and_accuracy",
        *(_GLUE, "qqp"),
        extra_metrics=("f1",),
        columns={"is_duplicate": "label"},
        submissions=_submission("QQP.tsv"),
    ),
    "mnli": TextTask(
        ("sentence1", "sentence2"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        *(_GLUE, "mnli"),
        hub_splits={
            **{"train": "train", "validation": "validation_matched"},
            **{"validation_mismatched": "validation_mismatched"},
        },
        files={
            "train": TRAIN,
            "validation": ("dev_matched.tsv", *VALIDATION),
            "validation_mismatched": ("dev_mismatched.tsv",),
        },
        columns={"gold_label": "label", "premise": "sentence1", "hypothesis": "sentence2"},
        dropped=("-",),
        submissions={
            "submission": Submission("MNLI-m.tsv", "test_matched", ("test_matched.tsv",), numbers=False),
            "submission_mismatched": Submission(
                "MNLI-mm.tsv", "test_mismatched", ("test_mismatched.tsv",), numbers=False
            ),
        },
    ),
    "qnli": TextTask(
        ("question", "sentence"),
        ("entailment", "not_entailment"),
        *("accuracy", _GLUE, "qnli"),
        submissions=_submission("QNLI.tsv", numbers=False),
    ),
    "rte": TextTask(
        ("sentence1", "sentence2"),
        ("entailment", "not_entailment"),
        *("accuracy", _GLUE, "rte"),
        submissions=_submission("RTE.tsv", numbers=False),
    ),
    "wnli": TextTask(
        ("sentence1", "sentence2"),
        ("not_entailment", "entailment"),
        *("accuracy", _GLUE, "wnli"),
        submissions=_submission("WNLI.tsv"),
    ),
    "imdb": TextTask(
        ("text",),
        ("neg", "pos"),
        "accuracy",
        "stanfordnlp/imdb",
        hub_splits={"train": "train", "test": "test"},
        files={
            "train": ("train", "aclImdb/train", *TRAIN, "IMDB Dataset.csv", "imdb.csv"),
            "validation": VALIDATION,
            "test": ("test", "aclImdb/test", *TEST),
        },
        columns={"review": "text", "sentence": "text", "sentiment": "label"},
        spelled={"negative": "neg", "positive": "pos"},
        layout="folders",
    ),
    "ag_news": TextTask(
        ("text",),
        ("World", "Sports", "Business", "Sci/Tech"),
        "accuracy",
        "fancyzhx/ag_news",
        hub_splits={"train": "train", "test": "test"},
        header=("class", "title", "description"),
        columns={"Class Index": "class", "Title": "title", "Description": "description"},
        layout="ag_news",
    ),
    "trec": TextTask(
        ("text",),
        ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
        "accuracy",
        "SetFit/TREC-QC",
        hub_splits={"train": "train", "test": "test"},
        files={
            "train": ("train_5500.label", *TRAIN),
            "validation": VALIDATION,
            "test": ("TREC_10.label", *TEST),
        },
        columns={"label_coarse_original": "label", "coarse_label": "label"},
        layout="trec",
    ),
    "go_emotions": TextTask(
        ("text",),
        _EMOTIONS,
        "f1_macro_tuned",
        *("google-research-datasets/go_emotions", "simplified"),
        label_column="labels",
        problem_type=MULTI,
        header=("text", "labels", "id"),
        separator=",",
        label_file="labels.txt",
    ),
    "chnsenticorp": TextTask(
        ("text_a",),
        ("negative", "positive"),
        "accuracy",
        "lansinuote/ChnSentiCorp",
        header=("label", "text_a"),
        columns={"text": "text_a"},
        language="zh",
    ),
    "tnews": TextTask(
        ("sentence",),
        tuple(_TNEWS.values()),
        "accuracy",
        *("clue/clue", "tnews"),
        files={
            "train": (*TRAIN, "train_few_all.json"),
            "validation": (*VALIDATION, "dev_few_all.json"),
            "test": (*TEST, "test_public.json"),
        },
        spelled=_TNEWS,
        language="zh",
    ),
    "lcqmc": TextTask(
        ("text_a", "text_b"),
        ("different", "same"),
        "accuracy",
        "C-MTEB/LCQMC",
        files={
            "train": (*TRAIN, "train.txt"),
            "validation": (*VALIDATION, "dev.txt"),
            "test": (*TEST, "test.txt"),
        },
        header=("text_a", "text_b", "label"),
        columns={"sentence1": "text_a", "sentence2": "text_b", "score": "label"},
        language="zh",
    ),
    "ocnli": TextTask(
        ("sentence1", "sentence2"),
        ("neutral", "entailment", "contradiction"),
        "accuracy",
        *("clue/clue", "ocnli"),
        files={
            "train": ("train.50k.json", *TRAIN),
            "validation": VALIDATION,
            "test": TEST,
        },
        dropped=("-",),
        language="zh",
    ),
    "waimai": TextTask(
        ("review",),
        ("negative", "positive"),
        "accuracy",
        "XiangPan/waimai_10k",
        hub_splits={"train": "train"},
        files={"train": ("waimai_10k.csv", *TRAIN), "validation": VALIDATION, "test": TEST},
        columns={"text": "review"},
        language="zh",
    ),
}


def find_task(name: str) -> TextTask:
    """A task by its name; raises RecipeError for an unknown one."""
    if name not in TEXT_TASKS:
        near = difflib.get_close_matches(name.lower().replace("-", ""), TEXT_TASKS, n=1)
        raise RecipeError(
            f"there is no task {name!r}"
            + (f" (did you mean {near[0]}?)" if near else "")
            + f": choose one of pydoc, {', '.join(TEXT_TASKS)}, or give train_file or dataset_name."
        )
    return TEXT_TASKS[name]
