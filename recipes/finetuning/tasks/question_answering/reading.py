"""Questions about texts: SQuAD's JSON, versions 1 and 2, as CMRC 2018 and DRCD have it too, and the Hub's flat rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.json_values import parse_json, refuse_halves
from weft.recipes.data.language import unspaced_script
from weft.recipes.data.tables import Record, check_table, read_records, text_of
from weft.recipes.data.text_files import file_format, read_lines
from weft.recipes.finetuning.tasks.question_answering.flat_answers import SEARCH, without_flat_columns

QA_FORMATS = (".json", ".jsonl", ".parquet", ".csv", ".tsv")
SAMPLE_QUESTIONS = 1000
UNSPACED_SHARE = 0.3  # of the letters of a text: from here on answers are compared by characters


@dataclass(frozen=True)
class Answer:
    """A text, and its first character in the context; None where the context does not hold it."""

    text: str
    start: int | None


@dataclass(frozen=True)
class Question:
    """A question about a context.

    Attributes:
        answers: the gold ones; none where the context holds no answer, or where they are not known.
        mended: how many of their offsets were wrong, and were searched for.
        where: its place in words, such as "train.json, article 3, paragraph 2, question 5".
        searched: how many answers came without an offset, and were searched for.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    mended: int
    where: str
    searched: int = 0

    @property
    def is_lost(self) -> bool:
        """Whether there are answers, but none of them is in the context."""
        return bool(self.answers) and all(answer.start is None for answer in self.answers)


def read_questions(path: Path, labelled: bool = True) -> list[Question]:
    """The questions of a file.

    Args:
        path: .json with articles ("data") of paragraphs with "context" and "qas", or .json, .jsonl, .parquet, .csv or
            .tsv with one question a row (question, context, answers with "text" and "answer_start" or in columns of
            their own, see `without_flat_columns`, and perhaps an id).
        labelled: whether answers must be there; if not, they are not looked at.

    Raises:
        RecipeError: what is missing or wrong, and where.
    """
    check_table(path, QA_FORMATS)
    if file_format(path) == ".json":
        content = _whole_json(path)
        articles = content.get("data") if isinstance(content, dict) else content
        if isinstance(articles, list):
            if any(isinstance(article, dict) and "paragraphs" in article for article in articles):
                return _checked(_of_articles(articles, str(path), labelled))
            rows = [
                Record(_object(row, f"{path}, entry {number}"), f"{path}, entry {number}")
                for number, row in enumerate(articles, start=1)
            ]
            return questions_of_rows(rows, labelled)
        if isinstance(content, dict) and "context" not in content:
            raise RecipeError(
                f"{path} has no list 'data' of articles with paragraphs, as SQuAD has it: there are "
                f"{', '.join(content) or 'no keys'}."
            )
    return questions_of_rows(read_records(path), labelled)


def questions_of_rows(rows: Iterable[Record], labelled: bool = True) -> list[Question]:
    """Questions that stand one in a row, as on the Hub; without an id they are numbered from 1. Raises RecipeError."""
    return _checked(
        _question(
            without_flat_columns(row.values, row.where) if labelled else row.values,
            *(_text(row.values, "context", row.where), row.where, str(number), labelled),
        )
        for number, row in enumerate(rows, start=1)
    )


def rules_of(questions: Sequence[Question]) -> str:
    """By which rules answers are compared: "zh" for texts in Han characters, "unspaced" for other scripts without
    blanks between words (Thai, Japanese ...), and else "en"."""
    text = "".join(question.context[:500] for question in questions[:SAMPLE_QUESTIONS])
    return unspaced_script(text, UNSPACED_SHARE) or "en"


def nearest(context: str, text: str, offset: int) -> int | None:
    """The occurrence of a text that is nearest to an offset (the first of two that are equally near); None: there is
    none."""
    best, place = None, context.find(text)
    while place >= 0:
        if best is None or abs(place - offset) < abs(best - offset):
            best = place
        place = context.find(text, place + 1)
    return best


def _whole_json(path: Path) -> Any:
    """The value of a JSON file; None where it is not one value but one a line."""
    text = "".join(text for _, text in read_lines(path))
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith("{") and line.rstrip().endswith("}") for line in lines[:2]):
        return None
    return parse_json(text, str(path))


def _of_articles(articles: Sequence[Any], file: str, labelled: bool) -> Iterator[Question]:
    for i, article in enumerate(articles, start=1):
        of_article = f"{file}, article {i}"
        for j, paragraph in enumerate(_list(article, "paragraphs", of_article), start=1):
            of_paragraph = f"{of_article}, paragraph {j}"
            asked = _list(paragraph, "qas", of_paragraph)
            context = _text(paragraph, "context", of_paragraph)
            for k, values in enumerate(asked, start=1):
                yield _question(
                    _object(values, f"{of_paragraph}, question {k}"),
                    context,
                    f"{of_paragraph}, question {k}",
                    None,
                    labelled,
                )


def _question(values: dict[str, Any], context: str, where: str, number: str | None, labelled: bool) -> Question:
    """Args:
    number: the id of a question without one; None: it must have one.
    """
    identifier = values.get("id", number)
    if isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == "":
        raise RecipeError(f"{where}: {_lack(values, 'id')}, where a text or a number is needed.")
    refuse_halves(identifier, f"{where}: 'id'")
    question = _text(values, "question", where, may_be_blank=True)  # CMRC 2018 has such questions
    answers = _answers(values, context, where) if labelled else []
    return Question(
        str(identifier),
        question,
        context,
        tuple(answer for answer, _ in answers),
        sum(mended for _, mended in answers),
        where,
        sum(isinstance(one, dict) and one["answer_start"] is SEARCH for one in values["answers"]) if answers else 0,
    )


def _answers(values: dict[str, Any], context: str, where: str) -> list[tuple[Answer, bool]]:
    """The gold answers, and of each whether its offset was wrong."""
    impossible = values.get("is_impossible")
    if impossible is not None and not isinstance(impossible, bool):
        raise RecipeError(f"{where}: is_impossible is {impossible!r}, where true or false is needed.")
    if impossible and not values.get("answers"):
        return []
    given = values.get("answers")
    if isinstance(given, dict):
        texts, starts = (_list(given, key, f"{where}, answers") for key in ("text", "answer_start"))
        if len(texts) != len(starts):
            raise RecipeError(
                f"{where}: answers have {counted(len(texts), 'text')} and "
                f"{counted(len(starts), 'answer_start')}: give one each."
            )
        given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts)]
    elif not isinstance(given, list):
        raise RecipeError(f"{where}: {_lack(values, 'answers')}, where a list of answers is needed.")
    found = []
    for number, answer in enumerate(given, start=1):
        of_answer = f"{where}, answer {number}"
        text = _text(_object(answer, of_answer), "text", of_answer, may_be_blank=True)
        start = _value(answer, "answer_start", of_answer)
        if start is not SEARCH and (isinstance(start, bool) or not isinstance(start, int)):
            raise RecipeError(f"{of_answer}: 'answer_start' holds {_kind(start)}, where a whole number is needed.")
        if text.strip():  # some files write "no answer" as an empty one
            found.append(_place(text, start, context))
    texts_found = [answer.text for answer, _ in found]
    if impossible and found:
        raise RecipeError(
            f"{where}: is_impossible is true, but there is the answer {texts_found[0]!r}: drop one of them."
        )
    return found


def _place(text: str, offset: Any, context: str) -> tuple[Answer, bool]:
    """An answer without blanks around it, where the context has it, and whether that is not where it was said to be.
    One to be searched for is where its text first stands."""
    bare = text.strip()
    if offset is SEARCH:
        return Answer(bare, nearest(context, bare, 0)), False
    if offset >= 0 and context.startswith(text, offset):
        return Answer(bare, offset + len(text) - len(text.lstrip())), False
    return Answer(bare, nearest(context, bare, offset)), True


def _checked(questions: Iterable[Question]) -> list[Question]:
    seen: dict[str, str] = {}
    result = list(questions)
    for question in result:
        if question.id in seen:
            raise RecipeError(
                f"{question.where}: the id {question.id!r} is also that of {seen[question.id]}: give each question its "
                "own."
            )
        seen[question.id] = question.where
    return result


def _text(values: dict[str, Any], key: str, where: str, may_be_blank: bool = False) -> str:
    text = _value(values, key, where)
    if may_be_blank and isinstance(text, str) and not text.strip():
        return text
    return text_of(Record(values, where), key, key)


def _list(values: Any, key: str, where: str) -> list[Any]:
    found = _value(_object(values, where), key, where)
    if not isinstance(found, list):
        raise RecipeError(f"{where}: {key!r} holds {_kind(found)}, where a list is needed.")
    return found


def _value(values: dict[str, Any], key: str, where: str) -> Any:
    if key not in values:
        raise RecipeError(f"{where}: {_lack(values, key)}.")
    if isinstance(values[key], str):
        refuse_halves(values[key], f"{where}: column {key!r}")
    return values[key]


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: {_kind(value)}, where an object is needed.")
    return value


def _lack(values: dict[str, Any], key: str) -> str:
    if key in values:
        return f"{key!r} holds {_kind(values[key])}"
    return f"there is no {key!r} (there are {', '.join(map(repr, values)) or 'no keys'})"


def _kind(value: Any) -> str:
    return "null (None)" if value is None else f"{value!r:.40} ({type(value).__name__})"
