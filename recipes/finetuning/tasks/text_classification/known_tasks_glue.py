"""The tasks of GLUE (https://gluebenchmark.com), with the files of its submission."""

from dataclasses import replace

from weft.recipes.finetuning.tasks.text_classification.known_task import (
    FILES,
    REGRESSION,
    TEST,
    TRAIN,
    VALIDATION,
    KnownTextTask,
    Submission,
)

_MRPC_COLUMNS = {"Quality": "label", "#1 String": "sentence1", "#2 String": "sentence2"}


def _submission(file: str, numbers: bool = True, files: tuple[str, ...] = TEST) -> dict[str, Submission]:
    return {"submission": Submission(file, files=files, numbers=numbers)}


_TASKS: dict[str, KnownTextTask] = {
    "cola": KnownTextTask(
        ("sentence",),
        ("unacceptable", "acceptable"),
        "matthews_correlation",
        header=("source", "label", "note", "sentence"),
        submissions=_submission("CoLA.tsv"),
    ),
    "sst2": KnownTextTask(
        ("sentence",),
        ("negative", "positive"),
        "accuracy",
        submissions=_submission("SST-2.tsv"),
    ),
    "mrpc": KnownTextTask(
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        "f1_and_accuracy",
        extra_metrics=("f1",),
        columns=_MRPC_COLUMNS,
        files={
            "train": (*TRAIN, "msr-para-train.tsv", "msr_paraphrase_train.txt"),
            "validation": (*VALIDATION, "msr-para-val.tsv"),
            "test": (*FILES["test"], "msr-para-test.tsv", "msr_paraphrase_test.txt"),
        },
        submissions=_submission("MRPC.tsv", files=(*TEST, "msr-para-test.tsv", "msr_paraphrase_test.txt")),
    ),
    "stsb": KnownTextTask(
        ("sentence1", "sentence2"),
        (),
        "corrcoef",
        problem_type=REGRESSION,
        header=(
            *("index", "genre", "filename", "year", "old_index", "source1", "source2"),
            *("sentence1", "sentence2", "score"),
        ),
        columns={"score": "label"},
        submissions=_submission("STS-B.tsv"),
    ),
    "qqp": KnownTextTask(
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        "f1_and_accuracy",
        extra_metrics=("f1",),
        columns={"is_duplicate": "label"},
        submissions=_submission("QQP.tsv"),
    ),
    "mnli": KnownTextTask(
        ("sentence1", "sentence2"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
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
    "qnli": KnownTextTask(
        ("question", "sentence"),
        ("entailment", "not_entailment"),
        "accuracy",
        submissions=_submission("QNLI.tsv", numbers=False),
    ),
    "rte": KnownTextTask(
        ("sentence1", "sentence2"),
        ("entailment", "not_entailment"),
        "accuracy",
        submissions=_submission("RTE.tsv", numbers=False),
    ),
    "wnli": KnownTextTask(
        ("sentence1", "sentence2"),
        ("not_entailment", "entailment"),
        "accuracy",
        submissions=_submission("WNLI.tsv"),
    ),
}

GLUE_TASKS = {name: replace(task, hub="nyu-mll/glue", hub_config=name) for name, task in _TASKS.items()}
