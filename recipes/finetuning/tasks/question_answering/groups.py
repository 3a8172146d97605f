"""Questions in groups, by their question word and by the length of their answers, for reports."""

from collections.abc import Sequence

import numpy as np

from weft.recipes.finetuning.tasks.question_answering.reading import Question

NONE = "no answer"
QUESTION_WORDS = {
    "en": {word: (word,) for word in ("what", "who", "when", "where", "which", "why", "how")},
    "zh": {
        "谁": ("谁", "誰"),
        "何时": ("何时", "何時", "什么时候", "什麼時候", "哪年", "哪一年", "哪天"),
        "哪里": ("哪里", "哪裡", "哪儿", "何处", "何處", "在哪"),
        "多少": ("多少", "几", "幾", "多大", "多长", "多高"),
        "为什么": ("为什么", "為什麼", "为何", "為何"),
        "怎么": ("怎么", "怎麼", "怎样", "怎樣", "如何"),
        "哪": ("哪",),
        "什么": ("什么", "什麼", "何"),
    },
}
LENGTHS = (1, 2, 4, 8, 16)  # an answer's length is shown as the range up to the next of these


def group_questions(questions: Sequence[Question], language: str) -> dict[str, dict[str, np.ndarray]]:
    """For each way of grouping the numbers of the questions of each of its groups."""
    return {
        "question word": _grouped([_question_word(question.question, language) for question in questions]),
        "answer length": _grouped([_length(question, language) for question in questions], in_order=_length_names()),
    }


def in_latin(name: str) -> str:
    """The name of a group in letters that the fonts of plots have: those that come with them lack Han characters."""
    return _ENGLISH.get(name, name)


def _question_word(question: str, language: str) -> str:
    """The first question word of a question; "other" without any."""
    text = question.lower()
    if language == "zh":
        return next((name for name, forms in QUESTION_WORDS["zh"].items() if any(f in text for f in forms)), "other")
    words = (word.strip(".,;:?!\"'()") for word in text.split())
    return next((word for word in words if word in QUESTION_WORDS["en"]), "other")


def _length(question: Question, language: str) -> str:
    """The range of the shortest gold answer's length, in words or, of scripts without blanks, characters."""
    if not question.answers:
        return NONE
    length = min(len(a.text.split()) if language == "en" else len(a.text) for a in question.answers)
    names = _length_names()
    return next((name for limit, name in zip(LENGTHS, names[1:]) if length <= limit), names[-1])


def _length_names() -> list[str]:
    lows = [1, *(limit + 1 for limit in LENGTHS)]
    ranges = [str(low) if low == high else f"{low}-{high}" for low, high in zip(lows, LENGTHS)]
    return [NONE, *ranges, f"{lows[-1]} and more"]


def _grouped(names: Sequence[str], in_order: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Numbers of the questions of each group, in the given order or the largest group first."""
    groups = {name: np.flatnonzero(np.array(names) == name) for name in dict.fromkeys(names)}
    if in_order is not None:
        return {name: groups[name] for name in in_order if name in groups}
    return dict(sorted(groups.items(), key=lambda group: (group[0] == "other", -len(group[1]))))


_ENGLISH = {
    **{"谁": "who", "何时": "when", "哪里": "where", "多少": "how many", "为什么": "why", "怎么": "how", "哪": "which"},
    "什么": "what",
}
