"""From text to a prepared corpus: read, select, tokenise, hold documents out, write."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.files import new_folder, only_one_process
from weft.recipes.common.processes import is_first_of_machine, is_first_process, is_same_everywhere
from weft.recipes.common.wording import some_of
from weft.recipes.data.arguments import DataArguments, TextArguments
from weft.recipes.data.corpus import DESCRIPTION, Corpus, CorpusWriter
from weft.recipes.data.selection import Dropped, Selection
from weft.recipes.data.source_mixture import assign_sources, number_of_validation_file
from weft.recipes.data.text_source import Read, documents_of
from weft.recipes.data.tokenization import EncodedDocument, ScriptSample, document_encoder, load_tokenizer
from weft.tokenizer.script_statistics import COMMON, table_lines
from weft.tokenizer.special_tokens import without_start_and_end
from weft.tokenizer.train import train_tokenizer
from weft.tokenizer.vocabulary import number_of_ids

T = TypeVar("T")
MOST_FILES = 100  # validation files that are counted each by itself


@dataclass
class Counts:
    """Counts of the text and of its tokens."""

    characters: int = 0
    text_tokens: int = 0
    unknown: int = 0
    words: int = 0

    def add(self, part: EncodedDocument) -> None:
        self.characters += part.characters
        self.text_tokens += part.text_tokens
        self.unknown += part.unknown
        self.words += part.words


def prepare(arguments: DataArguments, folder: Path, quiet: bool = False, read: Read = documents_of) -> Corpus:
    """Prepare a corpus in `folder`, or open an earlier one made from the same files and settings.

    Interrupted, it leaves nothing under that name. Started twice, the second waits for the first and uses its result.

    Args:
        read: yields the documents, if they are not all that the settings name.

    Raises:
        RecipeError: the input is broken, or `folder` holds something else.
    """
    return prepare_with(arguments, folder, lambda partial: _write_corpus(arguments, partial, quiet, read))


def prepare_with(arguments: DataArguments, folder: Path, write: Callable[[Path], None]) -> Corpus:
    """Prepare a corpus as `prepare` does, with another way to write it: `write` fills the folder that it is given."""
    arguments.check()
    if not folder.name:
        raise RecipeError(f"{str(folder)!r} cannot be the output folder: name a new one.")
    with only_one_process(folder.with_name(f".{folder.name}.lock"), str(folder), patience=24 * 3600):
        if (folder / DESCRIPTION).is_file():
            return _reuse(arguments, folder)
        check_output_folder(folder)
        with new_folder(folder) as partial:  # it takes the place of an empty one
            write(partial)
    return Corpus.open(folder)


def check_output_folder(folder: Path) -> None:
    """Raise RecipeError if `folder` holds something or is a file, so that no corpus can be written there."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is a file: name another output folder.")
    if folder.exists() and any(folder.iterdir()):
        raise RecipeError(f"{folder} holds files that are not a prepared corpus: name another output folder.")


def report(corpus: Corpus) -> str:
    """Describe the corpus in a short table."""
    description, lines = corpus.description, []
    lines.append(f"{'':12}{'documents':>12}{'bytes':>15}{'tokens':>15}")
    for name, counts in description["splits"].items():
        lines.append(f"{name:12}{_columns(counts)}")
    lines.append(
        f"vocabulary {description['vocab_size']:,}; characters per token {description['characters_per_token']:.2f}; "
        f"unknown tokens {description['unknown_rate']:.4%}"
    )
    near = f", {description['near_duplicates']:,} near-duplicate" if "near_duplicates" in description else ""
    lines.append(f"dropped: {description['duplicates']:,} duplicate{near} and {description['empty']:,} empty documents")
    empty = [file["name"] for file in description.get("validation_files", []) if not file["documents"]]
    if empty:
        lines.append(f"nothing is left of {some_of(empty)}: no text, or all of it is in other files too (--dedup)")
    if description["filtered"]:
        lines.append("filtered: " + ", ".join(f"{n:,} by {name}" for name, n in description["filtered"].items()))
    if len(description["sources"]) > 1 or description["sources"][0]["weight"] != 1:
        lines += [f"{_columns(each)}  weight {_weight(each)}: {each['name']}" for each in description["sources"]]
    lines += _script_lines(description["scripts"])
    return "\n".join(lines)


def _script_lines(table: dict[str, dict[str, float]]) -> list[str]:
    """Describe the tokens of each script, if more than one is worth a line."""
    total = sum(row["characters"] for row in table.values())
    shown = {name: row for name, row in table.items() if row["characters"] >= total / 1000}
    return table_lines(shown) if len(shown.keys() - {COMMON}) > 1 else []


def _weight(source: dict[str, Any]) -> str:
    weight = source["weight"]
    return weight if isinstance(weight, str) else f"{weight:g}"


def _columns(counts: dict[str, int]) -> str:
    return f"{counts['documents']:>12,}{counts['bytes']:>15,}{counts['tokens']:>15,}"


def check_made_from(made_from: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    """Refuse a folder that was made from other input than the one asked for.

    Raises:
        RecipeError: they differ; names the settings.
    """
    # fields that there were none of then are at their defaults
    before = asdict(DataArguments()) | made_from["settings"]
    differing = [name for name, value in asked["settings"].items() if before.get(name) != value]
    if not differing and made_from["files"] != asked["files"]:
        differing = ["the files' sizes or times"]
    if differing:
        raise RecipeError(
            f"{folder} was prepared from other input ({', '.join(differing)} differ): name another output folder, or "
            "remove that one."
        )


def _reuse(arguments: DataArguments, folder: Path) -> Corpus:
    corpus = Corpus.open(folder)
    check_made_from(corpus.description["made_from"], arguments.fingerprint(), folder)
    return corpus


def show_progress(documents: Iterator[T], title: str, quiet: bool, size: Callable[[T], int] = len) -> Iterator[T]:
    """Pass documents on, and show a bar that counts characters."""
    with tqdm(desc=title, unit="B", unit_scale=True, disable=quiet or None, leave=False) as bar:
        for document in documents:
            bar.update(size(document))
            yield document


def get_tokenizer(arguments: DataArguments, quiet: bool, read: Read = documents_of) -> PreTrainedTokenizerBase:
    """Load the tokenizer that was named, or train one on the training text that the filters keep.

    Raises:
        RecipeError: it cannot be loaded, or not be trained with such a vocabulary.
    """
    if arguments.tokenizer_name is not None:
        return load_tokenizer(arguments.tokenizer_name)
    texts = show_progress((text for text, _ in read(arguments, "train")), "training the tokenizer", quiet)
    if arguments.active_filters():
        texts = (text for text in texts if arguments.refused_by(text) is None)
    return learn_tokenizer(texts, arguments)


def learn_tokenizer(
    texts: Iterator[str], arguments: TextArguments, model_max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Train the tokenizer that was asked for; raises RecipeError if the text cannot give it."""
    kind = (arguments.tokenizer_type, arguments.vocab_size, model_max_length)
    rest = (arguments.sample_characters, arguments.add_prefix_space, arguments.special_tokens or ())
    with refusing(None, ValueError, say=str):
        return train_tokenizer(texts, *kind, *rest, arguments.pre_tokenizer)


def _write_corpus(arguments: DataArguments, folder: Path, quiet: bool, read: Read) -> None:
    made_from = arguments.fingerprint()  # first: a file that changes while it is read is another file
    tokenizer = get_tokenizer(arguments, quiet, read)
    encode = document_encoder(tokenizer, arguments)
    selection, counts, sample = Selection(arguments), Counts(), ScriptSample()
    sources, source_of_file = assign_sources([source.name for source in arguments.sources()], arguments.source_weights)
    writer = CorpusWriter(folder, number_of_ids(tokenizer), sources, with_boundaries=arguments.segmenter != "none")

    def write(split: str, title: str) -> None:
        is_training, files = split == "train", deque[int]()

        def kept() -> Iterator[str]:
            documents = read(arguments, split)
            for text, file in show_progress(documents, title, quiet, size=lambda document: len(document[0])):
                if selection.keeps(text, is_filtered=is_training):
                    files.append(file)
                    sample.add(text)
                    yield text

        for encoded in encode(kept()):
            file = files.popleft()
            source = source_of_file[file] if is_training else number_of_validation_file(file)
            for part in encoded:
                is_validation = part.is_tail or not is_training
                writer.add(part.ids, part.byte_count, is_validation, source, part.begins)
                counts.add(part)

    write("train", "tokenising")
    if writer.lengths and arguments.validation_files:
        write("validation", "tokenising the validation text")
    finish_corpus(writer, tokenizer, arguments, made_from, counts, selection.dropped, sample)


def finish_corpus(
    writer: CorpusWriter,
    tokenizer: PreTrainedTokenizerBase,
    arguments: DataArguments,
    made_from: dict[str, Any],
    counts: Counts,
    dropped: Dropped,
    sample: ScriptSample,
) -> None:
    """Hold documents out if none are yet, and write the rest of a corpus.

    Raises:
        RecipeError: there is no text to train or to evaluate on.
    """
    if not writer.lengths:
        raise RecipeError(f"there is no text in {arguments.describe_source()}{_but_for(dropped)}.")
    if not arguments.validation_files and arguments.validation_split == "document":
        _hold_out(writer, arguments)
    if not any(writer.is_validation):
        raise RecipeError(
            "there is no text to evaluate on: the validation text is empty, or all of it is in the training text too "
            "(--dedup off keeps it)."
        )
    marked = arguments.document_tokens == "both"
    published = tokenizer if marked else without_start_and_end(tokenizer)
    published.save_pretrained(writer.folder / "tokenizer")
    removed = asdict(dropped)
    if arguments.dedup != "near":
        del removed["near_duplicates"]
    writer.close(
        {
            "source": arguments.describe_source(),
            "vocab_size": number_of_ids(tokenizer),
            "start_token_id": tokenizer.bos_token_id if marked else None,
            "end_token_id": tokenizer.eos_token_id if marked else None,
            "characters_per_token": counts.characters / max(counts.text_tokens, 1),
            "words_per_token": counts.words / max(counts.text_tokens, 1),
            "unknown_rate": counts.unknown / max(counts.text_tokens, 1),
            **removed,
            "scripts": sample.report(tokenizer),
            "made_from": made_from,
        },
        [source.name for source in arguments.sources("validation")][:MOST_FILES] if arguments.validation_files else [],
    )


def _but_for(dropped: Dropped) -> str:
    reasons = [name for name, number in dropped.filtered.items() if number]
    return f" but for what {' and '.join(reasons)} dropped" if reasons else ""


def _hold_out(writer: CorpusWriter, arguments: DataArguments) -> None:
    """Mark the documents to hold out: a random share, at least one and not all."""
    number = len(writer.lengths)
    if number < 2:
        ways = [f"--documents {choice}" for choice in arguments.finer_documents()]
        ways += ["--validation_files", *(["--validation_split tail"] if arguments.CAN_CUT_TAILS else [])]
        raise RecipeError(
            f"there is one document in {arguments.describe_source()}, so none can be held out: give "
            f"{', or '.join(ways)}."
        )
    chosen = min(max(1, round(number * arguments.validation_fraction)), number - 1)
    for document in np.random.default_rng(arguments.split_seed).permutation(number)[:chosen]:
        writer.is_validation[document] = True


def prepare_before_group(arguments: DataArguments, folder: Path, read: Read = documents_of) -> Corpus:
    """Prepare a corpus under a launcher: the first process of each machine does it, the others wait for the folder.

    They look at the disk, so no collective operation can time out. If the first one fails, the launcher ends them.
    """
    if is_first_of_machine():
        return prepare(arguments, folder, not is_first_process(), read)
    while not (folder / DESCRIPTION).is_file():
        time.sleep(0.2)
    return Corpus.open(folder)


def check_same_corpus(corpus: Corpus) -> None:
    """Compare the corpora of all processes: machines that prepare apart may train other tokenizers.

    Raises:
        RecipeError: in all processes, if the corpora or tokenizers differ.
    """
    files = [corpus.folder / "offsets.npy", corpus.folder / "tokenizer" / "tokenizer.json"]
    if not is_same_everywhere(hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()):
        raise RecipeError(
            f"the machines hold different corpora in {corpus.folder}: prepare it once with recipes/prepare_data.py, "
            "copy it to each of them, and give it with --data."
        )
