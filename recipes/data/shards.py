"""A corpus made in shards: each file tokenised apart, by any process at any time, and the corpus merged from all.

The folder of the shards holds the tokenizer, plan.json (the settings and the files), and for each file a folder, which
is like a corpus without a tokenizer and has also

pieces.npy      a row of `ENTRY` for each of its entries: documents, or heads and tails of documents
digests.npy     the digest of each document, by which copies in other files are found [documents, 16]
sample.json     some of the documents, to judge the tokenizer by
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import new_folder, only_one_process, read_json, remove_folder, size_and_time, write_json
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import BOUNDARIES, Corpus, CorpusWriter
from weft.recipes.data.prepare import Counts, check_made_from, finish_corpus, prepare_with
from weft.recipes.data.selection import DIGEST_BYTES, Dropped, Selection, digest_of
from weft.recipes.data.source_mixture import assign_sources, number_of_validation_file
from weft.recipes.data.text_source import TextSource
from weft.recipes.data.tokenization import ScriptSample, document_encoder, load_tokenizer
from weft.tokenizer.vocabulary import number_of_ids

PLAN = "plan.json"
PATIENCE = 24 * 3600  # seconds to wait for another process
ENTRY = np.dtype(
    [("document", "<i8"), ("characters", "<i8"), ("text_tokens", "<i8"), ("unknown", "<i8"), ("words", "<i8")]
)


class ShardSample(ScriptSample):
    """Sample of one file among many, so that all of them together stay small."""

    MOST_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Shards:
    """A folder of shards; tasks on any machine that sees it may write into it."""

    folder: Path

    @classmethod
    def begin(cls, arguments: DataArguments, folder: Path) -> "Shards":
        """Open the shards in `folder`, or begin new ones.

        Raises:
            RecipeError: the settings need all text in one place, or the shards in `folder` are of other input.
        """
        check_can_be_sharded(arguments)
        made_from = arguments.fingerprint()  # first: a file that changes from here on is another file
        with only_one_process(folder.with_name(f".{folder.name}.lock"), str(folder), PATIENCE):
            if not (folder / PLAN).is_file():
                if folder.exists():
                    raise RecipeError(f"{folder} holds something else than shards: name another work_dir.")
                with new_folder(folder) as partial:
                    tokenizer = load_tokenizer(arguments.tokenizer_name)
                    list(document_encoder(tokenizer, arguments)([""]))  # gives it the settings that a corpus' has
                    tokenizer.save_pretrained(partial / "tokenizer")
                    write_json(partial / PLAN, {"settings": asdict(arguments), "made_from": made_from})
        shards = cls(folder)
        check_made_from(shards.plan["made_from"], made_from, folder)
        return shards

    def __getstate__(self) -> dict[str, Any]:
        """Give tasks the folder only; they read the plan themselves."""
        return {"folder": self.folder}

    @cached_property
    def plan(self) -> dict[str, Any]:
        return read_json(self.folder / PLAN)

    @cached_property
    def arguments(self) -> DataArguments:
        return DataArguments(**self.plan["settings"])

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer as it was when the shards were begun, whatever became of its folder or Hub name since."""
        return load_tokenizer(str(self.folder / "tokenizer"))

    @cached_property
    def sources(self) -> list[TextSource]:
        """All files in the order of the corpus: the training text, then the validation text."""
        return [*self.arguments.sources(), *self.arguments.sources("validation")]

    def files_of(self, task: int, tasks: int) -> range:
        """Return the indices of the files that one of so many tasks takes."""
        return range(task, len(self.sources), tasks)

    def is_training(self, file: int) -> bool:
        """Tell whether a file is training text, rather than text that was given to evaluate on."""
        return file < len(self.arguments.train_files)

    def shard(self, file: int) -> Path:
        """Return the folder of a file's shard."""
        return self.folder / f"{file:05d}"

    def is_whole(self, file: int) -> bool:
        """Tell whether a file's shard is on disk; it is whole then."""
        return self.shard(file).is_dir()

    def read(self, file: int) -> Iterator[str]:
        """Yield the documents of a file.

        Raises:
            RecipeError: the file is broken, or was changed after the shards were begun.
        """
        for path in self.sources[file].files():
            if not path.is_file():
                raise RecipeError(f"{path} is missing here: give files on a disk that all machines share.")
            if self.plan["made_from"]["files"].get(str(path.resolve())) != size_and_time(path):
                raise RecipeError(
                    f"{path} was changed after the shards were begun: remove {self.folder} and begin again."
                )
        yield from self.sources[file].read()

    def write(self, file: int) -> None:
        """Make a file's shard; one that is on disk already stays (raises RecipeError: as `read`)."""
        with only_one_process(self.folder / f".{file:05d}.lock", str(self.shard(file)), PATIENCE):
            if not self.is_whole(file):
                with new_folder(self.shard(file)) as partial:
                    self._write_shard(partial, self.read(file), self.is_training(file))

    def _write_shard(self, folder: Path, texts: Iterator[str], is_training: bool) -> None:
        selection, sample = Selection(self.arguments), ShardSample()
        with_boundaries = self.arguments.segmenter != "none"
        writer = CorpusWriter(folder, number_of_ids(self.tokenizer), with_boundaries=with_boundaries)
        digests, rows = [], []

        def kept() -> Iterator[str]:
            for text in selection.kept(texts, is_filtered=is_training):
                digests.append(digest_of(text))
                sample.add(text)
                yield text

        for document, encoded in enumerate(document_encoder(self.tokenizer, self.arguments)(kept())):
            for part in encoded:
                writer.add(part.ids, part.byte_count, part.is_tail, begins=part.begins)
                rows.append((document, part.characters, part.text_tokens, part.unknown, part.words))
        np.save(folder / "pieces.npy", np.array(rows, dtype=ENTRY))
        np.save(folder / "digests.npy", np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES))
        write_json(folder / "sample.json", {"step": sample.step, "texts": sample.texts})
        writer.close({"dropped": asdict(selection.dropped)})

    def merge(self, folder: Path) -> Corpus:
        """Make the corpus of all shards, or open an earlier one, and remove the shards.

        Raises:
            RecipeError: a shard is missing, no shard has text, or `folder` holds something else.
        """
        missing = [source.name for file, source in enumerate(self.sources) if not self.is_whole(file)]
        if missing:
            raise RecipeError(
                f"{len(missing)} of {len(self.sources)} shards are missing, the first that of {missing[0]}: run the "
                "same command again."
            )
        corpus = prepare_with(self.arguments, folder, self._write_corpus)
        remove_folder(self.folder)
        return corpus

    def _write_corpus(self, folder: Path) -> None:
        arguments = self.arguments
        sources, source_of_file = assign_sources(arguments.train_files, arguments.source_weights)
        writer = CorpusWriter(
            folder, number_of_ids(self.tokenizer), sources, with_boundaries=arguments.segmenter != "none"
        )
        counts, dropped, sample = Counts(), Dropped(), ScriptSample()
        samples = [read_json(self.shard(file) / "sample.json") for file in range(len(self.sources))]
        step = max(each["step"] for each in samples)
        for file, is_kept in enumerate(self._kept_documents()):
            if not writer.lengths and not self.is_training(file):
                break  # there is nothing to train on
            shard = Corpus.open(self.shard(file))
            is_training, place = self.is_training(file), file - len(source_of_file)
            source = source_of_file[file] if is_training else number_of_validation_file(place)
            self._copy(shard, is_kept, writer, source, not is_training, counts)
            _add(dropped, Dropped(**shard.description["dropped"]))
            dropped.duplicates += int((~is_kept).sum())
            for document, text in zip(range(0, len(is_kept), samples[file]["step"]), samples[file]["texts"]):
                if document % step == 0 and is_kept[document]:
                    sample.add(text)
        finish_corpus(writer, self.tokenizer, arguments, self.plan["made_from"], counts, dropped, sample)

    def _copy(
        self, shard: Corpus, is_kept: np.ndarray, writer: CorpusWriter, source: int, is_validation: bool, counts: Counts
    ) -> None:
        """Append the entries of a shard whose documents are kept, and count them."""
        rows = np.load(shard.folder / "pieces.npy", allow_pickle=False)
        entries = np.flatnonzero(is_kept[rows["document"]])
        for entry in entries.tolist():
            first, last = shard.offsets[entry : entry + 2].tolist()
            begins = [shard.begins(kind, first, last) for kind in BOUNDARIES] if writer.boundaries else ()
            is_held_out = is_validation or bool(shard.is_validation[entry])
            writer.add(shard.tokens[first:last], int(shard.byte_counts[entry]), is_held_out, source, begins)
        counts.characters += int(rows["characters"][entries].sum())
        counts.text_tokens += int(rows["text_tokens"][entries].sum())
        counts.unknown += int(rows["unknown"][entries].sum())
        counts.words += int(rows["words"][entries].sum())

    def _kept_documents(self) -> list[np.ndarray]:
        """Tell for each file which of its documents are not in a file before it [documents] bool."""
        shards = map(self.shard, range(len(self.sources)))
        digests = [np.load(shard / "digests.npy", allow_pickle=False) for shard in shards]
        together = np.concatenate(digests)
        is_kept = np.full(len(together), self.arguments.dedup == "off")
        if self.arguments.dedup != "off":
            is_kept[np.unique(together.view(f"V{DIGEST_BYTES}").ravel(), return_index=True)[1]] = True
        return np.split(is_kept, np.cumsum([len(of_file) for of_file in digests])[:-1])


def check_can_be_sharded(arguments: DataArguments) -> None:
    """Refuse, before any work is done, settings that need all text in one place.

    Raises:
        RecipeError: names the field and says what to do.
    """
    arguments.check()
    if not arguments.train_files:
        raise RecipeError("there are no files to share between tasks: give --train_files.")
    if arguments.tokenizer_name is None:
        raise RecipeError(
            "no tokenizer is given, and many tasks cannot train one together: train it on a sample with "
            "tokenizer/train.py, and give --tokenizer_name."
        )
    if arguments.dedup == "near":
        raise RecipeError("dedup is 'near', which compares all text in one process: choose exact or off.")


def _add(total: Dropped, more: Dropped) -> None:
    total.empty += more.empty
    total.duplicates += more.duplicates
    total.near_duplicates += more.near_duplicates
    total.filtered = {name: total.filtered.get(name, 0) + number for name, number in more.filtered.items()}
