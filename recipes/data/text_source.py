"""One way from text to documents: the sources that the user names, each of which can be checked, opened and read.

A new kind of source is one class here: derive it from `TextSource`, let `accepts` tell its names from paths, and put it
first into `SOURCES`. Every command that takes files of text then takes such names too.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from weft.recipes.common.errors import refusing
from weft.recipes.common.options import Options, option
from weft.recipes.common.wording import counted, some_of
from weft.recipes.data.builtin_text import TITLE, embedded_documents
from weft.recipes.data.file_names import check_name, expand_name
from weft.recipes.data.hub_sets import open_dataset
from weft.recipes.data.tables import Record, read_records
from weft.recipes.data.text_columns import documents_of_column
from weft.recipes.data.text_files import DOCUMENTS, check_encoding, check_file, file_format, read_text

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
TEXT_COLUMN_HELP = "the field that holds the text (all but .txt); meta.text is the field text within meta"
ENCODING_HELP = (
    "how characters are written in the files (all but .parquet), such as gb18030 or utf-16; without it UTF-8"
)


class TextSource:
    """Documents in a fixed order; they can be read again from the first one.

    Attributes:
        name: as the user gives it.
        text_column: the field with the text, if records have fields.
        documents: how plain text is divided, see `read_text`.
        encoding: of files that hold characters; None: UTF-8.
    """

    def __init__(
        self, name: str, text_column: str = "text", documents: str = "blank-line", encoding: str | None = None
    ) -> None:
        self.name, self.text_column, self.documents, self.encoding = name, text_column, documents, encoding

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether a name among the user's files stands for a source of this class."""
        return False

    @property
    def title(self) -> str:
        """The name as reports give it."""
        return self.name

    def check(self) -> None:
        """Raise RecipeError if it cannot be read, before any work is done."""

    def files(self) -> list[Path]:
        """List the local files that hold the text: while their sizes and times stay the same, so does the text."""
        return []

    def read(self, state: dict[str, Any] | None = None, record: int = 0) -> Iterator[str]:
        """Yield documents with line ends that are \\n.

        Args:
            state: where to begin, as `state` told it. None: at the first document.
            record: number of documents before `state`, for messages.

        Raises:
            RecipeError: the text is broken; names the place.
        """
        return (text.replace("\r\n", "\n") if "\r" in text else text for text in self._read(state, record))

    def state(self) -> dict[str, Any] | None:
        """Tell the place behind the last document; None if it can only be reached by reading up to it."""
        return None

    def _read(self, state: dict[str, Any] | None, record: int) -> Iterator[str]:
        raise NotImplementedError


class TextFile(TextSource):
    """A file of plain text or of records; its ending tells the format."""

    @classmethod
    def accepts(cls, name: str) -> bool:
        return True

    @property
    def title(self) -> str:
        return Path(self.name).name

    def check(self) -> None:
        check_name(self.name, FORMATS)
        check_file(Path(self.name), FORMATS)

    def files(self) -> list[Path]:
        return [Path(self.name)]

    def _read(self, state: dict[str, Any] | None, record: int) -> Iterator[str]:
        self.check()
        path = Path(self.name)
        if file_format(path) == ".txt":
            yield from read_text(path, self.documents, self.encoding)
            return
        rows = read_records(path, text_column=self.text_column, encoding=self.encoding)
        yield from documents_of_column(rows, self.text_column, self.name)


class HubDataset(TextSource):
    """A split of a data set of the Hub, or of a folder that `datasets` can load; it is streamed."""

    def __init__(self, name: str, config_name: str | None, split: str, text_column: str) -> None:
        super().__init__(name, text_column)
        self.config_name, self.split = config_name, split
        self.dataset: Any = None

    def files(self) -> list[Path]:
        return sorted(path for path in Path(self.name).rglob("*") if path.is_file())

    def state(self) -> dict[str, Any] | None:
        return None if self.dataset is None else self.dataset.state_dict()

    def _read(self, state: dict[str, Any] | None, record: int) -> Iterator[str]:
        self.dataset = open_dataset(self.name, self.config_name, self.split, streaming=True)
        if state is not None:
            self.dataset.load_state_dict(state)
        yield from documents_of_column(self._rows(record), self.text_column, f"data set {self.name!r}")

    def _rows(self, record: int) -> Iterator[Record]:
        examples = iter(self.dataset)
        for number in itertools.count(record):
            after = f"data set {self.name!r} cannot be read after {counted(number, 'example')}"
            with refusing(after, OSError, ValueError, RuntimeError, advice="mend it, or give local files."):
                example = next(examples, None)
            if example is None:
                return
            yield Record(example, f"data set {self.name!r}, example {number}")


class BuiltinText(TextSource):
    """The English text that Python itself carries."""

    def _read(self, state: dict[str, Any] | None, record: int) -> Iterator[str]:
        yield from embedded_documents()


SOURCES: list[type[TextSource]] = [TextFile]  # the first that accepts a name reads it, so TextFile stays the last


def _kind_of(name: str) -> type[TextSource]:
    return next(kind for kind in SOURCES if kind.accepts(name))


def expand_names(field: str, names: Sequence[str], formats: Sequence[str] = FORMATS) -> list[str]:
    """List the sources that names stand for: `expand_name` of files, others as they are."""
    found = ([name] if _kind_of(name) is not TextFile else expand_name(field, name, formats) for name in names)
    return list(itertools.chain.from_iterable(found))


@dataclass
class SourceArguments(Options):
    """Where the text comes from."""

    train_files: list[str] = option(
        [],
        "text to learn from: .txt, .jsonl, .json, .csv, .tsv (each also .gz or .zst) or .parquet; a folder, or a "
        "pattern between quotes, stands for its files; without any and without dataset_name: the English text that "
        "Python itself carries",
    )
    dataset_name: str | None = option(
        None, "a data set of the Hub instead of files, or a folder that `datasets` can load"
    )
    dataset_config_name: str | None = option(None, "its configuration", rare=True)
    dataset_split: str = option("train", "its split", rare=True)
    text_column: str = option("text", TEXT_COLUMN_HELP)
    documents: str = option(
        "blank-line",
        "what a document is in .txt files: blank-line (separated by blank lines), line (each line) or file",
        choices=DOCUMENTS,
    )
    encoding: str | None = option(None, ENCODING_HELP)

    FILE_FIELDS: ClassVar[tuple[str, ...]] = ("train_files",)

    def __post_init__(self) -> None:
        """Put the files that folders and patterns stand for in their place, once: later ones are other text."""
        for field in self.FILE_FIELDS:
            setattr(self, field, expand_names(field, getattr(self, field)))

    def check(self) -> None:
        """Raise RecipeError where a field is not what it may be, or names an encoding that there is not."""
        super().check()
        check_encoding(self.encoding)

    def sources(self, split: str = "train") -> list[TextSource]:
        """List the sources of a split ("train" or "validation") in order."""
        if self.dataset_name:
            return [HubDataset(self.dataset_name, self.dataset_config_name, self.dataset_split, self.text_column)]
        return self.named(self.train_files) or [BuiltinText(TITLE)]

    def named(self, names: list[str]) -> list[TextSource]:
        """Return the source that each name stands for."""
        return [_kind_of(name)(name, self.text_column, self.documents, self.encoding) for name in names]

    def finer_documents(self) -> list[str]:
        """List the other values of `documents` that make more than one document of the .txt files."""
        files = [Path(source.name) for source in self.sources() if isinstance(source, TextFile)]
        plain, finer = [path for path in files if file_format(path) == ".txt"], []
        for documents in DOCUMENTS:
            texts = (text for path in plain for text in read_text(path, documents, self.encoding) if text.strip())
            if documents != self.documents and len(set(itertools.islice(texts, 2))) > 1:
                finer.append(documents)
        return finer

    def describe_source(self) -> str:
        """Name the sources of the training text in a few words."""
        return some_of([source.title for source in self.sources()])


Read = Callable[[SourceArguments, str], Iterator[tuple[str, int]]]  # of settings and a split, as `documents_of`


def documents_of(arguments: SourceArguments, split: str) -> Iterator[tuple[str, int]]:
    """Yield all documents of a split, each with the index of its source."""
    for index, source in enumerate(arguments.sources(split)):
        for text in source.read():
            yield text, index


def texts_of(arguments: SourceArguments, split: str) -> Iterator[str]:
    """Yield all documents of a split."""
    return (text for text, _ in documents_of(arguments, split))
