"""Entities out of annotation tools: exports of Label Studio, Prodigy and spaCy as rows of a text and its entities.

label_studio: tasks with `data` and `annotations` (JSON), or with the text and a list of regions (JSON-MIN).
prodigy: lines with `text`, `spans` and perhaps `tokens` and `answer`.
spacy: `Doc.to_json()` (`text`, `ents`), pairs of a text and {"entities": [[start, end, label], ...]} as its training
    takes them, also as an object with `annotations`, and .spacy files (DocBin), which need the package spacy.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError, optional_package, refusing
from weft.recipes.data.json_values import parse_json
from weft.recipes.data.tables import Record
from weft.recipes.data.text_files import file_format, read_lines

EXPORTS = ("label_studio", "prodigy", "spacy")
DOCBIN = ".spacy"
_PAIRS = re.compile(r'\s*(\[\s*\[|\{\s*"(classes|annotations)")')  # how a file of spaCy's pairs begins


def export_of(record: Record) -> str | None:
    """The tool whose export a row is of; None for any other row."""
    values = record.values
    if "annotations" in values and isinstance(values.get("data"), dict):
        return "label_studio"
    regions = [value for value in values.values() if isinstance(value, list)]
    if any(isinstance(one, dict) and "labels" in one and "start" in one for value in regions for one in value):
        return "label_studio"
    if not isinstance(values.get("text"), str):
        return None
    if isinstance(values.get("ents"), list):
        return "spacy"
    tokens = values.get("tokens")
    is_marked = "_task_hash" in values or values.get("answer") in ("accept", "reject", "ignore")
    if is_marked or (isinstance(tokens, list) and tokens and isinstance(tokens[0], dict)):
        return "prodigy"
    return None


def is_pairs(path: Path) -> bool:
    """Whether a file holds texts and entities in pairs, or documents, of spaCy: no rows that have columns."""
    if file_format(path) == DOCBIN:
        return True
    begins = "".join(text for _, text in islice(read_lines(path), 20)) if file_format(path) == ".json" else ""
    return _PAIRS.match(begins) is not None


def read_pairs(path: Path) -> Iterator[Record]:
    """The rows of such a file (raises RecipeError: it is broken, or spaCy is not installed)."""
    if file_format(path) == DOCBIN:
        spacy = optional_package("spacy", f"{path.name}, a file of spaCy's own,")
        with refusing(f"{path} is no file of spaCy documents", Exception, advice="write it again with DocBin.to_disk."):
            documents = list(spacy.tokens.DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab))
        for number, document in enumerate(documents, start=1):
            entities = [[span.start_char, span.end_char, span.label_] for span in document.ents]
            yield Record({"text": document.text, "entities": entities}, f"{path}, document {number}")
        return
    content = parse_json("".join(text for _, text in read_lines(path)), str(path))
    pairs = content.get("annotations") if isinstance(content, dict) else content
    for number, pair in enumerate(pairs if isinstance(pairs, list) else [None], start=1):
        if pair is None and isinstance(content, dict):  # what is not annotated yet
            continue
        where = f"{path}, entry {number}"
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict) and "entities" in pair[1]):
            raise RecipeError(f'{where}: no pair of a text and {{"entities": [[start, end, label], ...]}}: mend it.')
        yield Record({"text": pair[0], "entities": pair[1]["entities"]}, where)


def rows_of_export(
    records: Iterable[Record], form: str, text_column: str, notes: Counter[str], labelled: bool
) -> Iterator[Record]:
    """Each example as a row with `text` and `entities`; what nobody annotated or accepted is left out and counted."""
    for record in records:
        if form == "spacy":
            entities: Any = record.values.get("entities", record.values.get("ents"))
            yield Record({"text": record.values.get("text"), "entities": entities}, record.where)
        elif form == "prodigy":
            if labelled and record.values.get("answer", "accept") != "accept":
                notes["examples that were not accepted in Prodigy, left out"] += 1
                continue
            entities = record.values.get("spans") or []
            yield Record({"text": record.values.get("text"), "entities": entities}, record.where)
        else:
            text, regions = _label_studio(record, text_column, notes)
            if regions is None and labelled:
                notes["tasks without an annotation, left out"] += 1
            else:
                entities = [entity for region in regions or () for entity in _entities(region, text, record.where)]
                yield Record({"text": text, "entities": entities}, record.where)


def _label_studio(record: Record, text_column: str, notes: Counter[str]) -> tuple[Any, list[Any] | None]:
    """The text of a task and its regions; None where nobody has annotated it."""
    values = record.values
    data = values.get("data")
    if not isinstance(data, dict):
        found = [value for name, value in values.items() if isinstance(value, list) and name != text_column]
        return _text(values, text_column), next((value for value in found if all(map(_is_region, value))), None)
    given = [one for one in values.get("annotations") or [] if isinstance(one, dict) and not one.get("was_cancelled")]
    notes["further annotations of the same task, left out"] += max(0, len(given) - 1)
    results = [one.get("value") for one in (given[0].get("result") or [] if given else []) if isinstance(one, dict)]
    regions = [value for value in results if _is_region(value)]
    notes["results of Label Studio that are no entities, left out"] += len(results) - len(regions)
    return _text(data, text_column), regions if given else None


def _text(data: dict[str, Any], text_column: str) -> Any:
    """The text of that name, or else the only one."""
    texts = [value for value in data.values() if isinstance(value, str)]
    return data.get(text_column, texts[0] if len(texts) == 1 else None)


def _is_region(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("labels"), list)


def _entities(region: dict[str, Any], text: Any, where: str) -> list[list[Any]]:
    start, end, said = region.get("start"), region.get("end"), region.get("text")
    is_placed = isinstance(text, str) and isinstance(start, int) and isinstance(end, int)
    if is_placed and isinstance(said, str) and text[start:end] != said:
        raise RecipeError(
            f"{where}: the text from {start} to {end} is {text[start:end]!r}, not {said!r}: mend the row, or export it "
            "again."
        )
    return [[start, end, label] for label in region["labels"]]
