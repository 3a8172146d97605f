"""What `--few_shot true` makes of a classification run: its defaults, what it refuses, and how the model pools."""

from collections import Counter
from typing import Any

from transformers import PreTrainedConfig

from weft import WeftConfig
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.processes import world_size
from weft.recipes.common.wording import counted, some_of
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.embeddings.arguments import LAST_TOKEN, LEARNING_RATE, MEAN
from weft.recipes.finetuning.embeddings.start import pooling_of
from weft.recipes.finetuning.plan import make_plan
from weft.recipes.finetuning.tasks.text_classification.known_task import SINGLE
from weft.recipes.finetuning.tasks.text_classification.reading import ClassificationData

# As in the paper each text is in 2 x 20 pairs; of more texts each is in fewer, so that the time does not grow.
PASSES, MOST_PAIRS = 40, 2560
BATCH = 16
FEWEST_TO_CHOOSE = 100  # validation examples; fewer choose weights by chance
MANY = 64  # examples of a label, on average: as many as it was measured with (RESULTS.md)
POOLINGS = {MEAN: "mean", LAST_TOKEN: "last", "cls": "cls"}  # of sentence-transformers, and as the config has them
REFUSED = {
    "lora_rank": "few_shot trains the whole body: leave it out",
    "gradient_accumulation_steps": "few_shot compares the pairs of a batch: give per_device_train_batch_size",
    "label_smoothing_factor": "few_shot fits its head to the labels as they are: leave it out",
    "classifier_pooling": "few_shot pools as embeddings do: leave it out",
    "classifier_dropout": "few_shot compares whole vectors: leave it out",
}
OR_NOT = "or leave few_shot out"


class FewShot:
    """The part of a classification run that few-shot training decides."""

    def __init__(self, data: ClassificationData, run: FineTuningArguments) -> None:
        """Refuse data that pairs cannot be drawn from (RecipeError).

        Args:
            run: the run's fields, which `defaults` are put into afterwards.
        """
        if data.problem_type != SINGLE:
            problem = data.problem_type.replace("_", " ")
            raise RecipeError(f"few_shot learns from one label of each text, and this is a {problem}: leave it out.")
        if world_size() > 1:
            raise RecipeError(f"few_shot trains in one process: launch one, {OR_NOT}.")
        self.run, self.held_out = run, len(data.splits["validation"])
        self.times = Counter(example.label for example in data.splits["train"])
        missing = [repr(name) for name in data.names.names if not self.times[name]]
        if missing:
            raise RecipeError(
                f"few_shot learns from examples of every label, and none has {some_of(missing)}: give some, {OR_NOT}."
            )
        if max(self.times.values()) == 1:
            raise RecipeError(
                "few_shot learns from pairs of texts with the same label, and each label has one training example: "
                f"give two or more of some, {OR_NOT}."
            )
        self.pooling: str | None = None

    @property
    def defaults(self) -> dict[str, Any]:
        """What fields of the run are where they are not given: they follow from the number of examples."""
        passes = min(PASSES, MOST_PAIRS / self.times.total())
        fields = {"num_train_epochs": passes, "per_device_train_batch_size": BATCH, "learning_rate": LEARNING_RATE}
        return fields if self.held_out >= FEWEST_TO_CHOOSE else {**fields, "evaluations": 1}

    def describe(self) -> list[tuple[str, str]]:
        """Lines of the plan."""
        texts = self.times.total()
        plan = make_plan(self.run, texts, 1)
        pairs = plan.max_steps * plan.items_per_step
        lines = [
            (
                "few shot",
                f"{pairs:,} pairs of texts, every other of one label, each text first in {pairs / texts:.3g} of them; "
                "then a linear head is fitted",
            ),
            ("pooling", f"{self.pooling} of the tokens' last states"),
        ]
        single = [repr(name) for name, times in self.times.items() if times == 1]
        if single:
            lines.append(("one example", f"of {some_of(single)}, which is only told from others"))
        if self.run.evaluations == 1:
            lines.append(
                ("evaluation", f"in the end, on {counted(self.held_out, 'example')}: the last weights are kept")
            )
        if texts > MANY * len(self.times):
            lines.append(
                (
                    "warning",
                    f"{texts / len(self.times):,.0f} examples of a label on average are more than the {MANY} that "
                    "few_shot was measured with: compare with ordinary training, without it",
                )
            )
        return lines

    def start_from(self, config: PreTrainedConfig) -> None:
        """Look at the model that is trained; raises RecipeError where its head does not read one vector of a text."""
        name = config._name_or_path
        if config.model_type != WeftConfig.model_type:
            raise RecipeError(
                f"few_shot is for Weft models, and {name} is {config.model_type!r}: convert it with recipes/convert.py "
                f"import, {OR_NOT}."
            )
        own = pooling_of(name) or (LAST_TOKEN if config.is_causal else MEAN)
        if own not in POOLINGS:
            raise RecipeError(f"{name} pools by {own!r}, and classifiers by {', '.join(POOLINGS)}: give another model.")
        self.pooling = POOLINGS[own]

    def config_fields(self) -> dict[str, Any]:
        """Config fields of a model whose head reads the vectors as they are; raises RecipeError for a new model."""
        if self.pooling is None:
            raise RecipeError(f"few_shot starts from a trained model: give model_name_or_path, {OR_NOT}.")
        plain = {"classifier_transform": None, "classifier_dropout": 0.0, "classifier_bias": True}
        return {"classifier_pooling": self.pooling, **plain}
