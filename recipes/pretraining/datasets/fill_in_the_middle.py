"""Fill-in-the-middle (https://huggingface.co/papers/2207.14255): documents whose middle stands behind all else, so that
a causal model learns to write it from what surrounds it.

    as it is       <s> text </s>
    prefix first   <s> <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle </s>
    suffix first   <s> <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle </s>

A document is rearranged before rows are cut. Its two cuts are independent of each other, each between any two tokens of
its text, or at either end, with the same probability. (The paper cuts between characters. Here text was tokenised long
before, and `generate.py --infill` lets a middle begin inside of a word without that.) So n tokens become n + 3. Which
documents are rearranged is drawn anew for each pass over a source, a fixed number of them: every pass has the same
number of places, which is known before it begins.

All of it follows from (seed, pass, document). A document that is cut over rows is rearranged as a whole. The three new
tokens are read and never predicted: a model that writes from left to right has no use for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import weft
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.packed import DocumentSpan, Row, TrainingRows
from weft.tokenizer.fill_in_the_middle import MiddleTokens

ADDED = 3  # tokens of a document that is rearranged
SPM_SHARE = 0.5
CHOICE, FORM, ONE_CUT, OTHER_CUT = range(4)  # streams of random numbers


@dataclass
class InfillingArguments(Options):
    """Which documents are rearranged, and how."""

    infill_rate: float | None = option(
        None,
        "share of the documents whose middle is written last, from what surrounds it, e.g. 0.5; without it none",
        least=0,
        most=1,
    )
    infill_spm_share: float | None = option(
        None,
        f"share of these that begin with their suffix (SPM), not their prefix (PSM); without it {SPM_SHARE}",
        least=0,
        most=1,
        rare=True,
    )

    @property
    def suffix_first(self) -> float:
        """The share of rearranged documents that begin with their suffix."""
        return SPM_SHARE if self.infill_spm_share is None else self.infill_spm_share

    def idle_fields(self) -> dict[str, str]:
        """Fields that have no effect, and what they need to have one."""
        return {} if self.infill_rate else {"infill_spm_share": "infill_rate above 0"}

    def check_data(self, data: DataArguments) -> None:
        """Raises RecipeError where documents would have no ends."""
        if self.infill_rate:
            _require_ends(data.document_tokens == "both", _cuts_tails(vars(data)))


class FillInTheMiddleRows(TrainingRows):
    """Rows of pairs, some of whose documents are rearranged."""

    def __init__(
        self,
        corpus: Corpus,
        row_length: int,
        num_rows: int,
        seed: int,
        infilling: InfillingArguments,
        tokens: MiddleTokens,
    ) -> None:
        """Raises RecipeError where documents have no ends, or do not fill a row."""
        made_by = corpus.description.get("made_from", {}).get("settings", {})
        _require_ends(corpus.has_end_tokens, _cuts_tails(made_by))
        self.infilling, self.tokens = infilling, tokens
        self._bounds: dict[tuple[int, int], float] = {}
        super().__init__(corpus, row_length, num_rows, seed)

    def row_of(self, spans: list[DocumentSpan]) -> Row:
        row = super().row_of(spans)
        row["labels"][np.isin(row["labels"], self.tokens.ids)] = weft.IGNORE_INDEX
        return row

    def added_places(self, documents: int) -> int:
        return ADDED * round(self.infilling.infill_rate * documents)

    def is_rearranged(self, document: int, pass_number: int) -> bool:
        """Whether a document is rearranged in a pass over its source."""
        bound = self._bound(int(self.corpus.source_of[document]), pass_number)
        return bool(self._draw(pass_number, document) < bound)

    def parts(self, document: int, pass_number: int) -> list[Sequence[int]]:
        """A document as it is where it is rearranged, in parts."""
        text, key = self.corpus.tokens, make_key(self.seed, pass_number, document)
        begin, stop = int(self.corpus.offsets[document]) + 1, int(self.corpus.offsets[document + 1]) - 1
        places = (int(uniform(key, 0, cut) * (stop - begin + 1)) for cut in (ONE_CUT, OTHER_CUT))
        first, last = sorted(begin + place for place in places)
        suffix_first = bool(uniform(key, 0, FORM) < self.infilling.suffix_first)
        before = self.tokens.before_middle(text[begin:first], text[last:stop], suffix_first)
        return [text[begin - 1 : begin], *before, text[first:last], text[stop : stop + 1]]

    def _read(self, document: int, pass_number: int, first: int, last: int) -> tuple[np.ndarray, bool]:
        if not self.is_rearranged(document, pass_number):
            return super()._read(document, pass_number, first, last)
        found, begin = [], 0
        for part in self.parts(document, pass_number):  # of a book only what the row holds is read
            inside = part[max(0, first - begin) : max(0, last - begin)]
            found.append(np.asarray(inside, dtype=np.int64))
            begin += len(part)
        return np.concatenate(found), last == begin

    def _lengths_in(self, source: int, pass_number: int, order: np.ndarray) -> np.ndarray:
        drawn = self._draw(pass_number, self.documents[order])
        return self.lengths[order] + ADDED * (drawn < self._bound(source, pass_number))

    def _bound(self, source: int, pass_number: int) -> float:
        """What the numbers are below that were drawn for the documents of a source that a pass rearranges."""
        place = (source, pass_number)
        if place not in self._bounds:
            drawn = self._draw(pass_number, self.documents[self._sources[source]])
            number = round(self.infilling.infill_rate * len(drawn))
            self._bounds[place] = float(np.partition(drawn, number)[number]) if number < len(drawn) else 1.0
        return self._bounds[place]

    def _draw(self, pass_number: int, documents: np.ndarray | int) -> np.ndarray:
        return uniform(make_key(self.seed, pass_number), documents, CHOICE)


def _cuts_tails(settings: Mapping[str, Any]) -> bool:
    """Whether text that is prepared with these settings holds the ends of documents out."""
    return settings.get("validation_split") == "tail" and not settings.get("validation_files")


def _require_ends(has_end_tokens: bool, cuts_tails: bool) -> None:
    if not has_end_tokens:
        raise RecipeError(
            "infill_rate needs start and end tokens around documents, for a middle ends with the end token: prepare "
            "the text with --document_tokens both, or leave infill_rate out."
        )
    if cuts_tails:
        raise RecipeError(
            "infill_rate needs the ends of documents, which validation_split tail holds out: prepare the text with "
            "--validation_split document or validation_files, or leave infill_rate out."
        )
