"""Known text-to-text tasks: where their files are, and what they are scored by."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.compression import COMPRESSIONS
from weft.recipes.finetuning.known_tasks import WITH_TEST, KnownTask, read_splits
from weft.recipes.finetuning.tasks.seq2seq.arguments import Seq2SeqArguments
from weft.recipes.finetuning.tasks.seq2seq.reading import (
    PairColumns,
    TextPair,
    pairs_of_records,
    read_pairs,
    read_parallel,
    source_of,
)


@dataclass(frozen=True, kw_only=True)
class KnownPairTask(KnownTask):
    """A known task; of parallel lines `files` are those with the sources.

    Attributes:
        target_suffix: what the file of targets ends in instead, for parallel lines.
        columns, header: of files with columns, and of the Hub's rows.
        metric: what it is usually scored by.
        pipeline_tag: the Hub's name for such tasks.
    """

    target_suffix: str | None = None
    columns: PairColumns = field(default_factory=PairColumns)
    header: Sequence[str] | None = None
    metric: str = "rougeL"
    pipeline_tag: str = "summarization"


KNOWN_TASKS = {
    "multi30k": KnownPairTask(
        files={
            "train": ("train.en",),
            "validation": ("val.en", "valid.en", "dev.en"),
            "test": ("test_2016_flickr.en", "test2016.en", "test.en"),
        },
        hub="bentrevett/multi30k",
        hub_splits=WITH_TEST,
        target_suffix=".de",
        columns=PairColumns("en", "de"),
        metric="bleu",
        pipeline_tag="translation",
        language=["en", "de"],
    ),
    "scitldr": KnownPairTask(
        files={"train": ("train.jsonl",), "validation": ("dev.jsonl",), "test": ("test.jsonl",)},
    ),
    "csl": KnownPairTask(
        files={
            "train": ("train.tsv", "ts_train.tsv"),
            "validation": ("dev.tsv", "ts_dev.tsv"),
            "test": ("test.tsv", "ts_test.tsv"),
        },
        columns=PairColumns("abstract", "title"),
        header=("prompt", "abstract", "title"),
        language="zh",
    ),
}


def columns_of(files: Seq2SeqArguments) -> PairColumns:
    """The columns that are read: a task's, or those that were named."""
    if files.task in KNOWN_TASKS:
        return KNOWN_TASKS[files.task].columns
    return PairColumns(files.source_column or "source", files.target_column or "target", files.target_lists)


def read_all(files: Seq2SeqArguments) -> dict[str, list[TextPair]]:
    """The pairs of each split.

    Raises:
        RecipeError: no source is given, an unknown task, a file that is missing or broken, no pair in a split.
    """
    known, partners, columns = KNOWN_TASKS.get(files.task or ""), files.partners, columns_of(files)

    def from_file(path: Path) -> list[TextPair]:
        if path in partners:
            return read_parallel(path, partners[path])
        if known is not None and known.target_suffix is not None:
            return read_parallel(path, _partner_of(path, known.target_suffix))
        return read_pairs(path, columns, None if known is None else known.header)

    if files.train_source is not None:
        files = replace(
            files,
            train_file=files.train_source,
            validation_file=files.validation_source,
            test_file=files.test_source,
        )
    return read_splits(*(files, KNOWN_TASKS, from_file, lambda records: pairs_of_records(records, columns)), source_of)


def _partner_of(path: Path, suffix: str) -> Path:
    """The file of targets beside a file of sources, compressed or not."""
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    partner = plain.with_suffix(suffix)
    found = [file for ending in ("", *COMPRESSIONS) if (file := partner.with_name(partner.name + ending)).is_file()]
    if not found:
        raise RecipeError(f"{path} is there without {partner}, which has its targets: add that file to the folder.")
    return found[0]
