"""What the plan says of a split's questions, and what of them no model could answer."""

from collections.abc import Iterator, Sequence

from weft.recipes.common.wording import counted
from weft.recipes.finetuning.out_of_reach import TOKENIZER_HELPS, warn_of
from weft.recipes.finetuning.tasks.question_answering.encoding import WindowCounts
from weft.recipes.finetuning.tasks.question_answering.reading import Question


def figures_of(split: str, questions: Sequence[Question], done: WindowCounts | None, number: int) -> Iterator[str]:
    """What became of a split's questions.

    Args:
        questions: as they were read, those too that are left out.
        done: what became of them as windows; None: they are not encoded yet.
        number: of the questions that were not left out.
    """
    wrong = sum(question.mended for question in questions)
    missing = sum(answer.start is None for question in questions for answer in question.answers)
    lost = sum(question.is_lost for question in questions)
    blank = sum(not question.question.strip() for question in questions)
    if done is not None:
        windows = f"{counted(done.windows, 'window')} of {counted(number, 'question')}"
        yield f"{windows}, sharing {counted(done.stride, 'token')}"
    if blank:
        yield f"{counted(blank, 'question')} without words"
    if wrong:
        found, nowhere = f"{wrong - missing:,} found by the text", f"{missing:,} nowhere in the context"
        yield f"{counted(wrong, 'wrong offset')}, {found}, {nowhere}"
    if searched := sum(question.searched for question in questions):
        yield f"{counted(searched, 'answer')} without a start, taken to be where the context first has the text"
    if lost:
        what = "left out" if split == "train" else "without an answer that could be found"
        yield f"{counted(lost, 'question')} {what}"
    if done is not None:
        for times, name, what in (
            (done.cut_questions, "question", "cut"),
            (done.missed_answers, "answer", "in no window"),
            (done.long_answers, "answer", "longer than max_answer_length"),
            (done.inexact_answers, "answer", "not at the ends of tokens"),
        ):
            if times:
                yield f"{counted(times, name)} {what}"


def warnings_of(split: str, questions: Sequence[Question], done: WindowCounts | None) -> Iterator[tuple[str, str]]:
    """A line for everything that puts too many answers out of reach; `questions` and `done` as in `figures_of`."""
    asked = sum(bool(question.answers) for question in questions)
    lost = sum(question.is_lost for question in questions)
    nowhere = f"the questions of {split} have no answer that their context holds"
    yield from warn_of(lost, asked, nowhere, "look at the offsets and texts of the answers")
    if done is not None:
        inexact = f"the answers of {split} begin or end within a token, and cannot be found exactly"
        yield from warn_of(done.inexact_answers, asked, inexact, TOKENIZER_HELPS)
        missed = f"the answers of {split} are whole in no window"
        yield from warn_of(done.missed_answers, asked, missed, "give a larger --max_length or --stride")
        long = f"the answers of {split} are longer than max_answer_length"
        yield from warn_of(done.long_answers, asked, long, "give a larger --max_answer_length")
