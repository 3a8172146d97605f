"""All tagged examples of a run: read, checked, in one scheme and as texts."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.data.text_files import file_format
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.known_tasks import KnownTask, read_splits
from weft.recipes.finetuning.task import PREDICT
from weft.recipes.finetuning.tasks.token_classification.columns import looks_like_columns
from weft.recipes.finetuning.tasks.token_classification.exports import DOCBIN
from weft.recipes.finetuning.tasks.token_classification.passages import (
    Joiner,
    Passage,
    Sentence,
    SpanText,
    is_by_character,
    spans_of_words,
    words_in,
)
from weft.recipes.finetuning.tasks.token_classification.reading import TABLES, Examples, Reader, read_texts
from weft.recipes.finetuning.tasks.token_classification.schemes import (
    OUTSIDE,
    PLAIN,
    StrayTagError,
    TagError,
    detect_scheme,
    entities_of,
    entity_labels,
    to_iob2,
)

MOST_NAMES = 30  # that a line of the plan lists


class TaggedData:
    """The splits of a task.

    Attributes:
        passages: the examples of each split.
        labels: of the training split, in the order of a new model: "O", then B- and I- of each type, sorted; or the
            plain tags, sorted.
        by_spans: whether entities are given by characters, not by words.
        is_plain: whether words have tags of their own, and there are no entities.
    """

    def __init__(
        self,
        files: FileArguments,
        tasks: Mapping[str, KnownTask],
        reader: Reader,
        scheme: str | None = None,
        joiner: str | None = None,
    ) -> None:
        """Read and check everything.

        Args:
            files: where the examples are.
            tasks: the known ones, by name.
            reader: how files are read.
            scheme: one of SCHEMES; None: as the tags of all splits look.
            joiner: what stands between two words of a text; None: see `Joiner`.

        Raises:
            RecipeError: files are missing or broken, or tags make no sense; names the row.
        """
        self.reader, self.broken_tags = reader, 0
        splits: dict[str, list[Any]] = read_splits(files, tasks, reader.read, reader.read_rows, _input_of)
        everything = [example for examples in splits.values() for example in examples]
        self.by_spans = isinstance(everything[0], SpanText)
        for example in everything:
            if isinstance(example, SpanText) != self.by_spans:
                forms = ("characters", "words") if self.by_spans else ("words", "characters")
                raise RecipeError(
                    f"{example.where} gives entities by {forms[1]}, where {everything[0].where} gives them by "
                    f"{forms[0]}: give all splits in one form."
                )
        if self.by_spans and scheme is not None:
            raise RecipeError("scheme is given, but the entities are given by their characters: leave it out.")
        self.scheme = scheme
        if not self.by_spans and scheme is None:
            try:
                self.scheme = detect_scheme(example.tags for example in everything)
            except StrayTagError as error:
                raise _refusal(everything[error.sentence], error) from error
        self.is_plain = self.scheme == PLAIN
        self.joiner = Joiner(joiner, not self.by_spans and is_by_character(splits["train"]))
        self.passages = {split: [self._passage(example) for example in examples] for split, examples in splits.items()}
        self.labels = self._collect_labels()
        known = set(self.labels)
        for split, examples in splits.items():
            for example, passage in zip(examples, self.passages[split]):
                self._check_labels(split, example, passage, known)

    def read_unlabelled(self, path: Path) -> None:
        """Read a split "predict": a table (of texts or of words), CoNLL-U, words in columns with blank lines between
        sentences, or any other text file, with a text a line; raises RecipeError."""
        if not path.is_file():
            raise RecipeError(f"predict_file {path} is missing: give the path of a file.")
        if file_format(path) in (*TABLES, ".conllu", DOCBIN) or looks_like_columns(path):
            reader = Reader(None, self.reader.word_column, self.reader.tag_column, self.reader.text_column)
            examples: Examples = reader.read(path, labelled=False)
        else:
            examples = read_texts(path)
        if not examples:
            raise RecipeError(f"predict_file {path} holds no text: give a file with examples.")
        self.passages[PREDICT] = [self._passage(example) for example in examples]

    def lines(self) -> list[tuple[str, str]]:
        """What was read, for the plan."""
        names = self.labels if self.is_plain else self.types
        what = (
            f"{len(names)} tags" if self.is_plain else f"{counted(len(names), 'type of entities', 'types of entities')}"
        )
        more = " ..." if len(names) > MOST_NAMES else ""
        lines = [("labels", f"{what}: {', '.join(names[:MOST_NAMES])}{more}")]
        if self.by_spans:
            return [*lines, ("tags", "entities by characters, written as IOB2"), *self._notes()]
        if self.is_plain:
            lines.append(("tags", "one for each word"))
        else:
            broken = (
                f"; {counted(self.broken_tags, 'tag')} broke it, read as conlleval does" if self.broken_tags else ""
            )
            lines.append(("tags", ("IOB2" if self.scheme == "IOB2" else f"{self.scheme}, written as IOB2") + broken))
        return [*lines, ("text", self.joiner.line()), *self._notes()]

    @property
    def types(self) -> list[str]:
        """The types of entities."""
        return sorted(label[2:] for label in self.labels if label.startswith("B-"))

    def _notes(self) -> list[tuple[str, str]]:
        notes = [f"{name}: {number:,}" for name, number in self.reader.notes.items() if number]
        return [("reading", "; ".join(notes))] if notes else []

    def _passage(self, example: Sentence | SpanText) -> Passage:
        if isinstance(example, SpanText):
            return Passage(example.text, words_in(example.text), None, example.spans, example.where)
        text, words = self.joiner.join(example)
        if example.tags is None:
            return Passage(text, words, None, None, example.where)
        try:
            tags, broken = to_iob2(example.tags, str(self.scheme))
        except TagError as error:
            raise _refusal(example, error) from error
        self.broken_tags += broken
        spans = None if self.is_plain else spans_of_words(text, words, entities_of(tags))
        return Passage(text, words, tags, spans, example.where)

    def _collect_labels(self) -> list[str]:
        train = self.passages["train"]
        if self.is_plain:
            labels = sorted({tag for passage in train for tag in passage.tags or ()})
            if len(labels) < 2:
                raise RecipeError(
                    f"all training words have the same tag ({', '.join(labels)}): there is nothing to learn; look at "
                    "--tag_column."
                )
            return labels
        types = {tag[2:] for passage in train for tag in passage.tags or () if tag != OUTSIDE}
        types |= {span.label for passage in train for span in passage.spans or ()}
        if not types:
            raise RecipeError("the training examples have no entity: there is nothing to learn.")
        return entity_labels(types)

    def _check_labels(self, split: str, example: Sentence | SpanText, passage: Passage, known: set[str]) -> None:
        """Refuse labels that training knows nothing of."""
        if isinstance(example, Sentence):
            labels = passage.tags or []
        else:
            labels = [f"B-{span.label}" for span in passage.spans or ()]
        unknown = next((place for place, label in enumerate(labels) if label not in known), None)
        if unknown is None:
            return
        where = example.place(unknown) if isinstance(example, Sentence) else example.where
        name = labels[unknown] if self.is_plain else labels[unknown][2:]
        names = self.labels if self.is_plain else self.types
        near = difflib.get_close_matches(name, names, n=1)
        raise RecipeError(
            f"{where}: the {split} label {name!r} is none of the training examples' ({', '.join(names[:MOST_NAMES])}"
            f"{' ...' if len(names) > MOST_NAMES else ''}): "
            + (f"did you mean {near[0]!r}?" if near else "mend it, or drop the row.")
        )


def _refusal(sentence: Sentence, error: TagError) -> RecipeError:
    return RecipeError(
        f"{sentence.place(error.word)}: {error}: mend it, or give another --scheme ({PLAIN}: each word has a tag of "
        "its own, and there are no entities)."
    )


def without_blanks(texts: Sequence[str]) -> str:
    """A text by which equal ones are told, however it is cut into words."""
    return "".join("".join(texts).split())


def _input_of(example: Sentence | SpanText) -> str:
    return without_blanks([example.text] if isinstance(example, SpanText) else example.words)
