"""The fields of a teacher."""

from dataclasses import dataclass

from weft.recipes.common.options import Options, option

WEIGHT, TEMPERATURE = 0.5, 1.0


@dataclass
class TeacherArguments(Options):
    """A trained model to learn from, beside the text."""

    teacher: str | None = option(
        None,
        "a model with the same tokenizer (folder or Hub id) whose probabilities are learnt beside the text's tokens; "
        "new text gets its tokenizer",
        folder_or_id=True,
    )
    teacher_weight: float | None = option(
        None, f"share of the loss that is the divergence from the teacher; left out: {WEIGHT}", least=0, most=1
    )
    teacher_temperature: float | None = option(
        None,
        f"logits of both are divided by it before they are compared; left out: {TEMPERATURE:g}",
        above=0,
        rare=True,
    )

    @property
    def weight(self) -> float:
        """`teacher_weight`, or its default."""
        return WEIGHT if self.teacher_weight is None else self.teacher_weight

    @property
    def temperature(self) -> float:
        """`teacher_temperature`, or its default."""
        return TEMPERATURE if self.teacher_temperature is None else self.teacher_temperature
