"""Files for subjects that read some, where none are given: made of the text that Python carries, with a tokenizer."""

import csv
import itertools
from dataclasses import replace
from pathlib import Path

from weft.recipes.benchmarks.arguments import BenchmarkArguments
from weft.recipes.data.builtin_text import embedded_docstrings, embedded_documents
from weft.tokenizer.train import train_tokenizer

VOCABULARY = 8192  # as `make pretrain` learns
TOKENIZER_TEXT = 4_000_000  # characters that it is learnt from


def completed(arguments: BenchmarkArguments, folder: Path) -> BenchmarkArguments:
    """The same with files and a tokenizer where they were not given: `prepare_data` reads documents, `finetune` first
    lines of docstrings, `pairs` lines with the next of the same text; `chat` finds conversations without a file."""
    if not arguments.train_files and arguments.subject != "chat":
        write = {"prepare_data": _write_documents, "finetune": _write_phrases, "pairs": _write_pairs}
        names = write[arguments.subject](folder)
        arguments = replace(arguments, train_files=names, text_column="sentence")
    if arguments.tokenizer_name is None:
        texts, most = embedded_documents(), itertools.accumulate(map(len, embedded_documents()))
        enough = [text for text, characters in zip(texts, most) if characters <= TOKENIZER_TEXT]
        place = folder / "tokenizer"
        train_tokenizer(enough, "bpe", VOCABULARY).save_pretrained(place)
        arguments = replace(arguments, tokenizer_name=str(place))
    return arguments


def _write_documents(folder: Path) -> list[str]:
    (folder / "text.txt").write_text("\n\n".join(embedded_documents()), encoding="utf-8")
    return [str(folder / "text.txt")]


def _write_phrases(folder: Path) -> list[str]:
    lines = (docstring.splitlines()[0].strip() for _, docstring in embedded_docstrings())
    with (folder / "phrases.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([["sentence"], *([line] for line in dict.fromkeys(lines) if line)])
    return [str(folder / "phrases.csv")]


def _write_pairs(folder: Path) -> list[str]:
    pairs = []
    for text in embedded_documents():
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        pairs += itertools.pairwise(lines)
    names = [folder / "lines.txt", folder / "next-lines.txt"]
    for path, side in zip(names, zip(*pairs)):
        path.write_text("\n".join(side) + "\n", encoding="utf-8")
    return list(map(str, names))
