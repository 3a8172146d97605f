"""What is known of a task of text classification: its place on the Hub, its official files, and how it is scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from weft.recipes.finetuning.known_tasks import WITH_TEST, KnownTask

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
TRAIN = ("train.tsv", "train.jsonl", "train.json", "train.csv", "train.parquet")
VALIDATION = tuple(
    f"{name}.{ending}"
    for name in ("dev", "validation", "valid")
    for ending in ("tsv", "jsonl", "json", "csv", "parquet")
)
TEST = ("test.tsv", "test.jsonl", "test.json", "test.csv", "test.parquet")
FILES = {"train": TRAIN, "validation": VALIDATION, "test": ("test-labeled.tsv", *TEST)}


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
class KnownTextTask(KnownTask):
    """Attributes:
    text_columns: one text, or two for a pair.
    labels: their names in the official order; none for a regression.
    metric: what the best weights are chosen by; the loss and errors are better when lower.
    label_column: the column of the label.
    header: the official columns, for files whose first line does not name them.
    columns: other names of columns, to the names used here.
    spelled: other spellings of labels, to their names; the number of a label always means it.
    dropped: labels that mark examples to leave out.
    separator: between several labels of one example.
    layout: how the files are read: "table", "folders" (a folder for each label), "ag_news" or "trec".
    """

    text_columns: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    files: Mapping[str, Sequence[str]] = field(default_factory=lambda: FILES, kw_only=True)
    hub_splits: Mapping[str, str] = field(default_factory=lambda: WITH_TEST, kw_only=True)
    label_column: str = "label"
    problem_type: str = SINGLE
    extra_metrics: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    spelled: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    separator: str | None = None
    layout: str = "table"
    label_file: str | None = None
    submissions: Mapping[str, Submission] = field(default_factory=dict)
