"""What a user says of questions and answers."""

from dataclasses import dataclass

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import option
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.tasks.question_answering.reading import QA_FORMATS

LANGUAGES = ("auto", "en", "zh")
SHORTEST_LIMIT, COVERED = 30, 99.5  # tokens of an answer at most, by default: what covers so many percent, at least 30


@dataclass
class QuestionAnsweringArguments(FileArguments):
    """Where the questions are, and how answers are looked for."""

    command = "finetune_qa"

    version_2: bool = option(
        False, "some questions have no answer, as in SQuAD 2; set where the data holds such questions"
    )
    language: str = option(
        "auto", "en: answers are compared by words; zh: by characters; auto: zh for texts in Han characters"
    )
    stride: int = option(128, "tokens that two windows of a long text share")
    max_question_length: int = option(64, "tokens of a question at most; the rest is cut off")
    max_answer_length: int | None = option(
        None,
        f"tokens of an answer at most; the default covers {COVERED}%% of the training answers, and is at "
        f"least {SHORTEST_LIMIT}",
    )
    n_best_size: int = option(20, "answers that nbest.json holds for each question")

    def check_files(self) -> None:
        """See FileArguments; also refuses values that make no sense."""
        super().check_files()
        if self.language not in LANGUAGES:
            raise RecipeError(f"language is {self.language!r}: choose one of {', '.join(LANGUAGES)}.")
        for name, least in (("stride", 0), ("max_question_length", 1), ("max_answer_length", 1), ("n_best_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise RecipeError(f"{name} is {value}: give at least {least}.")

    @staticmethod
    def formats() -> tuple[str, ...]:
        """Endings of the files that can be read."""
        return QA_FORMATS


ARGUMENTS = QuestionAnsweringArguments
