"""What a user says of a classification task: columns, kind of labels, loss, and the metric that counts."""

from dataclasses import dataclass
from importlib.util import find_spec

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import option
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.tasks.text_classification.known_task import MULTI, REGRESSION, SINGLE

PROBLEM_TYPES = (SINGLE, MULTI, REGRESSION)


@dataclass
class TextClassificationArguments(FileArguments):
    """Where the examples are, and how they are learnt."""

    command = "finetune_classification"

    text_columns: str | None = option(None, "column of the text, or the columns A,B of a pair of texts")
    label_column: str | None = option(
        None, 'column of the label ("label" or "labels" by default), or columns A,B,C of 0 and 1'
    )
    label_separator: str | None = option(None, "examples have several labels, with this between them")
    problem_type: str | None = option(
        None,
        f"{', '.join(PROBLEM_TYPES)}; by default lists of labels are multi-label, numbers of which some "
        "have a fractional part a regression, and everything else single-label",
        choices=PROBLEM_TYPES,
    )
    class_weights: list[str] = option(
        ["none"], "what each class counts in the loss: none, balanced, or NAME=WEIGHT ..."
    )
    label_smoothing_factor: float = option(
        0.0, "share of each target that is spread over all classes", least=0, below=1
    )
    metric: str | None = option(None, "what the best weights are chosen by")
    greater_is_better: bool | None = option(
        None, "whether a greater value of metric is better; by default as it is", rare=True
    )
    few_shot: bool = option(
        False,
        "for a few examples of each label: train by contrast on pairs of them, then fit a linear head (SetFit; needs "
        "sentence-transformers)",
    )
    thresholds: str = option(
        "label",
        "multi-label: tune on the validation examples one threshold for each label, or one for all",
        choices=("label", "one"),
        rare=True,
    )
    glue_submission: bool = option(
        False, "label the official test set of a GLUE task, in the files that GLUE takes", rare=True
    )

    def check(self) -> None:
        """Refuse values that make no sense; raises RecipeError."""
        super().check()
        if self.label_separator is not None and self.problem_type not in (None, MULTI):
            raise RecipeError(
                f"label_separator is for several labels: leave it out, or problem_type {self.problem_type}."
            )
        if self.label_separator == "":
            raise RecipeError("label_separator is empty: give what stands between labels, or leave it out.")
        own = {
            name: getattr(self, name) for name in ("text_columns", "label_column", "label_separator", "problem_type")
        }
        given = [name for name, value in own.items() if value is not None]
        if self.train_file is None and self.dataset_name is None and given:
            raise RecipeError(f"{', '.join(given)} is given without train_file or dataset_name: a task knows its own.")

    def check_files(self) -> None:
        """Also refuse few_shot where what it needs is not installed; raises RecipeError."""
        super().check_files()
        if self.few_shot and find_spec("sentence_transformers") is None:
            raise RecipeError("few_shot needs the package sentence-transformers: pip install sentence-transformers.")


ARGUMENTS = TextClassificationArguments
