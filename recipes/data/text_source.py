"""One way from text to documents: files, a data set of the Hub, or the text that Python carries."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from weft.recipes.data.arguments import TextArguments
from weft.recipes.data.builtin_text import embedded_documents
from weft.recipes.data.text_files import read_dataset, read_documents

Read = Callable[[Any, str], Iterator[tuple[str, int]]]  # of settings and a split, as `documents_of`


def clean(text: str) -> str:
    """A document with line ends that are \\n; nothing else is changed."""
    return text.replace("\r\n", "\n") if "\r" in text else text


def documents_of(arguments: TextArguments, split: str) -> Iterator[tuple[str, int]]:
    """All documents of a split, cleaned, each with the index of its file."""
    paths = arguments.train_files if split == "train" else getattr(arguments, "validation_files", [])
    if split == "train" and arguments.dataset_name:
        files: Iterable[Iterable[str]] = [
            read_dataset(
                arguments.dataset_name, arguments.dataset_config_name, arguments.dataset_split, arguments.text_column
            )
        ]
    elif split == "train" and not paths:
        files = [embedded_documents()]
    else:
        files = (read_documents(Path(path), arguments.text_column, arguments.documents) for path in paths)
    for index, texts in enumerate(files):
        for text in texts:
            yield clean(text), index


def texts_of(arguments: TextArguments, split: str) -> Iterator[str]:
    """All documents of a split, cleaned."""
    return (text for text, _ in documents_of(arguments, split))
