"""Extractive question answering: the answer is a part of a given text, or there is none."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from weft.losses import IGNORE_INDEX, question_answering_loss, target_nats
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.baseline import Baseline
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample
from weft.recipes.finetuning.known_tasks import read_splits
from weft.recipes.finetuning.model_setup import DEFAULT_LENGTH, as_encoder
from weft.recipes.finetuning.task import PREDICT, Batch, Divisor, Items, Task, hide_behind, label_fields
from weft.recipes.finetuning.tasks.question_answering.arguments import (
    COVERED,
    SHORTEST_LIMIT,
    QuestionAnsweringArguments,
)
from weft.recipes.finetuning.tasks.question_answering.description import figures_of, warnings_of
from weft.recipes.finetuning.tasks.question_answering.encoding import (
    WindowCounts,
    beginnings,
    closes,
    closing,
    is_exact,
    window_of,
)
from weft.recipes.finetuning.tasks.question_answering.known_tasks import KNOWN_TASKS
from weft.recipes.finetuning.tasks.question_answering.reading import (
    Question,
    questions_of_rows,
    read_questions,
    rules_of,
)
from weft.recipes.finetuning.tasks.question_answering.report import write_answers, write_qa_report
from weft.recipes.finetuning.tasks.question_answering.scoring import Answered, score_all, threshold_used
from weft.recipes.finetuning.tasks.question_answering.spans import (
    ContextWindow,
    WindowSpans,
    as_arrays,
    best_spans,
    merge,
    target_of,
)
from weft.recipes.finetuning.tasks.question_answering.usage import usage_of
from weft.recipes.finetuning.validation_split import squeezed
from weft.recipes.training.run_folder import METRICS

CHUNK = 1000  # questions that are tokenised at once
THRESHOLD = "no_answer_threshold"
RULES = {"en": "as English", "zh": "as Chinese", "unspaced": "by characters"}


class QuestionAnswering(Task):
    """SQuAD-like question answering (Rajpurkar et al. 2016, 2018; Devlin et al. 2019, section 4.2).

    The question comes first, and as much of the context as fits; a long context becomes several windows that overlap.
    The target is the answer's first and last token or, in a window without it, a token that stands for "no answer":
    the first one (as in BERT), or in a causal model the last, the only one that has seen everything. That also holds
    where every question has an answer: a model that never learnt from windows without one would find one in each.
    A span's score is its log-odds against the "no answer" of its window, so that windows can be compared.
    """

    summary = "Answers questions with a part of a given text."
    auto_class = "AutoModelForQuestionAnswering"
    pipeline_tag = "question-answering"
    target_names = ("start_positions", "end_positions", "sequence_lengths")
    finds_spans = True
    input_name = "context"
    headline = ("exact_match", "f1")
    best_metric = BestMetric("f1")

    def __init__(self, files: QuestionAnsweringArguments) -> None:
        """Reads and checks all data; raises RecipeError."""
        self.files = files
        self.examples = read_splits(files, KNOWN_TASKS, read_questions, questions_of_rows, self.input_of)
        # a set of which every question has an answer is of version 1
        self.version_2 = files.version_2 or any(
            not question.answers for split in ("train", "validation") for question in self.examples[split]
        )
        unexpected = [question for question in self.examples.get("test", ()) if not question.answers]
        if unexpected and not self.version_2:
            raise RecipeError(
                f"{unexpected[0].where}: there is no answer, but all questions to learn from have one: give version_2, "
                "or the file as predict_file if its answers are not known."
            )
        self.compared_as = rules_of(self.examples["train"]) if files.language == "auto" else files.language
        if self.compared_as == "zh" or files.language == "en":
            self.language = self.compared_as
        self.read = {split: list(questions) for split, questions in self.examples.items()}
        self.examples["train"] = [question for question in self.examples["train"] if not question.is_lost]
        if not any(question.answers for question in self.examples["train"]):
            raise RecipeError("no training question has an answer that its context holds: there is nothing to learn.")
        self.causal = False
        self.max_length: int | None = None
        self.max_answer_length = files.max_answer_length
        self.threshold: float | None = None  # of the probability of "no answer"; None: not tuned yet
        self.encoded: dict[str, WindowCounts] = {}

    @staticmethod
    def input_of(example: Question) -> str:
        return squeezed(example.context)

    def texts(self) -> Iterator[str]:
        yield from dict.fromkeys(question.context for question in self.examples["train"])
        yield from (question.question for question in self.examples["train"])

    def describe(self) -> list[tuple[str, str]]:
        train = self.examples["train"]
        impossible = sum(not question.answers for question in train)
        form = f"version 2, {impossible / len(train):.1%} without an answer" if self.version_2 else "version 1"
        lines = [("questions", f"{form}; compared {RULES[self.compared_as]}")]
        for split, questions in self.read.items():
            done = self.encoded.get(split)
            figures = "; ".join(figures_of(split, questions, done, self.splits[split]))
            lines += [(split, figures)] if figures else []
            lines += warnings_of(split, questions, done)
        if self.max_answer_length is not None:
            lines.append(("answers", f"{counted(self.max_answer_length, 'token')} at most"))
        return lines

    def align_labels(self, config: PreTrainedConfig) -> bool:
        """Learn whether the model is causal, which decides the token that stands for "no answer"."""
        self.causal = is_causal(config)
        return True

    def config_fields(self) -> dict[str, Any]:
        """Two logits for each token; families that read their number off the labels would else follow older ones."""
        return label_fields(("LABEL_0", "LABEL_1"))

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """A causal model's needs a token behind the context, which stands for "no answer"."""
        if not self.causal:
            return tokenizer
        return closing(tokenizer if closes(tokenizer) else as_encoder(tokenizer))

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[EncodedExample]:
        questions = self.examples[split]
        self.max_length = max_length
        if self.max_answer_length is None:
            self.max_answer_length = self._longest_answer(tokenizer)
        room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
        longest_question = min(self.files.max_question_length, room // 2)
        if longest_question < 1:
            raise RecipeError(f"max_length is {max_length}, which leaves no room for a question and a text: give more.")
        done = WindowCounts(stride=min(self.files.stride, (room - longest_question) // 2))
        self.encoded[split] = done
        items: list[EncodedExample] = []
        for begin in range(0, len(questions), CHUNK):
            chunk = questions[begin : begin + CHUNK]
            asked = beginnings([question.question for question in chunk], tokenizer, longest_question)
            done.cut_questions += sum(text != question.question for text, question in zip(asked, chunk))
            encoding = tokenizer(
                asked,
                [question.context for question in chunk],
                truncation="only_second",
                max_length=max_length,
                stride=done.stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            parts: list[list[Any]] = [[] for _ in chunk]
            for number, tokens in zip(encoding["overflow_to_sample_mapping"], encoding.encodings):
                parts[number].append(tokens)
            for number, question in enumerate(chunk):
                windows = [window_of(tokens, question) for tokens in parts[number]]
                targets: list[tuple[int, int] | None] = [None] * len(windows)
                if split != PREDICT:
                    targets = self._targets(question, windows, [len(tokens.ids) for tokens in parts[number]], done)
                for tokens, window, target in zip(parts[number], windows, targets):
                    types = [tokens.type_ids] if "token_type_ids" in tokenizer.model_input_names else None
                    items.append(EncodedExample([tokens.ids], begin + number, target, types, window))
        done.windows = len(items)
        return items

    def _longest_answer(self, tokenizer: PreTrainedTokenizerBase) -> int:
        texts = [question.answers[0].text for question in self.examples["train"] if question.answers]
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        return max(SHORTEST_LIMIT, int(np.percentile(lengths, COVERED, method="higher")))

    def _targets(
        self, question: Question, windows: Sequence[ContextWindow], lengths: Sequence[int], done: WindowCounts
    ) -> list[tuple[int, int] | None]:
        """First and last token of the answer in the sequence of each window of a question; None: not known.

        A question whose answer no window holds whole has none of them: that there is no answer would be wrong.
        """
        found: list[tuple[int, int] | None] = []
        for number, window in enumerate(windows):
            spans = (
                target_of(
                    *(answer.start, answer.start + len(answer.text), window.offsets),
                    *(number == 0, number == len(windows) - 1),
                )
                for answer in question.answers
                if answer.start is not None
            )
            span = next((span for span in spans if span is not None), None)
            found.append(None if span is None else (span[0] + window.first, span[1] + window.first))
        held = [(window, span) for window, span in zip(windows, found) if span is not None]
        if not held and (question.answers or not self.version_2):
            done.missed_answers += bool(question.answers) and not question.is_lost
            return found
        done.long_answers += any(last - first >= (self.max_answer_length or 0) for _, (first, last) in held)
        done.inexact_answers += any(not is_exact(question, window, span) for window, span in held)
        places = [self._nothing(length) for length in lengths]
        return [(place, place) if span is None else span for place, span in zip(places, found)]

    def _nothing(self, length: int) -> int:
        """The token of a sequence that stands for "no answer"."""
        return length - 1 if self.causal else 0

    def targets(self, layout: BatchLayout) -> Batch:
        spans = torch.tensor([item.target or (IGNORE_INDEX, IGNORE_INDEX) for item in layout.items])
        return {
            "start_positions": spans[:, 0],
            "end_positions": spans[:, 1],
            "sequence_lengths": torch.tensor(layout.lengths),
        }

    def loss(self, outputs: Any, targets: Batch, num_items_in_batch: Divisor) -> torch.Tensor:
        lengths = targets["sequence_lengths"]
        start, end = hide_behind(outputs.start_logits, lengths), hide_behind(outputs.end_logits, lengths)
        return question_answering_loss(
            start, end, targets["start_positions"], targets["end_positions"], num_items_in_batch
        )

    def count(self, targets: Batch) -> torch.Tensor:
        return (targets["start_positions"] != IGNORE_INDEX).sum()

    def results(self, outputs: Any, layout: BatchLayout) -> list[Any]:
        device = outputs.start_logits.device
        lengths = torch.tensor(layout.lengths)
        start, end = hide_behind(outputs.start_logits, lengths), hide_behind(outputs.end_logits, lengths)
        first = torch.tensor([item.info.first for item in layout.items], device=device)
        last = first + torch.tensor([len(item.info.offsets) for item in layout.items], device=device) - 1
        limit = self.max_answer_length or SHORTEST_LIMIT
        starts, ends, sums = best_spans(start, end, first, last, limit, self.files.n_best_size)
        nothing = torch.tensor([self._nothing(length) for length in layout.lengths], device=device)[:, None]
        scores = sums - start.gather(1, nothing) - end.gather(1, nothing)
        targets = self.targets(layout)
        known = targets["start_positions"].to(device) != IGNORE_INDEX
        nats = (target_nats(start, targets["start_positions"]) + target_nats(end, targets["end_positions"])) / 2
        losses = nats.masked_fill(~known, float("nan"))
        return as_arrays(starts - first[:, None], ends - first[:, None], scores, losses)

    def score(self, split: str, items: Items, results: Sequence[Any]) -> dict[str, float]:
        """Exact match and F1 in percent. Where questions may have no answer, the validation split sets the threshold
        that decides on that, for all later calls."""
        answered = self._answer(split, items, results)
        scores, self.threshold = score_all(
            answered, self.compared_as, self.version_2, self.threshold, tune=split == "validation"
        )
        losses = np.array([result.loss for result in results])
        loss = float(np.nanmean(losses)) if np.isfinite(losses).any() else float("nan")
        return {"loss": loss, **scores, **({THRESHOLD: self.threshold} if self.version_2 else {})}

    def _answer(self, split: str, items: Items, results: Sequence[WindowSpans]) -> list[Answered]:
        """Each question of a split with the best spans of its windows."""
        windows: list[list[ContextWindow]] = [[] for _ in self.examples[split]]
        found: list[list[WindowSpans]] = [[] for _ in self.examples[split]]
        for item, result in zip(items, results, strict=True):
            windows[item.example].append(item.info)
            found[item.example].append(result)
        return [
            Answered(question, merge(question.context, windows[number], found[number], self.files.n_best_size))
            for number, question in enumerate(self.examples[split])
        ]

    def baselines(self, split: str, items: Items, learnt: Items) -> list[Baseline]:
        """Never an answer, where some questions have none."""
        none = np.empty(0, dtype=np.int32)
        nothing = WindowSpans(none, none, none.astype(np.float32), math.nan)
        return [Baseline("never answers", [nothing] * len(items))] if self.version_2 else []

    def remarks(self, split: str, items: Items, results: Sequence[Any]) -> list[str]:
        at = threshold_used(self.version_2, self.threshold)
        texts = {one.text(at) for one in self._answer(split, items, results)}
        return [f"no {split} question is answered"] if texts == {""} else []

    def range_of(self, metric: str) -> tuple[float, float] | None:
        """Scores are in percent."""
        return (0.0, 100.0) if metric.endswith(("exact_match", "f1")) else super().range_of(metric)

    def write_report(self, folder: Path, split: str, items: Items, results: Sequence[Any]) -> str:
        answered = self._answer(split, items, results)
        return write_qa_report(folder, split, answered, self.compared_as, self.version_2, self.threshold)

    def read_unlabelled(self, path: Path) -> None:
        self.examples[PREDICT] = read_questions(path, labelled=False)

    def unlabelled(self, folder: Path) -> dict[str, Path]:
        """See Task; the threshold of a run that was finished before is read from its metrics."""
        if self.threshold is None and (folder / METRICS).is_file():
            self.threshold = read_json(folder / METRICS).get(f"eval_{THRESHOLD}")
        return super().unlabelled(folder)

    def write_predictions(self, path: Path, split: str, items: Items, results: Sequence[Any]) -> None:
        """A table and, beside it under the same name, .json as the official evaluation scripts read it."""
        answered = self._answer(split, items, results)
        write_answers(path, answered, self.compared_as, self.version_2, self.threshold, labelled=split != PREDICT)

    def usage(self, name: str) -> str:
        return usage_of(
            *(name, self.compared_as, self.causal, self.max_length or DEFAULT_LENGTH),
            *(self.max_answer_length or SHORTEST_LIMIT, threshold_used(self.version_2, self.threshold)),
        )


def is_causal(config: PreTrainedConfig) -> bool:
    """Whether a model's tokens see earlier ones only: as its config says, else by what its family is used for."""
    stated = getattr(config, "is_causal", None)
    if stated is not None:
        return bool(stated)
    families = [
        {config_class.model_type for config_class in mapping}
        for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING)
    ]
    return config.model_type in families[0] - families[1] - {"xlnet"}


TASK = QuestionAnswering
