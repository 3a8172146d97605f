"""Build an index, or bring one up to date: what has not changed is neither read nor embedded again."""

import contextlib
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.files import flush_to_disk_of_parent, new_folder, only_one_process, write_json
from weft.recipes.common.wording import counted
from weft.recipes.data.segmentation import word_spans
from weft.recipes.data.text_source import BuiltinText, TextSource
from weft.recipes.data.word_index import Form, WordIndex, normal_form
from weft.recipes.searching.embedder import Embedder, is_trained_for_search, model_files, model_folder
from weft.recipes.searching.index import ABOUT, FORMAT, LOCK, PASSAGES, VECTORS, WORDS, SearchIndex
from weft.recipes.searching.kept_vectors import KeptVectors, forget_kept
from weft.recipes.searching.passages import LEAST_TOKENS, Cutter, Passage
from weft.recipes.searching.reading import open_sources, read_stretches
from weft.recipes.searching.stamps import same_content, stamps_of

SCHEMA = pa.schema(
    [("source", pa.int32()), ("place", pa.string()), ("line", pa.int32()), ("page", pa.int32()), ("text", pa.string())]
)
TEXTS_AT_ONCE, ROWS_AT_ONCE = 2048, 1 << 16
BUILTIN = "Python"  # what the text that Python carries is called
_DATA = "data-{}"


@dataclass
class BuildArguments:
    """What to index, and how.

    Attributes:
        texts: files, folders and patterns; none: what the index was built from before.
        builtin: index the text that Python itself carries.
        model: folder or Hub id of a model; None: search by words only.
        passage_tokens: length of a passage, at most; words where there is no model. None: as before, or 200.
        overlap: what a passage has in common with the one before, at most. None: as before, or 32.
        stem: language of the texts, so that words are found in all their forms. None: as before, or no language.
    """

    index: Path
    texts: Sequence[str] = ()
    builtin: bool = False
    model: str | None = None
    passage_tokens: int | None = None
    overlap: int | None = None
    stem: str | None = None
    text_column: str | None = None
    encoding: str | None = None
    device: str | None = None
    batch_size: int = 32


DEFAULTS = {"passage_tokens": 200, "overlap": 32, "stem": None, "text_column": "text", "encoding": None}


def build(arguments: BuildArguments, by: str | None = None) -> SearchIndex:
    """Build an index, or bring it up to date, and print what was done.

    Args:
        by: how it is searched where nothing is said; None: by both meaning and words where there is a model.

    Raises:
        RecipeError: nothing can be read, or the index that is there was built otherwise. It stays as it was.
    """
    folder, began = arguments.index, time.monotonic()
    if folder.exists() and not (folder / ABOUT).is_file() and (not folder.is_dir() or _holds_others(folder)):
        raise RecipeError(f"{folder} exists and is no index: give another place, nothing is overwritten.")
    with only_one_process(folder / LOCK, f"the index {folder}"):
        old = SearchIndex(folder) if (folder / ABOUT).is_file() else None
        settings = _settings(arguments, old)
        sources = open_sources(settings["texts"], folder, settings["text_column"], settings["encoding"])
        model = _describe_model(arguments, old, by)
        plan = _Plan(sources, old)
        _remove_data(folder, "" if old is None else old.about["data"])
        if old is not None and plan.nothing_changes:
            about = old.about | {"texts": settings["texts"], "model": model, "sources": plan.described}
            if about != old.about:  # times and names
                write_json(folder / ABOUT, about)
            forget_kept(folder)
            print(f"{folder} is up to date: {plan.told()}, {counted(len(old), 'passage')}", flush=True)
            return SearchIndex(folder)
        embedder = Embedder(model["folder"], arguments.device) if model else None
        number = 1 if old is None else int(old.about["data"].rpartition("-")[2]) + 1
        with new_folder(folder / _DATA.format(number)) as data:
            origin = _write_passages(data / PASSAGES, plan, _cutter(embedder, settings))
            _write_words(data / WORDS, data / PASSAGES, origin, old, normal_form(settings["stem"]))
            if embedder is not None:
                kept = KeptVectors(folder, model["files"], embedder.size)
                _write_vectors(data / VECTORS, data / PASSAGES, origin, old, embedder, arguments.batch_size, kept)
        about = {"format": FORMAT, "data": _DATA.format(number), **settings, "model": model, "sources": plan.described}
        write_json(folder / ABOUT, about)
        flush_to_disk_of_parent(folder / ABOUT)  # which names the data that stays
        _remove_data(folder, about["data"])
        forget_kept(folder)
    new = int((origin < 0).sum())
    done = f"{counted(new, 'passage')} of {len(origin):,} {'embedded' if model else 'indexed'}"
    print(f"{folder}: {plan.told()}; {done} in {time.monotonic() - began:.1f} s", flush=True)
    return SearchIndex(folder)


def _holds_others(folder: Path) -> bool:
    """Whether anything stands there that no first build has left, which was interrupted or is going on."""
    own = [folder / LOCK, *_data_of(folder)] if (folder / LOCK).is_file() else []
    return any(path not in own and not path.name.endswith(".partial") for path in folder.iterdir())


def _data_of(folder: Path) -> list[Path]:
    """The folders that builds have written, or begun to remove."""
    found = [path for path in folder.iterdir() if re.fullmatch(_DATA.format(r"\d+"), path.name) and path.is_dir()]
    return [path for path in found if {each.name for each in path.iterdir()} <= {PASSAGES, VECTORS, WORDS}]


def _remove_data(folder: Path, but: str) -> None:
    """Remove what was written before, and what an interrupted build left."""
    for other in _data_of(folder):
        if other.name != but:
            shutil.rmtree(other, ignore_errors=True)


def _settings(arguments: BuildArguments, old: SearchIndex | None) -> dict[str, Any]:
    """The settings of a build: as given, else as before, else the defaults; raises RecipeError where they differ."""
    settings: dict[str, Any] = {"texts": list(arguments.texts)}
    if old is not None and not arguments.texts and not arguments.builtin:
        settings["texts"] = old.about["texts"]
    elif not arguments.texts and not arguments.builtin:
        raise RecipeError("there is nothing to index: give files or folders of text before the name of the index.")
    shorter = {} if arguments.passage_tokens is None else {"overlap": min(32, arguments.passage_tokens // 4)}
    before = DEFAULTS | (shorter if old is None else old.about)
    for name in DEFAULTS:
        given = getattr(arguments, name)
        settings[name] = before[name] if given is None else given
        if old is not None and settings[name] != before[name]:
            raise RecipeError(
                f"{name} is {given!r}, but {arguments.index} was built with {before[name]!r}: leave it out, or name "
                "another index."
            )
    normal_form(settings["stem"])
    if settings["passage_tokens"] < LEAST_TOKENS:
        raise RecipeError(f"passage_tokens is {settings['passage_tokens']}: give at least {LEAST_TOKENS}.")
    if not 0 <= settings["overlap"] <= settings["passage_tokens"] // 2:
        raise RecipeError(f"overlap is {settings['overlap']}: give a number from 0 to half of passage_tokens.")
    return settings


def _describe_model(arguments: BuildArguments, old: SearchIndex | None, by: str | None) -> dict[str, Any] | None:
    """Folder, files and use of the model; None: there is none. Raises RecipeError where the index has another."""
    before = old.about["model"] if old is not None else None
    name = arguments.model or (before["folder"] if before else None)
    if name is None:
        return None
    folder = model_folder(name)
    files = stamps_of(model_files(folder), before["files"] if before else {}, folder)
    if not files:
        raise RecipeError(f"model {name!r} has no files of a model: give the folder of one.")
    if old is not None and (before is None or not same_content(files, before["files"])):
        of = f"another model ({before['folder']}, as it was then)" if before else "no model"
        raise RecipeError(f"{arguments.index} was built with {of}: remove it, or name another index for {name}.")
    default = "both" if is_trained_for_search(folder) else "words"
    return {"folder": str(folder.resolve()), "by": by or (before["by"] if before else default), "files": files}


def _cutter(embedder: Embedder | None, settings: dict[str, Any]) -> Cutter:
    longest, overlap = settings["passage_tokens"], settings["overlap"]
    if embedder is None:
        return Cutter(word_spans, longest, overlap)
    longest = min(longest, embedder.longest)
    return Cutter(embedder.offsets, longest, min(overlap, longest // 2))


def _while_it_is_there() -> contextlib.AbstractContextManager[None]:
    """Raises RecipeError where a file goes that was there when the texts were listed."""
    return refusing("a text is gone since they were listed", FileNotFoundError, advice="run the same command again.")


class _Plan:
    """Which sources are read, and which keep the passages that an old index has of them."""

    def __init__(self, sources: Sequence[TextSource], old: SearchIndex | None) -> None:
        self.sources, self.old = sources, old
        before = (
            {each["name"]: (place, each) for place, each in enumerate(old.about["sources"])} if old is not None else {}
        )
        self.described: list[dict[str, Any]] = []
        self.kept: list[int | None] = []  # the place of each source in the old index, where it is as it was
        self.changed = 0
        for source in sources:
            builtin = isinstance(source, BuiltinText)
            name = BUILTIN if builtin else source.name
            place, was = before.pop(name, (None, {"files": {}, "passages": 0}))
            with _while_it_is_there():
                files = {sys.version: [0, 0, sys.version]} if builtin else stamps_of(source.files(), was["files"])
            same = place is not None and bool(files) and same_content(files, was["files"])
            self.changed += place is not None and not same
            self.kept.append(place if same else None)
            self.described.append({"name": name, "files": files, "passages": was["passages"] if same else 0})
        self.removed = len(before)

    @property
    def nothing_changes(self) -> bool:
        return None not in self.kept and not self.removed and self.kept == sorted(self.kept)

    def told(self) -> str:
        """How many sources there are of each kind."""
        kept = sum(place is not None for place in self.kept)
        new = len(self.sources) - kept - self.changed
        kinds = {"unchanged": kept, "changed": self.changed, "new": new, "removed": self.removed}
        parts = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items() if number)
        return f"{counted(len(self.sources), 'source')} ({parts})"


def _write_passages(path: Path, plan: _Plan, cutter: Cutter) -> np.ndarray:
    """Write the passages of all sources, and tell for each its row in the old index; -1: it has none there."""
    origin: list[int] = []
    moved = _texts_to_find(plan)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for number, (source, place) in enumerate(
            zip(tqdm(plan.sources, "reading", disable=None, leave=False), plan.kept)
        ):
            if place is not None:
                rows = plan.old.rows_of(place)
                table = plan.old.passages.slice(rows.start, len(rows))
                column = pa.array(np.full(len(rows), number, np.int32))
                writer.write_table(table.set_column(0, SCHEMA.field(0), column), TEXTS_AT_ONCE)
                origin += rows
                continue
            with _while_it_is_there():
                passages = cutter.passages(read_stretches(source))
            plan.described[number]["passages"] = len(passages)
            writer.write_table(_table(number, passages), TEXTS_AT_ONCE)
            origin += (rows.pop(0) if (rows := moved.get(passage.text)) else -1 for passage in passages)
    if not origin:
        raise RecipeError("the texts hold nothing that could be searched: give others.")
    return np.array(origin, np.int64)


def _texts_to_find(plan: _Plan) -> dict[str, list[int]]:
    """The rows of old passages of sources that are read again or gone, by text: the same text may be met again."""
    found: dict[str, list[int]] = {}
    if plan.old is not None:
        for place in set(range(len(plan.old.about["sources"]))) - set(plan.kept):
            rows = plan.old.rows_of(place)
            for row, text in zip(rows, plan.old.texts(rows)):
                found.setdefault(text, []).append(row)
    return found


def _table(source: int, passages: Sequence[Passage]) -> pa.Table:
    columns = {name: [getattr(passage, name) for passage in passages] for name in ("place", "line", "page", "text")}
    return pa.table({"source": [source] * len(passages), **columns}, schema=SCHEMA)


def _new_texts(path: Path, origin: np.ndarray, at_once: int) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield rows that have no old ones, and their texts, some at once."""
    reader, first = pa.ipc.open_file(pa.memory_map(str(path))), 0
    rows: list[int] = []
    texts: list[str] = []
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        new = np.flatnonzero(origin[first : first + len(batch)] < 0)
        rows += (new + first).tolist()
        texts += batch.column("text").take(pa.array(new)).to_pylist()
        first += len(batch)
        if len(rows) >= at_once or (rows and first == len(origin)):
            yield np.array(rows), texts
            rows, texts = [], []


def _write_words(folder: Path, passages: Path, origin: np.ndarray, old: SearchIndex | None, form: Form) -> None:
    texts = (text for _, some in _new_texts(passages, origin, TEXTS_AT_ONCE) for text in some)
    parts = [(WordIndex.of(texts, form), np.flatnonzero(origin < 0))]
    if old is not None:
        places = np.full(len(old), -1)
        places[origin[origin >= 0]] = np.flatnonzero(origin >= 0)
        parts.append((old.words, places))
    WordIndex.joined(parts, len(origin)).save(folder)


def _write_vectors(
    path: Path,
    passages: Path,
    origin: np.ndarray,
    old: SearchIndex | None,
    embedder: Embedder,
    batch_size: int,
    kept: KeptVectors,
) -> None:
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (len(origin), embedder.size))
    unchanged = np.flatnonzero(origin >= 0)
    for first in range(0, len(unchanged), ROWS_AT_ONCE):
        some = unchanged[first : first + ROWS_AT_ONCE]
        vectors[some] = old.vectors[origin[some]]
    new = len(origin) - len(unchanged)
    if new:
        before = f"; {counted(len(kept.rows), 'text')} were embedded before the last build stopped" if kept.rows else ""
        print(f"embedding {counted(new, 'passage')}{before}", flush=True)
    with tqdm(total=new, desc="embedding", unit=" passages", disable=None, leave=False) as bar:
        for rows, texts in _new_texts(passages, origin, TEXTS_AT_ONCE):
            vectors[rows] = kept.of(texts, lambda some: embedder.of_passages(some, batch_size))
            bar.update(len(rows))
    vectors.flush()
