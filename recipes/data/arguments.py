"""Settings of the text: where it comes from, and how it becomes tokens."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.files import size_and_time
from weft.recipes.common.options import option
from weft.recipes.data.filters import FilterArguments
from weft.recipes.data.near_duplicates import check_near_duplicates
from weft.recipes.data.segmentation import get_segmenter
from weft.recipes.data.source_mixture import assign_sources
from weft.recipes.data.text_source import SourceArguments, TextSource
from weft.tokenizer.own_special_tokens import check_special_tokens
from weft.tokenizer.train import PRE_TOKENIZERS, SAMPLE_CHARACTERS, SPECIAL_TOKENS, TOKENIZER_TYPES


@dataclass
class TextArguments(SourceArguments):
    """Where the text comes from, and what kind of tokenizer to train on it."""

    tokenizer_type: str = option(
        "bpe", f"kind of tokenizer to train: {', '.join(TOKENIZER_TYPES)}", choices=TOKENIZER_TYPES
    )
    vocab_size: int = option(8192, "tokens of the tokenizer to train, at most")
    sample_characters: int = option(
        SAMPLE_CHARACTERS,
        "learn from so many characters at most, taken evenly over the text; those of scripts without "
        "blanks between words count ten times, since trainers need that much more memory for them",
        rare=True,
    )
    add_prefix_space: bool = option(
        False,
        "for bpe and unigram: take a text's first word as if a blank stood before it; needed to label "
        "words that are given one by one",
        rare=True,
    )
    special_tokens: list[str] | None = option(
        None,
        "special tokens of your own for the tokenizer to train, such as '<user>' '<bot>'; no text becomes one of them",
        rare=True,
    )
    pre_tokenizer: str = option(
        "weft",
        "for bpe: cut text into pieces by Weft's pattern, or by gpt2's, which llama.cpp knows",
        choices=PRE_TOKENIZERS,
        rare=True,
    )

    def check(self) -> None:
        """Refuse text that cannot be read and values that are not among the choices, before any work is done.

        Raises:
            RecipeError: names the field, its value and the allowed ones.
        """
        super().check()
        with refusing(None, ValueError, say=str):
            check_special_tokens(self.special_tokens or (), SPECIAL_TOKENS)
        if self.dataset_name and self.train_files:
            raise RecipeError("both dataset_name and train_files are given: choose one.")
        if self.dataset_name and self.encoding:
            raise RecipeError("encoding has no effect on dataset_name: give train_files, or leave it out.")
        for source in self.sources():
            source.check()


@dataclass
class DataArguments(FilterArguments, TextArguments):
    """Where the text comes from and how it becomes tokens."""

    validation_files: list[str] = option(
        [], "text to evaluate on, several files each by itself too; without any, a part of the training text"
    )
    source_weights: list[str] = option(
        [],
        "PATTERN=WEIGHT ...: how often an epoch passes over the files whose path holds or matches a "
        "pattern, such as books=2 'data/wiki*=0.5', or in stages of a run, as books=0@0.9,2; files that no pattern "
        "matches have weight 1",
    )
    dedup: str = option(
        "exact",
        "exact: drop documents whose text was there before; near: also those that share most of it with "
        "an earlier one (needs datasketch); off: keep all",
        choices=("exact", "near", "off"),
    )
    near_duplicate_threshold: float = option(
        0.8,
        "dedup near: share of what two documents have that must be in both",
        above=0,
        most=1,
        rare=True,
    )
    validation_fraction: float = option(
        0.02, "share of the training text to hold out where there are no validation_files", above=0, below=1
    )
    validation_split: str = option(
        "document",
        "document: hold out whole documents; tail: hold out the end of every document",
        choices=("document", "tail"),
        rare=True,
    )
    tokenizer_name: str | None = option(
        None, "folder or Hub id of a tokenizer; without it one is trained on the text", folder_or_id=True
    )
    document_tokens: str = option(
        "both", "both: a start and an end token around each document; none: neither", choices=("both", "none")
    )
    segmenter: str = option(
        "none",
        "what to take for words where masking or segments need their boundaries: characters (of scripts "
        "without blanks each is a word), jieba (words of Chinese), or module:function of your own, which cuts a "
        "run of such a script; none: keep no boundaries",
    )
    split_seed: int = option(0, "which documents are held out", least=0, rare=True)

    FILE_FIELDS: ClassVar[tuple[str, ...]] = ("train_files", "validation_files")
    CAN_CUT_TAILS: ClassVar[bool] = True  # so that validation_split may be tail

    def check(self) -> None:
        """Refuse as `TextArguments.check` does, and settings that contradict each other."""
        super().check()
        if self.special_tokens and self.tokenizer_name is not None:
            raise RecipeError(
                f"special_tokens are given with the tokenizer {self.tokenizer_name}, which is trained already: train "
                "one that has them with tokenizer/train.py, or leave them out."
            )
        if self.dedup == "near":
            check_near_duplicates()
        if self.segmenter != "none":
            get_segmenter(self.segmenter)
        if self.source_weights and not self.train_files:
            raise RecipeError("source_weights is given without train_files, whose paths it weighs.")
        assign_sources(self.train_files, self.source_weights)
        for source in self.sources("validation"):
            source.check()

    def sources(self, split: str = "train") -> list[TextSource]:
        """List the sources of "train" or "validation" in order."""
        return super().sources() if split == "train" else self.named(self.validation_files)

    def fingerprint(self) -> dict[str, Any]:
        """Return all that the prepared corpus depends on: the settings, and the size and time of every file."""
        paths = [path for split in ("train", "validation") for source in self.sources(split) for path in source.files()]
        if self.tokenizer_name is not None:
            paths += sorted(path for path in Path(self.tokenizer_name).glob("*token*") if path.is_file())
        return {"settings": asdict(self), "files": {str(path.resolve()): size_and_time(path) for path in paths}}
