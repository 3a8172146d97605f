"""Classification of texts and pairs of texts: one label, several, or a number."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from weft.losses import count_targets, sequence_classification_loss
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.baseline import MOST_NAMES, named
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample
from weft.recipes.finetuning.out_of_reach import warn_of
from weft.recipes.finetuning.task import PREDICT, Batch, Divisor, Items, Task, label_fields
from weft.recipes.finetuning.tasks.text_classification import report
from weft.recipes.finetuning.tasks.text_classification.arguments import TextClassificationArguments
from weft.recipes.finetuning.tasks.text_classification.class_weights import class_weights, times_of_labels
from weft.recipes.finetuning.tasks.text_classification.contrast import make_trainer
from weft.recipes.finetuning.tasks.text_classification.few_shot import REFUSED, FewShot
from weft.recipes.finetuning.tasks.text_classification.glue_submission import write_glue_submission
from weft.recipes.finetuning.tasks.text_classification.known_task import MULTI, REGRESSION, SINGLE
from weft.recipes.finetuning.tasks.text_classification.reading import Example, input_of, read_classification, read_texts
from weft.recipes.finetuning.tasks.text_classification.scoring import (
    BINARY_SCORES,
    SCORES,
    choose_best_metric,
    score_multi,
    score_regression,
    score_single,
    sigmoid,
    softmax,
    tune_thresholds,
)
from weft.tokenizer.special_tokens import find_start_and_end, separate_pairs

_NUMBERS_OF_LABELS_SHOWN = 12


class TextClassification(Task):
    """Fine-tuning of a model with a sequence classification head.

    MNLI has another labelled split, "validation_mismatched"; GLUE's unlabelled test sets are "submission" and, of MNLI
    too, "submission_mismatched".
    """

    auto_class = "AutoModelForSequenceClassification"
    pipeline_tag = "text-classification"
    input_of = staticmethod(input_of)
    few_shot: FewShot | None = None

    @classmethod
    def read(cls, files: TextClassificationArguments, run: FineTuningArguments) -> Self:
        """See Task; with few_shot the run's defaults and its Trainer are others."""
        task = cls(files)
        if files.few_shot:
            task.few_shot = FewShot(task.data, run)
            task.refused_fields, task.default_fields = REFUSED, task.few_shot.defaults
            task.make_trainer = make_trainer
        return task

    def __init__(self, arguments: TextClassificationArguments) -> None:
        """Read and check all data; raises RecipeError."""
        self.files = arguments
        self.data = read_classification(arguments)
        self.examples = self.data.splits
        self.names, self.problem_type = self.data.names, self.data.problem_type
        task = self.data.task
        self.submissions = dict(task.submissions) if task is not None and arguments.glue_submission else {}
        metric = arguments.metric or (task.metric if task is not None else None)
        self.best_metric = choose_best_metric(self.problem_type, len(self.names), metric, arguments.greater_is_better)
        self.with_f1 = self.best_metric.name in BINARY_SCORES or (task is not None and "f1" in task.extra_metrics)
        # by name, since a model may bring another order of the labels along
        self.positive = self.names.names[1] if self.with_f1 else None
        extra = BINARY_SCORES if self.with_f1 else ()
        self.headline = tuple(dict.fromkeys((self.best_metric.name, *extra, *SCORES[self.problem_type])))
        self.thresholds = np.full(len(self.names), 0.5)
        self.cut: dict[str, int] = {}
        self._check_loss()

    @property
    def input_name(self) -> str:
        return "pair" if self.pairs else "text"

    @property
    def summary(self) -> str:
        what = "pairs of texts" if self.pairs else "texts"
        if self.problem_type == REGRESSION:
            return f"Gives {what} a number, learnt from {self.data.name}."
        how = "any of" if self.problem_type == MULTI else "one of"
        return f"Gives {what} {how} {counted(len(self.names), 'label')}, learnt from {self.data.name}."

    @property
    def pairs(self) -> bool:
        """Whether an example is a pair of texts."""
        return len(self.data.text_columns) == 2

    def _check_loss(self) -> None:
        smoothing, weights = self.files.label_smoothing_factor, self.files.class_weights
        if smoothing and self.problem_type != SINGLE:
            raise RecipeError(
                f"label_smoothing_factor is {smoothing}, but the task is {self.problem_type}: it is for examples with "
                "one label each."
            )
        if self.problem_type == REGRESSION and list(weights) not in ([], ["none"]):
            raise RecipeError("class_weights are given, but a regression has no classes: leave them out.")
        self.class_weights = class_weights(self.files.class_weights, self.names, self.data)

    @property
    def splits(self) -> dict[str, int]:
        unlabelled = {PREDICT, *self.submissions}
        return {split: len(examples) for split, examples in self.examples.items() if split not in unlabelled}

    def texts(self) -> Iterator[str]:
        return (text for example in self.examples["train"] for text in example.texts)

    def describe(self) -> list[tuple[str, str]]:
        lines = [("task", f"{self.data.name}, {self.problem_type.replace('_', ' ')}")]
        lines.append(("texts", " and ".join(self.data.text_columns)))
        if self.problem_type == REGRESSION:
            labels = [example.label for example in self.examples["train"]]
            lines.append(("labels", f"{min(labels):g} to {max(labels):g}, {np.mean(labels):.3g} on average"))
        else:
            counts = [
                f"{name} {times:,}" for name, times in zip(self.names.names, times_of_labels(self.names, self.data))
            ]
            shown = ", ".join(counts[:_NUMBERS_OF_LABELS_SHOWN]) + (
                " ..." if len(counts) > len(counts[:_NUMBERS_OF_LABELS_SHOWN]) else ""
            )
            lines.append(("labels", f"{len(counts)}: {shown}"))
        if self.class_weights is not None:
            weights = [f"{name} {weight:.3g}" for name, weight in zip(self.names.names, self.class_weights.tolist())]
            lines.append(("class weights", ", ".join(weights[:_NUMBERS_OF_LABELS_SHOWN])))
        lines += self.data.notes
        lines += self.few_shot.describe() if self.few_shot else []
        there = {split: len(examples) for split, examples in self.examples.items()}
        cut = [f"{number:,} of {there[split]:,} {split}" for split, number in self.cut.items() if number]
        if cut:
            lines.append(("too long", f"{', '.join(cut)} examples, whose end is not read"))
        for split, number in self.cut.items():
            ends = f"the {split} examples are longer than what is read"
            lines += warn_of(number, there[split], ends, "give a larger --max_length, as far as the model takes it")
        return lines

    def align_labels(self, config: PreTrainedConfig) -> bool:
        """An existing head fits where it was trained for the same kind of problem on the same labels."""
        if self.few_shot:
            self.few_shot.start_from(config)
        if getattr(config, "problem_type", None) not in (None, self.problem_type):
            return False
        if self.problem_type == REGRESSION:
            return config.num_labels == 1
        names = self.names.in_order_of(config.id2label)
        if names is None:
            return False
        self.names = names
        self.class_weights = class_weights(self.files.class_weights, self.names, self.data)
        return True

    def config_fields(self) -> dict[str, Any]:
        names = ("LABEL_0",) if self.problem_type == REGRESSION else self.names.names
        pooled = self.few_shot.config_fields() if self.few_shot else {}
        return {**label_fields(names), "problem_type": self.problem_type, **pooled}

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Pairs need something between their texts: where the tokenizer (GPT-2's, for one) puts nothing there, its end
        token goes there from now on; raises RecipeError where it has none."""
        if not self.pairs or tokenizer.num_special_tokens_to_add(pair=True) > tokenizer.num_special_tokens_to_add(
            pair=False
        ):
            return tokenizer
        _, end = find_start_and_end(tokenizer)
        if end is None:
            raise RecipeError(
                "the tokenizer puts no token between the texts of a pair, and has no end token to put there: give a "
                "model whose tokenizer has one, or join the texts into one column."
            )
        separate_pairs(tokenizer, end)
        return tokenizer

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[EncodedExample]:
        """One item for each example. Texts that are too long lose their end (of a pair, the longer text first), and are
        counted for `describe`; raises RecipeError where max_length has no room for any text."""
        if tokenizer.num_special_tokens_to_add(pair=self.pairs) >= max_length:
            raise RecipeError(f"max_length is {max_length}, which has no room for any text: give more.")
        examples = self.examples[split]
        encoded = _tokenize(tokenizer, [example.texts for example in examples], None)
        long = [number for number, ids in enumerate(encoded["input_ids"]) if len(ids) > max_length]
        self.cut[split] = len(long)
        for number, *columns in zip(
            long, *_tokenize(tokenizer, [examples[number].texts for number in long], max_length).values()
        ):
            for name, values in zip(encoded, columns):
                encoded[name][number] = values
        types = encoded.get("token_type_ids")
        return [
            EncodedExample([ids], number, self._target(examples[number]), None if types is None else [types[number]])
            for number, ids in enumerate(encoded["input_ids"])
        ]

    def _target(self, example: Example) -> Any:
        if example.label is None or self.problem_type == REGRESSION:
            return example.label
        if self.problem_type == SINGLE:
            return self.names.names.index(example.label)
        return [float(name in example.label) for name in self.names.names]

    def targets(self, layout: BatchLayout) -> Batch:
        """labels: class numbers [items]; of several labels 0 or 1 [items, labels]; of a regression [items]."""
        dtype = torch.long if self.problem_type == SINGLE else torch.float
        return {"labels": torch.tensor([item.target for item in layout.items], dtype=dtype)}

    def loss(self, outputs: Any, targets: Batch, num_items_in_batch: Divisor) -> torch.Tensor:
        return sequence_classification_loss(
            outputs.logits,
            targets["labels"],
            self.problem_type,
            num_items_in_batch,
            class_weights=self.class_weights,
            label_smoothing=self.files.label_smoothing_factor,
        )

    def count(self, targets: Batch) -> torch.Tensor:
        return count_targets(targets["labels"], self.problem_type, self.class_weights)

    def results(self, outputs: Any, layout: BatchLayout) -> list[np.ndarray]:
        """Logits [labels] of each item."""
        return list(outputs.logits.detach().float().cpu().numpy())

    def score(self, split: str, items: Items, results: Sequence[np.ndarray]) -> dict[str, float]:
        """See `SCORES`. The loss is that without class weights and label smoothing. Thresholds of several labels are
        tuned whenever "validation" is scored, and used for all other splits as they are."""
        logits, labels = np.stack(results), np.array([item.target for item in items])
        target = torch.tensor(labels, dtype=torch.long if self.problem_type == SINGLE else torch.float64)
        loss = sequence_classification_loss(torch.tensor(logits).double(), target, self.problem_type).item()
        if self.problem_type == SINGLE:
            positive = None if self.positive is None else self.names.names.index(self.positive)
            return {**score_single(logits, labels, positive), "loss": loss}
        if self.problem_type == REGRESSION:
            return {**score_regression(logits[:, 0], labels), "loss": loss}
        if split == "validation":
            self.thresholds = tune_thresholds(sigmoid(logits), labels, self.files.thresholds == "label")
        return {**score_multi(logits, labels, self.thresholds), "loss": loss}

    def answers(self, split: str, items: Items, results: Sequence[np.ndarray]) -> report.Answers:
        """What the model says of the examples of a split, by the names of labels."""
        logits = np.stack(results)
        if self.problem_type == REGRESSION:
            probabilities = logits
        else:
            probabilities = softmax(logits) if self.problem_type == SINGLE else sigmoid(logits)
        examples = [self.examples[split][item.example] for item in items]
        return report.Answers(
            self.problem_type,
            self.data.text_columns,
            self.names.names,
            [example.texts for example in examples],
            [example.label for example in examples],
            probabilities,
            self.thresholds,
            self.files.label_separator or (self.data.task.separator if self.data.task else None) or "|",
        )

    def remarks(self, split: str, items: Items, results: Sequence[np.ndarray]) -> list[str]:
        said = set(self.answers(split, items, results).predicted)
        if len(items) == 1 or len(said) > 1 or self.problem_type == REGRESSION:
            return []
        return [f"every {split} text gets {_said(*said)}"]

    def write_report(self, folder: Path, split: str, items: Items, results: Sequence[np.ndarray]) -> str:
        if split == "validation" and self.problem_type == MULTI:
            self.score(split, items, results)  # tunes the thresholds
        return report.write(folder, split, self.answers(split, items, results))

    def read_unlabelled(self, path: Path) -> None:
        self.examples[PREDICT] = read_texts(path, self.data)

    def unlabelled(self, folder: Path) -> dict[str, Path]:
        """Also GLUE's test sets. Thresholds that were tuned for the model in the folder are taken up again."""
        if (folder / report.THRESHOLDS).is_file():
            tuned = read_json(folder / report.THRESHOLDS)["thresholds"]
            self.thresholds = np.array([tuned[name] for name in self.names.names])
        files = {split: folder / "glue_submission" / of.file for split, of in self.submissions.items()}
        return super().unlabelled(folder) | files

    def write_predictions(self, path: Path, split: str, items: Items, results: Sequence[np.ndarray]) -> None:
        """A CSV file with the texts, what is predicted, and the probability of each label; for a submission its TSV."""
        answers = self.answers(split, items, results)
        if split not in self.submissions:
            report.write_predictions(path, answers)
            return
        submission = self.submissions[split]
        indices = [self.examples[split][item.example].index for item in items]
        path.parent.mkdir(parents=True, exist_ok=True)
        official = self.data.task.labels if submission.numbers else None
        write_glue_submission(path, indices, answers.predicted, official)

    def usage(self, name: str) -> str:
        several = ', top_k=None, function_to_apply="sigmoid"' if self.problem_type == MULTI else ""
        several += ', function_to_apply="none"' if self.problem_type == REGRESSION else ""
        texts = '{"text": "the first text", "text_pair": "the second"}' if self.pairs else '"some text"'
        lines = ["from transformers import pipeline", ""]
        lines.append(f'classifier = pipeline("text-classification", model="{name}", trust_remote_code=True)')
        lines.append(f"print(classifier({texts}{several}))")
        if self.problem_type == MULTI:
            lines.append("# the scores are probabilities; thresholds.json says from where on a label holds")
        return "\n".join(lines)


def _said(answer: str | tuple[str, ...]) -> str:
    if isinstance(answer, tuple):
        return " and ".join(map(named, answer[:MOST_NAMES])) if answer else "no label"
    return named(answer)


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, ...]], max_length: int | None
) -> dict[str, list[list[int]]]:
    if not texts:
        return {}
    firsts, *seconds = zip(*texts)
    encoded = tokenizer(
        list(firsts),
        *(list(second) for second in seconds),
        truncation=max_length is not None and "longest_first",
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )
    return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}


TASK = TextClassification
