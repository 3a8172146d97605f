"""Entities marked in Label Studio, Prodigy and spaCy are read from what these tools export."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.tasks.token_classification.arguments import TokenClassificationArguments
from weft.recipes.finetuning.tasks.token_classification.passages import EntitySpan
from weft.recipes.finetuning.tasks.token_classification.reading import Reader
from weft.recipes.finetuning.tasks.token_classification.task import TokenClassification

TEXTS = ["Anna lives in New York.", "Bob saw Rome."]
ENTITIES = [[(0, 4, "PER"), (14, 22, "LOC")], [(0, 3, "PER"), (8, 12, "LOC")]]


def region(text: str, start: int, end: int, label: str) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text[start:end], "labels": [label]}


def label_studio(text: str, entities: list[tuple[int, int, str]]) -> dict[str, Any]:
    result = [
        {"id": "x", "from_name": "label", "to_name": "text", "type": "labels", "value": region(text, *entity)}
        for entity in reversed(entities)
    ]
    return {"id": 1, "data": {"text": text}, "annotations": [{"id": 2, "was_cancelled": False, "result": result}]}


def prodigy(text: str, entities: list[tuple[int, int, str]], answer: str = "accept") -> dict[str, Any]:
    tokens = [{"text": word, "start": text.index(word), "id": n} for n, word in enumerate(text.split())]
    spans = [{"start": start, "end": end, "label": label, "token_start": 0} for start, end, label in entities]
    return {"text": text, "_task_hash": 1, "tokens": tokens, "spans": spans, "answer": answer}


def mini(text: str, entities: list[tuple[int, int, str]]) -> dict[str, Any]:
    return {"id": 1, "text": text, "label": [region(text, *entity) for entity in entities], "annotator": 1}


FORMS: dict[str, tuple[str, Any]] = {
    "Label Studio JSON": ("x.json", [label_studio(*pair) for pair in zip(TEXTS, ENTITIES)]),
    "Label Studio JSON-MIN": ("x.json", [mini(*pair) for pair in zip(TEXTS, ENTITIES)]),
    "Prodigy": ("x.jsonl", [prodigy(*pair) for pair in zip(TEXTS, ENTITIES)]),
    "spaCy documents": (
        "x.jsonl",
        [
            {
                "text": t,
                "ents": [{"start": a, "end": b, "label": c} for a, b, c in e],
                "tokens": [{"id": 0, "start": 0}],
            }
            for t, e in zip(TEXTS, ENTITIES)
        ],
    ),
    "spaCy pairs": ("x.json", [[text, {"entities": entities}] for text, entities in zip(TEXTS, ENTITIES)]),
    "pairs with classes": (
        "x.json",
        {"classes": ["PER"], "annotations": [[t, {"entities": e}] for t, e in zip(TEXTS, ENTITIES)] + [None]},
    ),
}


def write(path: Path, content: Any) -> Path:
    is_lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in content) if is_lines else json.dumps(content, indent=2))
    return path


@pytest.mark.parametrize("form", FORMS)
def test_exports_give_texts_and_entities(tmp_path: Path, form: str) -> None:
    name, content = FORMS[form]
    path = write(tmp_path / name, content)
    examples = Reader().read(path)
    assert [example.text for example in examples] == TEXTS
    assert [example.spans for example in examples] == [[EntitySpan(*entity) for entity in row] for row in ENTITIES]
    assert [example.spans for example in Reader().read(path, labelled=False)] == [None, None]
    task = TokenClassification.read(TokenClassificationArguments(train_file=str(path)), FineTuningArguments())
    assert task.labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_what_was_not_annotated_or_accepted_is_left_out_and_counted(tmp_path: Path) -> None:
    good, other = label_studio(TEXTS[0], ENTITIES[0]), label_studio(TEXTS[1], ENTITIES[1])
    waiting = {**other, "annotations": []}
    cancelled = {**other, "annotations": [{**other["annotations"][0], "was_cancelled": True}]}
    twice = {**other, "annotations": other["annotations"] * 2}
    other["annotations"][0]["result"].append({"type": "choices", "value": {"choices": ["good"]}})
    reader = Reader()
    assert len(reader.read(write(tmp_path / "a.json", [good, waiting, cancelled, twice]))) == 2
    assert reader.notes["tasks without an annotation, left out"] == 2
    assert reader.notes["further annotations of the same task, left out"] == 1
    assert reader.notes["results of Label Studio that are no entities, left out"] == 1
    rows = [prodigy(TEXTS[n % 2], ENTITIES[n % 2], answer) for n, answer in enumerate(("accept", "reject", "ignore"))]
    reader = Reader()
    assert [example.text for example in reader.read(write(tmp_path / "b.jsonl", rows))] == TEXTS[:1]
    assert reader.notes["examples that were not accepted in Prodigy, left out"] == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", [label_studio(TEXTS[0], [(0, 4, "PER"), (0, 10, "LOC")])], "entry 1: the entities .* overlap"),
        ("a.json", [label_studio(TEXTS[0], [(0, 99, "PER")])], "entry 1: an entity from 0 to 99, but the text has 23"),
        ("a.json", [mini(TEXTS[0], [(0, 4, "PER")]) | {"text": "Another one"}], "the text from 0 to 4 is 'Anot'"),
        ("a.jsonl", [prodigy(TEXTS[0], [(0, 4, "PER"), (2, 6, "LOC")])], "line 1: the entities .* overlap"),
        ("a.json", [[TEXTS[0], {"entities": []}], ["b"]], "entry 2: no pair of a text and"),
        ("a.json", [[TEXTS[0], {"entities": [[0, 4]]}]], "entry 1: entity 1 needs start, end and label"),
        ("a.json", [label_studio(TEXTS[0], []) | {"data": {"a": "x", "b": "y"}}], "entry 1: .* no column 'text'|null"),
    ],
)  # fmt: skip
def test_broken_exports_are_named_by_their_place(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        Reader().read(write(tmp_path / name, content))
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_binary_documents_of_spacy_need_spacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.spacy"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(RecipeError, match="needs the package spacy: pip install spacy"):
        Reader().read(path)


def test_binary_documents_of_spacy_are_read_by_spacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the calls that spaCy documents, here of a stand-in."""
    path = tmp_path / "train.spacy"
    path.write_bytes(b"x")
    documents = [
        SimpleNamespace(text=text, ents=[SimpleNamespace(start_char=a, end_char=b, label_=c) for a, b, c in entities])
        for text, entities in zip(TEXTS, ENTITIES)
    ]
    binary = SimpleNamespace(from_disk=lambda given: SimpleNamespace(get_docs=lambda vocab: iter(documents)))
    spacy = SimpleNamespace(
        tokens=SimpleNamespace(DocBin=lambda: binary), blank=lambda name: SimpleNamespace(vocab=name)
    )
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    assert [example.text for example in Reader().read(path)] == TEXTS
