"""From text to a prepared corpus: clean, drop duplicates, tokenise, hold documents out, write."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from weft.recipes.common.corpus import DESCRIPTION, Corpus, CorpusWriter
from weft.recipes.common.documents import check_file, read_dataset, read_documents
from weft.recipes.common.embedded import embedded_documents
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import new_folder, only_one_process, read_json
from weft.tokenizer.train import TOKENIZER_TYPES, train_tokenizer, without_boundaries

BATCH_CHARACTERS = 1 << 20
EMBEDDED = "the language reference and the docstrings of Python's standard library"


@dataclass
class TextArguments:
    """Where the text comes from, and what kind of tokenizer to train on it."""

    train_files: list[str] = field(
        default_factory=list,
        metadata={
            "help": "text to learn from: .txt, .jsonl, .json, .csv (each also .gz or .zst) or .parquet; without any "
            "and without dataset_name: the English text that Python itself carries"
        },
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "a data set of the Hub instead of files, or a folder that `datasets` can load"}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "its configuration"})
    dataset_split: str = field(default="train", metadata={"help": "its split"})
    text_column: str = field(default="text", metadata={"help": "the field that holds the text (all but .txt)"})
    documents: str = field(
        default="blank-line",
        metadata={"help": "what a document is in .txt files: blank-line (separated by blank lines) or file"},
    )
    tokenizer_type: str = field(
        default="bpe", metadata={"help": f"kind of tokenizer to train: {', '.join(TOKENIZER_TYPES)}"}
    )
    vocab_size: int = field(default=8192, metadata={"help": "tokens of the tokenizer to train, at most"})

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        "documents": ("blank-line", "file"),
        "tokenizer_type": TOKENIZER_TYPES,
    }

    def check(self) -> None:
        """Refuse, before any work is done, what cannot be read or is not among the choices.

        Raises:
            RecipeError: names the field, what was given and what is allowed.
        """
        for name, allowed in self.CHOICES.items():
            if getattr(self, name) not in allowed:
                raise RecipeError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}.")
        if self.dataset_name and self.train_files:
            raise RecipeError("both dataset_name and train_files are given: choose one.")
        for path in self.train_files:
            check_file(Path(path))

    def describe_source(self) -> str:
        """The source of the text in a few words."""
        return self.dataset_name or ", ".join(Path(path).name for path in self.train_files) or EMBEDDED


@dataclass
class DataArguments(TextArguments):
    """Where the text comes from and how it becomes tokens."""

    validation_files: list[str] = field(
        default_factory=list, metadata={"help": "text to evaluate on; without any, a part of the training text"}
    )
    dedup: str = field(
        default="exact", metadata={"help": "exact: drop documents whose text was there before; off: keep them"}
    )
    validation_fraction: float = field(
        default=0.02, metadata={"help": "share of the training text to hold out where there are no validation_files"}
    )
    validation_split: str = field(
        default="document",
        metadata={"help": "document: hold out whole documents; tail: hold out the end of every document"},
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "folder or Hub id of a tokenizer; without it one is trained on the text"}
    )
    document_tokens: str = field(
        default="both", metadata={"help": "both: a start and an end token around each document; none: neither"}
    )
    split_seed: int = field(default=0, metadata={"help": "which documents are held out"})

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        **TextArguments.CHOICES,
        "dedup": ("exact", "off"),
        "validation_split": ("document", "tail"),
        "document_tokens": ("both", "none"),
    }

    def check(self) -> None:
        """As `TextArguments.check`, with the held-out text."""
        super().check()
        if not 0 < self.validation_fraction < 1:
            raise RecipeError(f"validation_fraction is {self.validation_fraction}: give a share between 0 and 1.")
        for path in self.validation_files:
            check_file(Path(path))

    def fingerprint(self) -> dict[str, Any]:
        """What the prepared corpus depends on: the settings, and the size and time of every file."""
        paths = [Path(path) for path in (*self.train_files, *self.validation_files)]
        if self.dataset_name is not None:
            paths += sorted(path for path in Path(self.dataset_name).rglob("*") if path.is_file())
        if self.tokenizer_name is not None:
            paths += sorted(path for path in Path(self.tokenizer_name).glob("*token*") if path.is_file())
        files = {}
        for path in paths:
            status = path.stat()
            files[str(path.resolve())] = [status.st_size, status.st_mtime_ns]
        return {"settings": asdict(self), "files": files}


def prepare(arguments: DataArguments, folder: Path, quiet: bool = False) -> Corpus:
    """Prepare a corpus in `folder`, or open the one that is there if it was made from the same files and settings.

    Interrupted, it leaves nothing under that name; started twice, the second waits for the first and uses its result.

    Raises:
        RecipeError: the input is broken, or `folder` holds something else.
    """
    arguments.check()
    if not folder.name:
        raise RecipeError(f"{str(folder)!r} cannot be the output folder: name a new one.")
    with only_one_process(folder.with_name(f".{folder.name}.lock"), str(folder), patience=24 * 3600):
        if (folder / DESCRIPTION).is_file():
            return _reuse(arguments, folder)
        if folder.exists() and not folder.is_dir():
            raise RecipeError(f"{folder} is a file: name another output folder.")
        if folder.exists() and any(folder.iterdir()):
            raise RecipeError(f"{folder} holds files that are not a prepared corpus: name another output folder.")
        if folder.exists():
            folder.rmdir()
        with new_folder(folder) as partial:
            _write_corpus(arguments, partial, quiet)
    return Corpus.open(folder)


def report(corpus: Corpus) -> str:
    """What the corpus holds, as a short table."""
    description, lines = corpus.description, []
    lines.append(f"{'':12}{'documents':>12}{'bytes':>15}{'tokens':>15}")
    for name, counts in description["splits"].items():
        lines.append(f"{name:12}{counts['documents']:>12,}{counts['bytes']:>15,}{counts['tokens']:>15,}")
    lines.append(
        f"vocabulary {description['vocab_size']:,}; characters per token {description['characters_per_token']:.2f}; "
        f"unknown tokens {description['unknown_rate']:.4%}"
    )
    lines.append(f"dropped: {description['duplicates']:,} duplicate and {description['empty']:,} empty documents")
    return "\n".join(lines)


def _reuse(arguments: DataArguments, folder: Path) -> Corpus:
    made_from, asked = read_json(folder / DESCRIPTION)["made_from"], arguments.fingerprint()
    if made_from != asked:
        differing = [name for name, value in asked["settings"].items() if made_from["settings"].get(name) != value] or [
            "the files' sizes or times"
        ]
        raise RecipeError(
            f"{folder} was prepared from other input ({', '.join(differing)} differ): name another output folder, or "
            "remove that one."
        )
    return Corpus.open(folder)


def texts_of(arguments: TextArguments, split: str) -> Iterator[str]:
    """All documents of a split, cleaned: line ends are \\n, nothing else is changed."""
    paths = arguments.train_files if split == "train" else getattr(arguments, "validation_files", [])
    if split == "train" and arguments.dataset_name:
        sources: Iterable[Iterable[str]] = [
            read_dataset(
                arguments.dataset_name, arguments.dataset_config_name, arguments.dataset_split, arguments.text_column
            )
        ]
    elif split == "train" and not paths:
        sources = [embedded_documents()]
    else:
        sources = (read_documents(Path(path), arguments.text_column, arguments.documents) for path in paths)
    for text in itertools.chain.from_iterable(sources):
        yield text.replace("\r\n", "\n") if "\r" in text else text


def show_progress(texts: Iterator[str], title: str, quiet: bool) -> Iterator[str]:
    """Pass documents on, with a bar that counts characters."""
    with tqdm(desc=title, unit="B", unit_scale=True, disable=quiet, leave=False) as bar:
        for text in texts:
            bar.update(len(text))
            yield text


def _get_tokenizer(arguments: DataArguments, quiet: bool) -> PreTrainedTokenizerBase:
    if arguments.tokenizer_name is None:
        texts = show_progress(texts_of(arguments, "train"), "training the tokenizer", quiet)
        try:
            tokenizer = train_tokenizer(texts, arguments.tokenizer_type, arguments.vocab_size)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        return tokenizer if arguments.document_tokens == "both" else without_boundaries(tokenizer)
    try:
        tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer_name)
    except Exception as error:  # a broken file can raise anything, tokenizers' own plain Exception among it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecipeError(f"tokenizer {arguments.tokenizer_name!r} cannot be loaded ({reason}).") from error
    if not tokenizer.is_fast:
        raise RecipeError(f"tokenizer {arguments.tokenizer_name!r} has no fast version (tokenizer.json): convert it.")
    return tokenizer


def _start_and_end(tokenizer: PreTrainedTokenizerBase, document_tokens: str) -> tuple[list[int], list[int]]:
    """Ids put before and after each document; decoders have bos and eos, encoders cls and sep, some only one.

    They become the tokenizer's bos and eos, so that whoever generates begins and ends as training did.
    """
    if document_tokens == "none":
        return [], []
    ids = [tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id]
    start = next((token for token in ids if token is not None), None)
    ids = [tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id]
    end = next((token for token in ids if token is not None), None)
    if start is None or end is None:
        raise RecipeError("the tokenizer has no start or end token: give one that has, or --document_tokens none.")
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.convert_ids_to_tokens([start, end])
    return [start], [end]


@dataclass
class _Counts:
    characters: int = 0
    text_tokens: int = 0
    unknown: int = 0
    duplicates: int = 0
    empty: int = 0


def _write_corpus(arguments: DataArguments, folder: Path, quiet: bool) -> None:
    made_from = arguments.fingerprint()  # first: a file that changes while it is read is another file
    tokenizer = _get_tokenizer(arguments, quiet)
    start, end = _start_and_end(tokenizer, arguments.document_tokens)
    writer, counts = CorpusWriter(folder, len(tokenizer)), _Counts()
    encode = _encoder(tokenizer)
    unknown_id = tokenizer.unk_token_id
    seen: set[bytes] = set()

    def write(texts: Iterator[str], is_validation: bool) -> None:
        for batch in _batches(_without_duplicates(texts, seen, counts, arguments.dedup)):
            pieces = [_cut_tail(text, arguments) for text in batch]
            flat = encode([part for piece in pieces for _, part in piece])
            for piece in pieces:
                before = start
                for part_of, text in piece:
                    ids = next(flat)
                    after = [] if part_of == "head" else end
                    writer.add(before + ids + after, len(text.encode()), is_validation or part_of == "tail")
                    counts.characters += len(text)
                    counts.text_tokens += len(ids)
                    counts.unknown += ids.count(unknown_id) if unknown_id is not None else 0
                    before = (before + ids)[-1:]  # a tail's first token is predicted from the last token of its head

    write(show_progress(texts_of(arguments, "train"), "tokenising", quiet), is_validation=False)
    if not writer.lengths:
        raise RecipeError(f"there is no text in {arguments.describe_source()}.")
    if arguments.validation_files:
        texts = texts_of(arguments, "validation")
        write(show_progress(texts, "tokenising the validation text", quiet), is_validation=True)
    elif arguments.validation_split == "document":
        _hold_out(writer, arguments)
    if not any(writer.is_validation):
        raise RecipeError(
            "there is no text to evaluate on: the validation text is empty, or all of it is in the training text too "
            "(--dedup off keeps it)."
        )
    tokenizer.save_pretrained(folder / "tokenizer")
    writer.close(
        {
            "source": arguments.describe_source(),
            "vocab_size": len(tokenizer),
            "start_token_id": start[0] if start else None,
            "end_token_id": end[0] if end else None,
            "characters_per_token": counts.characters / max(counts.text_tokens, 1),
            "unknown_rate": counts.unknown / max(counts.text_tokens, 1),
            "duplicates": counts.duplicates,
            "empty": counts.empty,
            "made_from": made_from,
        }
    )


def _encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], Iterator[list[int]]]:
    """Text to ids without special tokens; one that is spelt out in a text stays text."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    previous = backend.encode_special_tokens

    def encode(texts: list[str]) -> Iterator[list[int]]:
        backend.encode_special_tokens = True
        try:
            encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        finally:
            backend.encode_special_tokens = previous
        return (encoding.ids for encoding in encodings)

    return encode


def _without_duplicates(texts: Iterator[str], seen: set[bytes], counts: _Counts, dedup: str) -> Iterator[str]:
    for text in texts:
        if not text.strip():
            counts.empty += 1
            continue
        if dedup == "exact":
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if digest in seen:
                counts.duplicates += 1
                continue
            seen.add(digest)
        yield text


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch, characters = [], 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _cut_tail(text: str, arguments: DataArguments) -> list[tuple[str, str]]:
    """A text as [("whole", text)], or cut into [("head", ...), ("tail", ...)] where the tail is held out."""
    if arguments.validation_files or arguments.validation_split != "tail":
        return [("whole", text)]
    cut = int(len(text) * (1 - arguments.validation_fraction))
    return [("head", text[:cut]), ("tail", text[cut:])] if 0 < cut < len(text) else [("whole", text)]


def _hold_out(writer: CorpusWriter, arguments: DataArguments) -> None:
    """Choose the documents to hold out: a random share, at least one and not all."""
    number = len(writer.lengths)
    if number < 2:
        raise RecipeError(
            f"there is one document in {arguments.describe_source()}, so none can be held out: give "
            "--validation_files, or --validation_split tail, or --documents blank-line."
        )
    chosen = min(max(1, round(number * arguments.validation_fraction)), number - 1)
    for document in np.random.default_rng(arguments.split_seed).permutation(number)[:chosen]:
        writer.is_validation[document] = True
