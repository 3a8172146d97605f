"""Documents to tokens: each between its start and end token, whole or with its tail apart."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import regex
from transformers import PreTrainedTokenizerBase

from weft.recipes.common.checkpoint_files import load_tokenizer as load_any_tokenizer
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.segmentation import Offsets, get_segmenter, sentence_starts, word_starts
from weft.tokenizer.encode_as_text import encode_as_text
from weft.tokenizer.encode_words_once import WordEncoder
from weft.tokenizer.pre_tokenizers import UNSPACED
from weft.tokenizer.script_statistics import ScriptReport

BATCH_CHARACTERS = 1 << 20
_SIGN = regex.compile(rf"[{UNSPACED}]\p{{M}}*", regex.VERSION1)


@dataclass(frozen=True)
class EncodedDocument:
    """A document as tokens, or its head or its tail.

    Attributes:
        ids: token ids with start and end tokens, [tokens]; a tail begins with the last token before it.
        text_tokens: number of tokens of the text alone.
        unknown: number of unknown tokens among these.
        characters: characters of the text.
        byte_count: UTF-8 bytes of the text.
        words: of the text (`count_words`).
        is_tail: whether it is held out.
        begins: flags of the tokens that begin a word and a sentence, [tokens] bool each; empty without a segmenter.
    """

    ids: np.ndarray
    text_tokens: int
    unknown: int
    characters: int
    byte_count: int
    is_tail: bool
    begins: tuple[np.ndarray, ...] = ()
    words: int = 0


def count_words(text: str) -> int:
    """Count what blanks divide; of scripts without blanks between words, each sign is a word."""
    if text.isascii() or not _SIGN.search("".join(set(text))):  # a look at each character that there is, once
        return len(text.split())
    rest, signs = _SIGN.subn(" ", text)
    return signs + sum(any(map(str.isalnum, piece)) for piece in rest.split())


def load_tokenizer(name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the Hub.

    Args:
        name: folder or Hub id.
        trust_remote_code: run the code that comes with it, if any does.

    Raises:
        RecipeError: it cannot be loaded, or has no fast version.
    """
    tokenizer = load_any_tokenizer(name, trust_remote_code)
    if not tokenizer.is_fast:
        raise RecipeError(f"tokenizer {name!r} has no fast version (tokenizer.json): convert it.")
    return tokenizer


def start_and_end(tokenizer: PreTrainedTokenizerBase, document_tokens: str) -> tuple[list[int], list[int]]:
    """Return the ids before and after each document; decoders have bos and eos, encoders cls and sep, some only one.

    They become the tokenizer's bos and eos, so that generation begins and ends as training did.

    Raises:
        RecipeError: it has neither, and `document_tokens` is not "none".
    """
    if document_tokens == "none":
        return [], []
    ids = [tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id]
    start = next((token for token in ids if token is not None), None)
    ids = [tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id]
    end = next((token for token in ids if token is not None), None)
    if start is None or end is None:
        raise RecipeError("the tokenizer has no start or end token: give one that has, or --document_tokens none.")
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.convert_ids_to_tokens([start, end])
    return [start], [end]


def document_encoder(
    tokenizer: PreTrainedTokenizerBase, arguments: DataArguments
) -> Callable[[Iterable[str]], Iterator[list[EncodedDocument]]]:
    """Return a function that encodes documents in order, a batch at a time: for each its whole, or its head and tail.

    Raises:
        RecipeError: the tokenizer has no start or end token, or the segmenter is missing.
    """
    start, end = (np.array(ids, dtype=np.uint32) for ids in start_and_end(tokenizer, arguments.document_tokens))
    unknown_id, with_boundaries = tokenizer.unk_token_id, arguments.segmenter != "none"
    segment = get_segmenter(arguments.segmenter) if with_boundaries else None
    words = WordEncoder(tokenizer)

    def encode(texts: Iterable[str]) -> Iterator[list[EncodedDocument]]:
        for batch in _batches(texts):
            cut = [_cut_tail(text, arguments) for text in batch]
            encoded = encode_all([part for parts in cut for part in parts])
            for parts in cut:
                yield list(encode_parts(parts, encoded))

    def encode_all(texts: list[str]) -> Iterator[tuple[np.ndarray, Offsets]]:
        if not with_boundaries:
            return ((ids, ()) for ids in words.encode(texts))
        return ((np.array(each.ids, np.uint32), each.offsets) for each in encode_as_text(tokenizer, texts))

    def encode_parts(parts: list[str], encoded: Iterator[tuple[np.ndarray, Offsets]]) -> Iterator[EncodedDocument]:
        before = start
        for index, text in enumerate(parts):
            ids, offsets = next(encoded)
            after = end if index == len(parts) - 1 else end[:0]
            begins = ()
            if with_boundaries:
                flags = (word_starts(text, offsets, segment), sentence_starts(text, offsets))
                begins = tuple(np.pad(each, (len(before), len(after)), constant_values=True) for each in flags)
            yield EncodedDocument(
                ids=np.concatenate((before, ids, after)),
                text_tokens=len(ids),
                unknown=int(np.count_nonzero(ids == unknown_id)) if unknown_id is not None else 0,
                characters=len(text),
                byte_count=len(text.encode()),
                is_tail=index > 0,
                begins=begins,
                words=count_words(text),
            )
            # a tail's first token is predicted from the last token of its head
            before = (ids if len(ids) else before)[-1:]

    return encode


class ScriptSample:
    """Takes documents evenly from a text of unknown length, to judge a tokenizer by: every first, second, fourth ...

    Whenever they hold too many characters, every second one is dropped, and from then on half as many are taken.
    """

    MOST_CHARACTERS = 1 << 19
    MOST_OF_A_DOCUMENT = 1 << 14

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.characters = self.seen = 0
        self.step = 1

    def add(self, text: str) -> None:
        """Take a document or pass it by."""
        if self.seen % self.step == 0:
            self.texts.append(text[: self.MOST_OF_A_DOCUMENT])
            self.characters += len(self.texts[-1])
        self.seen += 1
        while self.characters > self.MOST_CHARACTERS and len(self.texts) > 1:
            self.texts, self.step = self.texts[::2], 2 * self.step
            self.characters = sum(map(len, self.texts))

    def report(self, tokenizer: PreTrainedTokenizerBase) -> dict[str, dict[str, float]]:
        """Return `ScriptReport.table` of the documents."""
        return ScriptReport.of(tokenizer, self.texts).table()


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, characters = [], 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _cut_tail(text: str, arguments: DataArguments) -> list[str]:
    """Return a text whole, or its head and tail if the tail is held out."""
    if arguments.validation_files or arguments.validation_split != "tail":
        return [text]
    cut = int(len(text) * (1 - arguments.validation_fraction))
    return [text[:cut], text[cut:]] if 0 < cut < len(text) else [text]
