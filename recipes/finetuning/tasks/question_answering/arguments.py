"""What a user says of questions and answers."""

from dataclasses import dataclass

from weft.recipes.common.options import option
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.tasks.question_answering.reading import QA_FORMATS

SHORTEST_LIMIT, COVERED = 30, 99.5  # tokens of an answer at most, by default: what covers so many percent, at least 30


@dataclass
class QuestionAnsweringArguments(FileArguments):
    """Where the questions are, and how answers are looked for."""

    command = "finetune_qa"

    version_2: bool = option(
        False, "some questions have no answer, as in SQuAD 2; set where the data holds such questions"
    )
    language: str = option(
        "auto",
        "en: answers are compared by words; zh: by characters; unspaced: by characters in scripts other than Chinese "
        "(Thai, Japanese ...); auto: as the texts are written",
        choices=("auto", "en", "zh", "unspaced"),
    )
    stride: int = option(128, "tokens that two windows of a long text share", least=0, rare=True)
    max_question_length: int = option(64, "tokens of a question at most; the rest is cut off", least=1, rare=True)
    max_answer_length: int | None = option(
        None,
        f"tokens of an answer at most; the default covers {COVERED}%% of the training answers, and is at "
        f"least {SHORTEST_LIMIT}",
        least=1,
    )
    n_best_size: int = option(20, "answers that nbest.json holds for each question", least=1, rare=True)

    @property
    def card_language(self) -> None:
        """None: `language` is how answers are compared, of which the card follows where that says the language."""
        return None

    @staticmethod
    def formats() -> tuple[str, ...]:
        """Endings of the files that can be read."""
        return QA_FORMATS


ARGUMENTS = QuestionAnsweringArguments
