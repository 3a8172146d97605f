"""What a user says of learning from preferences: by which loss, and where prompts and answers are."""

import importlib.metadata
from dataclasses import dataclass

from packaging.version import Version

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import option
from weft.recipes.finetuning.tasks.chat.arguments import TemplateArguments

OLDEST_TRL = "1.16"
LOSSES = {"dpo": "DPO", "kto": "KTO", "orpo": "ORPO"}
OF_PAIRS = ("chosen_column", "rejected_column")
OF_KTO = ("desirable_weight", "undesirable_weight")


@dataclass
class PreferenceArguments(TemplateArguments):
    """Prompts with a chosen and a rejected answer, or with one answer and whether it is wanted (KTO)."""

    command = "finetune_preferences"
    model_fields = ("max_position_embeddings", "rope_parameters")

    loss: str = option(
        "dpo",
        "dpo: pairs, beside the model as it starts; kto: single answers, wanted or not, beside it too (pairs are taken "
        "apart); orpo: pairs, with the likelihood of the chosen one and no second model",
        choices=LOSSES,
    )
    beta: float = option(
        0.1, "how strongly the model is held to its start (dpo, kto), or the weight of the odds ratio (orpo)", above=0
    )
    desirable_weight: float = option(1.0, "kto: weight of wanted answers", above=0, rare=True)
    undesirable_weight: float = option(1.0, "kto: weight of unwanted answers", above=0, rare=True)
    prompt_column: str | None = option(
        None, 'column of the prompt, a text or messages ("prompt", or else "messages"); A.B for a field B of column A'
    )
    chosen_column: str = option("chosen", "column of the answer that is preferred, a text or messages")
    rejected_column: str = option("rejected", "column of the other answer")
    completion_column: str = option("completion", "kto: column of a single answer")
    label_column: str = option("label", "kto: column that says whether it is wanted")
    chat_template: str | None = option(
        None,
        "template for conversations: plain, or a file in Jinja; without it the tokenizer's own, which a model of "
        "finetune_chat.py has",
    )
    samples: int = option(32, "held-out prompts that the finished model answers in its report", least=0)
    max_new_tokens: int = option(128, "tokens of such an answer at most", least=1)

    # What suits preferences in place of the defaults of other tasks.
    num_train_epochs: float = option(1.0, "passes over the training examples", above=0)
    per_device_train_batch_size: int = option(16, "examples of one forward pass of a process", least=1)
    per_device_eval_batch_size: int = option(8, "examples of one forward pass in evaluation", least=1)
    learning_rate: float = option(
        2e-5, "the highest learning rate; models of billions of weights take 5e-7 to 5e-6", above=0
    )

    def check_files(self) -> None:
        """Refuse contradictions, files that cannot be read and, last, a missing TRL; raises RecipeError."""
        super().check_files()
        if self.task is not None:
            raise RecipeError(
                f"task is {self.task!r}, and no data set of preferences is known by name: give train_file."
            )
        if self.train_file is None and self.dataset_name is None:
            raise RecipeError(
                "no examples are given: give train_file, or dataset_name for a folder or an id of the Hub."
            )
        weights = [name for name in OF_KTO if getattr(self, name) != 1]
        if weights and self.loss != "kto":
            raise RecipeError(f"{weights[0]} is for --loss kto: leave it out.")
        check_trl(f"loss {self.loss}")


def check_trl(needed_by: str) -> None:
    """Raise RecipeError where TRL is missing or too old, without importing it, which takes seconds."""
    try:
        found = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError as error:
        raise RecipeError(f"{needed_by} needs the package trl: pip install 'trl>={OLDEST_TRL}'.") from error
    if Version(found) < Version(OLDEST_TRL):
        raise RecipeError(
            f"{needed_by} needs trl {OLDEST_TRL} or newer, and {found} is installed: pip install 'trl>={OLDEST_TRL}'."
        )


ARGUMENTS = PreferenceArguments
