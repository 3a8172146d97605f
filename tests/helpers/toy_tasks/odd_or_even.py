"""A toy task, whole in one file: whether a text has an odd or an even number of words."""

from dataclasses import dataclass

import torch

from weft.losses import count_targets, sequence_classification_loss
from weft.recipes.common.options import option
from weft.recipes.data.text_files import read_lines
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import EncodedExample
from weft.recipes.finetuning.known_tasks import KnownTask, read_splits
from weft.recipes.finetuning.report_files import write_csv
from weft.recipes.finetuning.task import PREDICT, Task

NAMES = ("even", "odd")
SINGLE = "single_label_classification"


@dataclass
class OddArguments(FileArguments):
    """Where the texts are, one a line."""

    shift: int = option(0, "words that every text is taken to have more", least=0)

    @staticmethod
    def formats() -> tuple[str, ...]:
        return (".txt",)


class OddOrEven(Task):
    """Counts words, one at a time."""

    summary = "Tells odd texts from even ones."
    auto_class = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    headline = ("accuracy",)
    best_metric = BestMetric("accuracy")

    def __init__(self, files: OddArguments) -> None:
        self.shift = files.shift
        self.examples = read_splits(files, KNOWN_TASKS, self._read, lambda rows: [], lambda text: text)

    @staticmethod
    def _read(path):
        return [text.strip() for _, text in read_lines(path)]

    def texts(self):
        return iter(self.examples["train"])

    def describe(self):
        return [("shift", f"{self.shift} words")]

    def config_fields(self):
        return {"id2label": dict(enumerate(NAMES)), "label2id": {name: n for n, name in enumerate(NAMES)}}

    def encode(self, split, tokenizer, max_length):
        texts = self.examples[split]
        ids = tokenizer(texts, truncation=True, max_length=max_length).input_ids
        targets = [None if split == PREDICT else (len(text.split()) + self.shift) % 2 for text in texts]
        return [EncodedExample([of_text], number, targets[number]) for number, of_text in enumerate(ids)]

    def targets(self, layout):
        return {"labels": torch.tensor([item.target for item in layout.items])}

    def loss(self, outputs, targets, num_items_in_batch):
        return sequence_classification_loss(outputs.logits, targets["labels"], SINGLE, num_items_in_batch)

    def count(self, targets):
        return count_targets(targets["labels"], SINGLE)

    def results(self, outputs, layout):
        return list(outputs.logits.cpu())

    def score(self, split, items, results):
        logits, labels = torch.stack(results), torch.tensor([item.target for item in items])
        accuracy = (logits.argmax(-1) == labels).double().mean().item()
        return {"accuracy": accuracy, "loss": torch.nn.functional.cross_entropy(logits, labels).item()}

    def write_report(self, folder, split, items, results):
        self.write_predictions(folder / "predictions.csv", split, items, results)
        return "Counted."

    def read_unlabelled(self, path):
        self.examples[PREDICT] = self._read(path)

    def write_predictions(self, path, split, items, results):
        said = [NAMES[int(result.argmax())] for result in results]
        write_csv(path, ("text", "predicted"), zip(self.examples[split], said))

    def usage(self, name):
        return f'from transformers import pipeline\n\nprint(pipeline("text-classification", model="{name}")("a b"))'


KNOWN_TASKS = {"counted": KnownTask(files={"train": ("counted.txt",)}, hub="me/counted")}
ARGUMENTS = OddArguments
TASK = OddOrEven
