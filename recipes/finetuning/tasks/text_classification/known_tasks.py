"""The known tasks of text classification by name: those of GLUE, and others in English and Chinese."""

import difflib

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.text_classification.known_task import MULTI, TEST, TRAIN, VALIDATION, TextTask
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


TEXT_TASKS: dict[str, TextTask] = {
    **GLUE_TASKS,
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
