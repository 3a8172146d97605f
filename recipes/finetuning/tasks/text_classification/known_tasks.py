"""The known tasks of text classification by name: those of GLUE, and others in English and Chinese."""

import difflib

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.text_classification.known_task import MULTI, TEST, TRAIN, VALIDATION, KnownTextTask
from weft.recipes.finetuning.tasks.text_classification.known_tasks_glue import GLUE_TASKS

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


BUILTIN = "pydoc"  # docstrings of Python's own modules, which need neither files nor the Hub

KNOWN_TASKS: dict[str, KnownTextTask] = {
    BUILTIN: KnownTextTask(("text",), (), "accuracy", files={}),
    **GLUE_TASKS,
    "imdb": KnownTextTask(
        ("text",),
        ("neg", "pos"),
        "accuracy",
        hub="stanfordnlp/imdb",
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
    "ag_news": KnownTextTask(
        ("text",),
        ("World", "Sports", "Business", "Sci/Tech"),
        "accuracy",
        hub="fancyzhx/ag_news",
        hub_splits={"train": "train", "test": "test"},
        header=("class", "title", "description"),
        columns={"Class Index": "class", "Title": "title", "Description": "description"},
        layout="ag_news",
    ),
    "trec": KnownTextTask(
        ("text",),
        ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM"),
        "accuracy",
        hub="SetFit/TREC-QC",
        hub_splits={"train": "train", "test": "test"},
        files={
            "train": ("train_5500.label", *TRAIN),
            "validation": VALIDATION,
            "test": ("TREC_10.label", *TEST),
        },
        columns={"label_coarse_original": "label", "coarse_label": "label"},
        layout="trec",
    ),
    "go_emotions": KnownTextTask(
        ("text",),
        _EMOTIONS,
        "f1_macro_tuned",
        hub="google-research-datasets/go_emotions",
        hub_config="simplified",
        label_column="labels",
        problem_type=MULTI,
        header=("text", "labels", "id"),
        separator=",",
        label_file="labels.txt",
    ),
    "chnsenticorp": KnownTextTask(
        ("text_a",),
        ("negative", "positive"),
        "accuracy",
        hub="lansinuote/ChnSentiCorp",
        header=("label", "text_a"),
        columns={"text": "text_a"},
        language="zh",
    ),
    "tnews": KnownTextTask(
        ("sentence",),
        tuple(_TNEWS.values()),
        "accuracy",
        hub="clue/clue",
        hub_config="tnews",
        files={
            "train": (*TRAIN, "train_few_all.json"),
            "validation": (*VALIDATION, "dev_few_all.json"),
            "test": (*TEST, "test_public.json"),
        },
        spelled=_TNEWS,
        language="zh",
    ),
    "lcqmc": KnownTextTask(
        ("text_a", "text_b"),
        ("different", "same"),
        "accuracy",
        hub="C-MTEB/LCQMC",
        files={
            "train": (*TRAIN, "train.txt"),
            "validation": (*VALIDATION, "dev.txt"),
            "test": (*TEST, "test.txt"),
        },
        header=("text_a", "text_b", "label"),
        columns={"sentence1": "text_a", "sentence2": "text_b", "score": "label"},
        language="zh",
    ),
    "ocnli": KnownTextTask(
        ("sentence1", "sentence2"),
        ("neutral", "entailment", "contradiction"),
        "accuracy",
        hub="clue/clue",
        hub_config="ocnli",
        files={
            "train": ("train.50k.json", *TRAIN),
            "validation": VALIDATION,
            "test": TEST,
        },
        dropped=("-",),
        language="zh",
    ),
    "waimai": KnownTextTask(
        ("review",),
        ("negative", "positive"),
        "accuracy",
        hub="XiangPan/waimai_10k",
        hub_splits={"train": "train"},
        files={"train": ("waimai_10k.csv", *TRAIN), "validation": VALIDATION, "test": TEST},
        columns={"text": "review"},
        language="zh",
    ),
}


def find_task(name: str) -> KnownTextTask:
    """A task by its name; raises RecipeError for an unknown one."""
    if name not in KNOWN_TASKS:
        near = difflib.get_close_matches(name.lower().replace("-", ""), KNOWN_TASKS, n=1)
        raise RecipeError(
            f"there is no task {name!r}"
            + (f" (did you mean {near[0]}?)" if near else "")
            + f": choose one of {', '.join(KNOWN_TASKS)}, or give train_file or dataset_name."
        )
    return KNOWN_TASKS[name]
