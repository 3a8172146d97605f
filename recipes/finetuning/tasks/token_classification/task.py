"""Token classification: names, chunks, parts of speech; scored as a pipeline gives them back on raw text.

Words are joined to the text that a user would type, the tokenizer is given that text whole, and its tokens are found
again by their characters, in training, in scoring and in `pipeline("token-classification")` alike.

Every piece of a word is labelled, B- on the first of an entity and I- on all others, because
aggregation_strategy="simple" reads every piece: a model that has learnt only first pieces (as in BERT's paper) says
anything on the others, and its entities end in the middle of words. The strategies that read first pieces only must
guess where words begin, and take "York," for one word with byte-level tokenizers. With label_all_pieces=False the
first pieces alone are learnt and scored.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from weft.losses import IGNORE_INDEX, count_targets, token_classification_loss
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.baseline import Baseline, named
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample, cut_out, in_place
from weft.recipes.finetuning.report_files import place_of
from weft.recipes.finetuning.task import Batch, Divisor, Items, Task, label_fields
from weft.recipes.finetuning.tasks.token_classification import report
from weft.recipes.finetuning.tasks.token_classification.arguments import TokenClassificationArguments
from weft.recipes.finetuning.tasks.token_classification.dataset import TaggedData, without_blanks
from weft.recipes.finetuning.tasks.token_classification.decoding import Prediction, Tokens, entities, word_tags
from weft.recipes.finetuning.tasks.token_classification.description import lines_of_split
from weft.recipes.finetuning.tasks.token_classification.known_tasks import KNOWN_TASKS
from weft.recipes.finetuning.tasks.token_classification.offsets import keeps_blanks, surroundings, trim_offsets
from weft.recipes.finetuning.tasks.token_classification.passages import Passage
from weft.recipes.finetuning.tasks.token_classification.reading import Reader, label_names
from weft.recipes.finetuning.tasks.token_classification.schemes import OUTSIDE
from weft.recipes.finetuning.tasks.token_classification.scoring import score_plain, score_spans, score_tags
from weft.recipes.finetuning.tasks.token_classification.usage import usage_of
from weft.recipes.finetuning.tasks.token_classification.windows import WINDOWS, WindowMaker

ENCODED_AT_ONCE = 1000
LONGEST_SAMPLE = 200


class Tagged(NamedTuple):
    """What a model says of the tokens that a window scores: the best labels, their probabilities, and the loss's sum in
    nats over `targets` targets."""

    labels: np.ndarray
    probabilities: np.ndarray
    nats: float
    targets: int


class TokenClassification(Task):
    """See the module's docstring."""

    summary = "Tags the words of a text."
    auto_class = "AutoModelForTokenClassification"
    pipeline_tag = "token-classification"
    finds_spans = True

    @classmethod
    def read(cls, files: TokenClassificationArguments, run: FineTuningArguments) -> Self:
        known = KNOWN_TASKS.get(files.task or "")
        reader = Reader(
            files.format or (known.format if known else None),
            files.word_column,
            files.tag_column or (known.tag_column if known else None),
            files.text_column,
            label_names(files.label_names),
        )
        data = TaggedData(files, KNOWN_TASKS, reader, files.scheme, files.joiner)
        return cls(data, files.stride, files.label_all_pieces)

    def __init__(self, data: TaggedData, stride: int | None = None, label_all_pieces: bool = True) -> None:
        """Args:
        data: the examples.
        stride: tokens that neighbouring windows of a long text share; None: a quarter of max_length.
        label_all_pieces: see the module's docstring.
        """
        self.data, self.stride, self.label_all_pieces = data, stride, label_all_pieces
        self.examples, self.labels, self.is_plain = data.passages, data.labels, data.is_plain
        self.counts: dict[str, Counter[str]] = {}
        self.trims = True
        if self.is_plain:
            self.headline, self.best_metric = ("accuracy", "f1_macro"), BestMetric("accuracy")
        else:
            self.headline, self.best_metric = ("f1", "precision", "recall", "accuracy"), BestMetric("f1")

    @staticmethod
    def input_of(example: Passage) -> str:
        return without_blanks([example.text])

    def texts(self) -> Iterator[str]:
        for passage in self.examples["train"]:
            yield passage.text

    def describe(self) -> list[tuple[str, str]]:
        pieces = "all pieces of a word" if self.label_all_pieces else "the first piece of a word alone"
        lines = [*self.data.lines(), ("labelled", pieces)]
        for split, counts in self.counts.items():
            lines += lines_of_split(split, self.examples[split], counts)
        if not self.trims:
            lines.append(
                ("blanks", "the tokenizer's tokens begin with the blank before them, and so do a pipeline's entities")
            )
        return lines

    def align_labels(self, config: PreTrainedConfig) -> bool:
        names = [name for _, name in sorted((config.id2label or {}).items(), key=lambda entry: int(entry[0]))]
        if len(names) != len(self.labels) or set(names) != set(self.labels):
            return False
        self.labels = names
        return True

    def config_fields(self) -> dict[str, Any]:
        return label_fields(self.labels)

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """See `trim_offsets`: a pipeline's entities are to begin with a letter, not with the blank before it."""
        if not tokenizer.is_fast:
            raise RecipeError("the tokenizer has no fast version (tokenizer.json), which says where tokens stand.")
        result = trim_offsets(tokenizer)
        self.trims = not keeps_blanks(result)
        return result

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[EncodedExample]:
        before, after = surroundings(tokenizer)
        capacity = max_length - len(before) - len(after)
        self.max_length = max_length
        stride = self._used_stride
        if capacity < 1:
            raise RecipeError(f"max_length is {max_length}, which the tokenizer's special tokens fill: give more.")
        if stride >= capacity:
            raise RecipeError(f"stride is {stride}, but a window holds {counted(capacity, 'token')}: give less.")
        maker = WindowMaker(self.labels, self.label_all_pieces, self.trims, before, after, capacity, stride)
        self.counts[split] = maker.counts
        items = []
        passages = self.examples[split]
        for first in range(0, len(passages), ENCODED_AT_ONCE):
            encoded = tokenizer(
                [passage.text for passage in passages[first : first + ENCODED_AT_ONCE]],
                add_special_tokens=False,
                return_offsets_mapping=True,
                truncation=False,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )
            for number, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"]), first):
                items += maker.items(number, passages[number], ids, offsets)
        return items

    def targets(self, layout: BatchLayout) -> Batch:
        """labels [rows, tokens]."""
        values = [
            [IGNORE_INDEX] * length if item.target is None else item.target
            for item, length in zip(layout.items, layout.lengths)
        ]
        return {"labels": in_place(layout, values, IGNORE_INDEX)}

    def loss(self, outputs: Any, targets: Batch, num_items_in_batch: Divisor) -> torch.Tensor:
        return token_classification_loss(outputs.logits, targets["labels"], num_items_in_batch)

    def count(self, targets: Batch) -> torch.Tensor:
        return count_targets(targets["labels"])

    def results(self, outputs: Any, layout: BatchLayout) -> list[Tagged]:
        log_probabilities = outputs.logits.float().log_softmax(-1)
        best, labels = (tensor.cpu() for tensor in log_probabilities.max(-1))
        targets = self.targets(layout)["labels"]
        chosen = targets.clamp(min=0).to(log_probabilities.device)
        nats = -log_probabilities.gather(-1, chosen[..., None])[..., 0].cpu().double()
        nats[targets == IGNORE_INDEX] = 0
        found = []
        parts = (cut_out(layout, tensor) for tensor in (best.exp(), labels, nats, targets))
        for item, probability, label, nat, target in zip(layout.items, *parts, strict=True):
            inside = slice(item.info.low, item.info.high)
            number = int((target != IGNORE_INDEX).sum())
            found.append(
                Tagged(
                    label[inside].numpy().astype(np.int16),
                    probability[inside].numpy().astype(np.float32),
                    float(nat.sum()),
                    number,
                )
            )
        return found

    def score(self, split: str, items: Items, results: Sequence[Tagged]) -> dict[str, float]:
        """Entities by words (of texts with entities by characters: by these): precision, recall, f1 and accuracy, and
        `span_f1` of entities by characters, exactly as the pipeline cuts them out. Plain tags: accuracy and f1_macro.
        """
        scores = self._scores(split, items, results)
        targets = sum(result.targets for result in results)
        loss = sum(result.nats for result in results) / targets if targets else 0.0
        return {"loss": loss, **{name: value for name, value in scores.items() if name != "types"}}

    def _scores(self, split: str, items: Items, results: Sequence[Tagged]) -> dict[str, Any]:
        passages, examples = self.examples[split], self._tokens(split, items, results)
        if self.is_plain:
            return score_plain(*self._plain_numbers(split, items, results), self.labels)
        predicted = [self._entities(passage, tokens) for passage, tokens in zip(passages, examples)]
        spans = score_spans(
            [[tuple(span) for span in passage.spans or ()] for passage in passages],
            [[(entity.start, entity.end, entity.label) for entity in entities] for entities in predicted],
        )
        if self.data.by_spans:
            return {**spans, "accuracy": self._token_accuracy(items, results)}
        gold = [passage.tags or [] for passage in passages]
        tags = score_tags(gold, [word_tags(p, tokens, self.is_plain)[0] for p, tokens in zip(passages, examples)])
        return {**tags, "span_f1": spans["f1"]}

    def _token_accuracy(self, items: Items, results: Sequence[Tagged]) -> float:
        right = targets = 0
        for item, result in zip(items, results):
            target = np.array((item.target or [])[item.info.low : item.info.high], dtype=np.int64)
            right += int((target == result.labels[: len(target)]).sum())
            targets += result.targets
        return right / targets if targets else 0.0

    def _tokens(self, split: str, items: Items, results: Sequence[Tagged]) -> list[Tokens]:
        """The tokens of each example, put together from its windows."""
        of_example: list[list[tuple[EncodedExample, Tagged]]] = [[] for _ in self.examples[split]]
        for item, result in zip(items, results, strict=True):
            of_example[item.example].append((item, result))
        found = []
        for windows in of_example:
            nothing = [np.empty((0, 2), dtype=np.int32)]
            offsets = np.concatenate([item.info.offsets for item, _ in windows] or nothing)
            shown = np.concatenate([item.info.shown for item, _ in windows] or nothing)
            probabilities = [result.probabilities for _, result in windows] or [np.empty(0, dtype=np.float32)]
            labels = [self.labels[number] for _, result in windows for number in result.labels]
            found.append(Tokens(offsets, shown, labels, np.concatenate(probabilities)))
        return found

    def _entities(self, passage: Passage, tokens: Tokens) -> list[Prediction]:
        return entities(passage, tokens, self.label_all_pieces)

    def _plain_numbers(self, split: str, items: Items, results: Sequence[Tagged]) -> tuple[list[int], list[int]]:
        """Right and predicted numbers of the tags of all words; -1 where none was predicted."""
        number_of = {label: number for number, label in enumerate(self.labels)}
        gold: list[int] = []
        predicted: list[int] = []
        for passage, tokens in zip(self.examples[split], self._tokens(split, items, results)):
            gold += [number_of[tag] for tag in passage.tags or ()]
            predicted += [number_of.get(tag, -1) for tag in word_tags(passage, tokens, self.is_plain)[0]]
        return gold, predicted

    def baselines(self, split: str, items: Items, learnt: Items) -> list[Baseline]:
        """The most frequent tag for every word; of entities that is none."""
        times = np.sum([np.bincount(_known(item.target), minlength=len(self.labels)) for item in learnt], axis=0)
        best = int(times.argmax()) if self.is_plain else self.labels.index(OUTSIDE)
        results = [
            Tagged(np.full(part.high - part.low, best, np.int16), np.ones(part.high - part.low, np.float32), 0.0, known)
            for part, known in ((item.info, len(_known(item.target))) for item in items)
        ]
        answer = (
            f"always answers {named(self.labels[best])}, the most frequent tag" if self.is_plain else "finds no entity"
        )
        return [Baseline(answer, results)]

    def remarks(self, split: str, items: Items, results: Sequence[Tagged]) -> list[str]:
        found = {self.labels[number] for result in results for number in np.unique(result.labels)}
        if self.is_plain or found - {OUTSIDE} or not any(passage.spans for passage in self.examples[split]):
            return []
        return [f"no entity is found in any {split} text"]

    def write_report(self, folder: Path, split: str, items: Items, results: Sequence[Tagged]) -> str:
        types = self._scores(split, items, results)["types"]
        rows = self._rows(split, items, results)
        mistakes = sorted((row for row in rows if row.gold != row.predicted), key=lambda row: -row.score)
        self.write_predictions(folder / "predictions.csv", split, items, results)
        report.write_rows(folder / "mistakes.csv", mistakes)
        report.write_types(folder / "types.csv", types)
        report.plot_types(types, folder / "types.png")
        where = place_of(folder, split)
        text = [report.type_table(types, "tag" if self.is_plain else "type"), f"![F1 of each type]({where}types.png)"]
        if self.is_plain:
            report.plot_tags(*self._plain_numbers(split, items, results), self.labels, types, folder / "confusion.png")
            text.append(f"![which tags are taken for which]({where}confusion.png)")
        columns = f"predictions.{self._companion}"
        text.append(
            f"`{where}predictions.csv` has every {'word' if self.is_plain else 'entity'}, right and predicted, "
            f"`{where}mistakes.csv` the wrong ones, the most confident first ({len(mistakes):,} of {len(rows):,}), and "
            f"`{where}{columns}` "
            + ("the texts with their entities." if self.data.by_spans else "the words with right and predicted tags.")
        )
        return "\n\n".join(text)

    @property
    def _companion(self) -> str:
        """Ending of the predictions in the form that other tools read."""
        return "jsonl" if self.data.by_spans else "conll"

    def _rows(self, split: str, items: Items, results: Sequence[Tagged]) -> list[report.Row]:
        rows = []
        pairs = zip(self.examples[split], self._tokens(split, items, results))
        for number, (passage, tokens) in enumerate(pairs, start=1):
            if not self.is_plain:
                rows += report.entity_rows(
                    *(number, passage.text, passage.spans, self._entities(passage, tokens)),
                    *(tokens.offsets, tokens.probabilities),
                )
                continue
            tags, scores = word_tags(passage, tokens, self.is_plain)
            gold = passage.tags or [""] * len(tags)
            for (start, end), right, tag, score in zip(passage.words, gold, tags, scores, strict=True):
                rows.append(report.Row(number, start, end, passage.text[start:end], right, tag, score))
        return rows

    def read_unlabelled(self, path: Path) -> None:
        self.data.read_unlabelled(path)

    def write_predictions(self, path: Path, split: str, items: Items, results: Sequence[Tagged]) -> None:
        """`path` with a row for each entity (plain tags: word), and beside it, with another ending, words and tags in
        columns, or the texts with their entities as JSON lines."""
        report.write_rows(path, self._rows(split, items, results))
        beside = path.with_suffix(f".{self._companion}")
        pairs = list(zip(self.examples[split], self._tokens(split, items, results)))
        if self.data.by_spans:
            report.write_spans(beside, ((p.text, p.spans, self._entities(p, tokens)) for p, tokens in pairs))
            return
        sentences = []
        for passage, tokens in pairs:
            words = [passage.text[start:end] for start, end in passage.words]
            gold = [] if passage.tags is None else [passage.tags]
            tags = [tag or "_" for tag in word_tags(passage, tokens, self.is_plain)[0]]
            sentences.append([words, *gold, tags])
        report.write_columns(beside, sentences)

    def usage(self, name: str) -> str:
        texts = (passage.text for passage in self.examples["validation"])
        text = next((text for text in texts if 0 < len(text) <= LONGEST_SAMPLE), "...")
        cuts = any(name.startswith(WINDOWS) and n for counts in self.counts.values() for name, n in counts.items())
        return usage_of(
            name,
            text,
            is_plain=self.is_plain,
            strategy="simple" if self.label_all_pieces else "first",
            stride=self._used_stride if cuts else None,
            trims=self.trims,
        )

    @property
    def _used_stride(self) -> int:
        return self.max_length // 4 if self.stride is None else self.stride


def _known(target: Sequence[int] | None) -> np.ndarray:
    """The labels of a window that are learnt."""
    labels = np.array([] if target is None else target, dtype=np.int64)
    return labels[labels != IGNORE_INDEX]


TASK = TokenClassification
