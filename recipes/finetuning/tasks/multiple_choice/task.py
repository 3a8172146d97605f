"""Multiple choice: which of several texts goes with a prompt."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from weft.losses import IGNORE_INDEX, sequence_classification_loss
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.baseline import Baseline, most_frequent
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample
from weft.recipes.finetuning.known_tasks import read_splits
from weft.recipes.finetuning.out_of_reach import warn_of
from weft.recipes.finetuning.task import PREDICT, Batch, Divisor, Items, Task, hide_behind
from weft.recipes.finetuning.tasks.multiple_choice.known_tasks import KNOWN_TASKS
from weft.recipes.finetuning.tasks.multiple_choice.reading import ChoiceExample, choices_of_rows, read_choices
from weft.recipes.finetuning.tasks.multiple_choice.report import write_choice_report, write_choice_table
from weft.recipes.finetuning.validation_split import squeezed
from weft.recipes.metrics import load_metric

USAGE = """\
import torch
from transformers import AutoModelForMultipleChoice, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(
    "NAME", truncation_side="left", trust_remote_code=True
)
model = AutoModelForMultipleChoice.from_pretrained("NAME", trust_remote_code=True)

prompt = "She opens the window because"
choices = ["the room is too warm.", "the window is made of glass."]
inputs = tokenizer(
    [prompt] * len(choices), choices, padding=True, padding_side="right", return_tensors="pt",
    truncation="only_first", max_length=MAX_LENGTH,
)
with torch.no_grad():
    logits = model(**{name: tensor[None] for name, tensor in inputs.items()}).logits[0]
for choice, probability in zip(choices, logits.softmax(-1).tolist()):
    print(f"{probability:.3f} {choice}")"""
_HARDLY = 1e-6  # the probability of a choice that is not answered
CHUNK = 1000  # examples that are tokenised at once


class MultipleChoice(Task):
    """SWAG-like multiple choice (Zellers et al. 2018; Devlin et al. 2019, section 4.4).

    Each choice is a sequence of its own, the prompt first; the logits of an example's choices are one distribution. A
    prompt that is too long is cut at its beginning; a choice never is.
    """

    summary = "Says which of several texts goes with a prompt."
    auto_class = "AutoModelForMultipleChoice"
    pipeline_tag = "multiple-choice"
    target_names = ("labels", "numbers_of_choices")
    has_choices = True
    input_name = "prompt"
    headline = ("accuracy",)
    best_metric = BestMetric("accuracy")

    def __init__(self, files: FileArguments) -> None:
        """Reads and checks all data; raises RecipeError."""
        self.examples = read_splits(files, KNOWN_TASKS, read_choices, choices_of_rows, self.input_of)
        self.cut: dict[str, int] = {}
        self.max_length: int | None = None

    @staticmethod
    def input_of(example: ChoiceExample) -> str:
        return squeezed(example.prompt)

    def texts(self) -> Iterator[str]:
        for example in self.examples["train"]:
            yield example.prompt
            yield from example.texts

    def describe(self) -> list[tuple[str, str]]:
        counts = sorted(Counter(len(example.texts) for example in self.examples["train"]).items())
        lines = [("choices", ", ".join(f"{number} ({counted(examples, 'example')})" for number, examples in counts))]
        cut = [f"{number:,} in {split}" for split, number in self.cut.items() if number]
        if cut:
            lines.append(("cut", f"the beginning of the prompts of {', '.join(cut)}"))
        for split, number in self.cut.items():
            begun = f"the prompts of {split} are longer than what is read"
            lines += warn_of(number, len(self.examples[split]), begun, "give a larger --max_length")
        return lines

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[EncodedExample]:
        examples = self.examples[split]
        self.max_length, self.cut[split] = max_length, 0
        cutting = copy.deepcopy(tokenizer)
        cutting.truncation_side = "left"
        with_types = "token_type_ids" in tokenizer.model_input_names
        items = []
        for begin in range(0, len(examples), CHUNK):
            chunk = examples[begin : begin + CHUNK]
            pairs = [pair for example in chunk for pair in example.pairs]
            encoded = tokenizer([first for first, _ in pairs], [second for _, second in pairs]).encodings
            place = 0
            for number, example in enumerate(chunk, start=begin):
                sequences = encoded[place : place + len(example.pairs)]
                place += len(example.pairs)
                if any(len(sequence.ids) > max_length for sequence in sequences):
                    self.cut[split] += 1
                    sequences = [
                        _cut(example, choice, sequence, cutting, max_length)
                        for choice, sequence in enumerate(sequences)
                    ]
                types = [sequence.type_ids for sequence in sequences] if with_types else None
                items.append(EncodedExample([sequence.ids for sequence in sequences], number, example.gold, types))
        return items

    def targets(self, layout: BatchLayout) -> Batch:
        gold = [IGNORE_INDEX if item.target is None else item.target for item in layout.items]
        numbers = [len(item.sequences) for item in layout.items]
        return {"labels": torch.tensor(gold), "numbers_of_choices": torch.tensor(numbers)}

    def loss(self, outputs: Any, targets: Batch, num_items_in_batch: Divisor) -> torch.Tensor:
        logits = hide_behind(outputs.logits, targets["numbers_of_choices"])
        return sequence_classification_loss(
            logits, targets["labels"], "single_label_classification", num_items_in_batch
        )

    def count(self, targets: Batch) -> torch.Tensor:
        return (targets["labels"] != IGNORE_INDEX).sum()

    def results(self, outputs: Any, layout: BatchLayout) -> list[Any]:
        """Log-probabilities of each item's choices: [choices]."""
        numbers = torch.tensor([len(item.sequences) for item in layout.items])
        found = hide_behind(outputs.logits, numbers).log_softmax(dim=-1).cpu().numpy()
        return [row[:number] for row, number in zip(found, numbers.tolist(), strict=True)]

    def score(self, split: str, items: Items, results: Sequence[Any]) -> dict[str, float]:
        """The loss, the accuracy and, where examples differ in their number of choices, the accuracy for each."""
        gold = np.array([item.target for item in items])
        guesses = np.array([int(result.argmax()) for result in results])
        numbers = np.array([len(result) for result in results])
        accuracy = load_metric("accuracy")
        scores = {
            "loss": float(np.mean([-result[right] for result, right in zip(results, gold)])),
            "accuracy": accuracy.compute(predictions=guesses, references=gold)["accuracy"],
        }
        if len(set(numbers)) > 1:
            for number in sorted(set(numbers.tolist())):
                of_these = numbers == number
                found = accuracy.compute(predictions=guesses[of_these], references=gold[of_these])
                scores[f"accuracy_of_{number}_choices"] = found["accuracy"]
        return scores

    def baselines(self, split: str, items: Items, learnt: Items) -> list[Baseline]:
        """Chance, and the place at which the right choice of the training examples stands most often."""
        numbers = [len(item.sequences) for item in items]
        place = most_frequent([item.target for item in learnt])
        results = [np.log(np.eye(number)[min(place, number - 1)] + _HARDLY) for number in numbers]
        return [
            Baseline("by chance", scores={"accuracy": float(np.mean([1 / number for number in numbers]))}),
            Baseline(f"always answers choice {place + 1}, the most frequent", results),
        ]

    def write_report(self, folder: Path, split: str, items: Items, results: Sequence[Any]) -> str:
        return write_choice_report(folder, split, self.examples[split], results)

    def read_unlabelled(self, path: Path) -> None:
        self.examples[PREDICT] = read_choices(path, labelled=False)

    def write_predictions(self, path: Path, split: str, items: Items, results: Sequence[Any]) -> None:
        write_choice_table(path, self.examples[split], results)

    def usage(self, name: str) -> str:
        return USAGE.replace("NAME", name).replace("MAX_LENGTH", str(self.max_length or 512))


def _cut(
    example: ChoiceExample, choice: int, sequence: Any, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Any:
    """A choice's sequence with the beginning of its first text cut off, as far as needed."""
    surplus = len(sequence.ids) - max_length
    if surplus <= 0:
        return sequence
    first, second = example.pairs[choice]
    if sum(part == 0 for part in sequence.sequence_ids) <= surplus:
        raise RecipeError(
            f"{example.where}: choice {choice + 1} has so many tokens that nothing of the prompt is left of "
            f"max_length={max_length}: give a larger one, or shorten the choice."
        )
    return tokenizer([first], [second], truncation="only_first", max_length=max_length).encodings[0]


TASK = MultipleChoice
