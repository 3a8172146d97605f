"""Examples with several choices: SWAG, HellaSwag, PIQA, WinoGrande, ARC and like sets, and a general form."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.tables import Record, read_records, text_of
from weft.recipes.data.text_files import read_lines

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
BLANK = "_"  # what the options of WinoGrande are put in place of
CONTEXTS = ("context", "article", "passage")
PROMPTS = ("question", "prompt", "goal", "stem")
CHOICES = ("choices", "options", "endings")
LABELS = ("label", "answer", "answerKey", "gold")
_ENDING = re.compile(r"ending(\d+)")


@dataclass(frozen=True)
class ChoiceExample:
    """An example with its choices.

    Attributes:
        prompt: what is asked, for people to read.
        texts: the choices, for people to read.
        pairs: what the model is given for each choice: two texts, of which the first may be cut at its beginning.
        gold: number of the right choice; None where it is not known.
        where: its place in words.
    """

    prompt: str
    texts: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    gold: int | None
    where: str


class _Read(NamedTuple):
    """What a form says of a row; `keys` are what its choices are called, `label` is which one is right."""

    prompt: str
    texts: list[str]
    pairs: list[tuple[str, str]]
    keys: Sequence[str] | None
    label: Any


def read_choices(path: Path, labelled: bool = True) -> list[ChoiceExample]:
    """The examples of a file: .csv, .tsv, .jsonl, .json or .parquet.

    Args:
        labelled: whether the right choice must be given; if not, it is not looked at. PIQA's labels stand in a file of
            their own beside it: train.jsonl, train-labels.lst.

    Raises:
        RecipeError: what is missing or wrong, and where.
    """
    rows = list(read_records(path))
    if labelled and rows and "sol1" in rows[0].values and "label" not in rows[0].values:
        labels = _labels_beside(path, len(rows))
        rows = [Record({**row.values, "label": label}, row.where) for row, label in zip(rows, labels)]
    return choices_of_rows(rows, labelled)


def choices_of_rows(rows: Iterable[Record], labelled: bool = True) -> list[ChoiceExample]:
    """Examples that stand one in a row, all in the form of the first. Raises RecipeError."""
    examples = []
    read: Callable[[Record], _Read] | None = None
    for row in rows:
        read = read or _form_of(row)
        found = read(row)
        if len(found.texts) < 2:
            raise RecipeError(
                f"{row.where}: there {'is' if len(found.texts) == 1 else 'are'} "
                f"{counted(len(found.texts), 'choice')}: give at least two."
            )
        gold = _gold(found, row.where) if labelled else None
        examples.append(ChoiceExample(found.prompt, tuple(found.texts), tuple(found.pairs), gold, row.where))
    return examples


def _form_of(row: Record) -> Callable[[Record], _Read]:
    columns = set(row.values)
    if "ending0" in columns:
        return _read_swag
    if {"sol1", "sol2"} <= columns:
        return _read_piqa
    if {"sentence", "option1", "option2"} <= columns:
        return _read_winogrande
    if {"ctx", "endings"} <= columns:
        return _read_hellaswag
    if any(name in columns for name in CHOICES) or isinstance(row.values.get("question"), dict):
        return _read_general
    raise RecipeError(
        f"{row.where}: no choices among the columns {', '.join(map(str, row.values))}: give a question (or context), "
        "choices and label, or the columns of SWAG (sent1, sent2, ending0 ...), HellaSwag (ctx, endings), PIQA (goal, "
        "sol1, sol2), WinoGrande (sentence, option1, option2, answer) or ARC (question, choices, answerKey)."
    )


def _read_swag(row: Record) -> _Read:
    """SWAG: the first sentence, then the beginning of the next one with each of its endings."""
    numbers = sorted(int(match.group(1)) for name in row.values if (match := _ENDING.fullmatch(str(name))))
    if numbers != list(range(len(numbers))):
        raise RecipeError(f"{row.where}: the endings are numbered {numbers}: number them from 0.")
    given = [row.values[f"ending{number}"] for number in numbers]
    while given and (given[-1] is None or given[-1] == ""):  # fewer choices than other rows have
        given.pop()
    endings = [text_of(row, f"ending{number}", f"ending{number}") for number in range(len(given))]
    if "sent1" in row.values:
        first, begun = text_of(row, "sent1", "sent1"), _text_or_blank(row, "sent2")
    else:
        first, begun = _text(row, "startphrase"), ""
    seconds = [f"{begun} {ending}".strip() for ending in endings]
    return _Read(f"{first} {begun}".strip(), endings, [(first, second) for second in seconds], None, _label(row))


def _read_hellaswag(row: Record) -> _Read:
    context, endings = _text(row, "ctx"), _texts(row.values.get("endings"), f"{row.where}, endings")
    return _Read(context, endings, [(context, ending) for ending in endings], None, _label(row))


def _read_piqa(row: Record) -> _Read:
    goal, solutions = _text(row, "goal"), [_text(row, "sol1"), _text(row, "sol2")]
    return _Read(goal, solutions, [(goal, solution) for solution in solutions], None, _label(row))


def _read_winogrande(row: Record) -> _Read:
    """WinoGrande: the sentence up to and with the option, and the rest of it (Sakaguchi et al. 2020, section 5)."""
    sentence, options = _text(row, "sentence"), [_text(row, "option1"), _text(row, "option2")]
    if sentence.count(BLANK) != 1:
        raise RecipeError(
            f"{row.where}: the sentence has {counted(sentence.count(BLANK), 'blank')} ({BLANK}), where one is needed."
        )
    before, after = sentence.split(BLANK)
    pairs = [(before + option, after.strip()) for option in options]
    return _Read(sentence, options, pairs, ("1", "2"), row.values.get("answer"))


def _read_general(row: Record) -> _Read:
    """A question, a context or both, and choices; in ARC's official form the question holds the choices."""
    values = row.values
    question = values.get("question")
    if isinstance(question, dict):
        values = {**values, **{name: value for name, value in question.items() if name in ("stem", "choices")}}
        del values["question"]
    elif "question_stem" in values:
        values = {**values, "stem": values["question_stem"]}
    inner = Record(values, row.where)
    named = [next((name for name in names if name in values), None) for names in (CONTEXTS, PROMPTS)]
    parts = [text_of(inner, name, name) for name in named if name is not None]
    if not parts:
        raise RecipeError(
            f"{row.where}: no prompt: give one of the columns {', '.join((*PROMPTS, *CONTEXTS))} beside the choices."
        )
    name = next((name for name in CHOICES if name in values), None)
    if name is None:
        raise RecipeError(f"{row.where}: there are no choices: give a list of them as 'choices'.")
    texts, keys = _choices(values[name], f"{row.where}, {name}")
    prompt = " ".join(parts)
    return _Read(prompt, texts, [(prompt, text) for text in texts], keys, _label(inner))


def _choices(value: Any, where: str) -> tuple[list[str], list[str] | None]:
    """Texts, and what they are called where that is given: a list of texts, of {text, label}, or lists in an object."""
    if isinstance(value, dict):
        if "text" not in value or "label" not in value:
            raise RecipeError(
                f"{where}: an object with {', '.join(value) or 'no keys'}: it needs lists text and label."
            )
        texts, keys = _texts(value["text"], where), _texts(value["label"], where)
        if len(texts) != len(keys):
            raise RecipeError(
                f"{where}: {counted(len(texts), 'text')} and {counted(len(keys), 'label')}: give one label for "
                "each text."
            )
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        lacking = [entry for entry in value if not isinstance(entry, dict) or not {"text", "label"} <= set(entry)]
        if lacking:
            raise RecipeError(f"{where}: {lacking[0]!r:.60} has not both text and label.")
        texts = _texts([entry["text"] for entry in value], where)
        keys = _texts([entry["label"] for entry in value], where)
    else:
        return _texts(value, where), None
    repeated = [key for key in keys if keys.count(key) > 1]
    if repeated:
        raise RecipeError(f"{where}: the label {repeated[0]!r} is there more than once: name each choice differently.")
    return texts, keys


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        raise RecipeError(f"{where}: {value!r:.60} ({type(value).__name__}), where a list of texts is needed.")
    return [text_of(Record({"text": text}, f"{where}, choice {n}"), "text", "text") for n, text in enumerate(value, 1)]


def _gold(read: _Read, where: str) -> int:
    """The number of the right choice, from 0.

    A label is a name of a choice where those have names; else the text of a choice, its letter, or its number from 0.
    """
    label, number = read.label, len(read.texts)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    named = [str(key) for key in read.keys] if read.keys is not None else None
    if label is None or (isinstance(label, str) and not label.strip()) or label == -1:
        raise RecipeError(f"{where}: it is not said which choice is right: give its label, or drop the row.")
    if not isinstance(label, bool) and isinstance(label, int | str):
        text = str(label).strip()
        if named is not None and text in named:
            return named.index(text)
        if isinstance(label, str) and read.texts.count(label) == 1:
            return read.texts.index(label)
        if named is None and len(text) == 1 and text.upper() in LETTERS[:number] and isinstance(label, str):
            return LETTERS.index(text.upper())
        if named is None and text in map(str, range(number)):
            return int(text)
    allowed = f"one of {', '.join(named)}" if named else f"a number from 0 to {number - 1}, a letter or a choice's text"
    raise RecipeError(f"{where}: the label {label!r} is none of the {number} choices: give {allowed}.")


def _label(row: Record) -> Any:
    return next((row.values[name] for name in LABELS if name in row.values), None)


def _labels_beside(path: Path, number: int) -> list[str]:
    file = path.with_name(f"{path.name.split('.')[0]}-labels.lst")
    if not file.is_file():
        raise RecipeError(f"{path} has no column 'label', and there is no {file.name} beside it: give one of both.")
    labels = [text.strip() for _, text in read_lines(file) if text.strip()]
    if len(labels) != number:
        raise RecipeError(
            f"{file} has {counted(len(labels), 'label')} for the {counted(number, 'row')} of {path.name}: give "
            "one for each."
        )
    return labels


def _text(row: Record, column: str) -> str:
    if column not in row.values:
        raise RecipeError(f"{row.where}: no column {column!r}: there are {', '.join(map(str, row.values))}.")
    return text_of(row, column, column)


def _text_or_blank(row: Record, column: str) -> str:
    return "" if not row.values.get(column) else text_of(row, column, column)
