"""What is known of a task of text classification: its place on the Hub, its official files, and how it is scored."""

from dataclasses import dataclass, field

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
