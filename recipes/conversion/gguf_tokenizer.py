"""Tokenizers as llama.cpp reads them: byte-level BPE whose cut into pieces is one that it knows by name."""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from weft.interop import InteropError
from weft.tokenizer.pre_tokenizers import GPT2, LLAMA3, PIECE, QWEN2
from weft.tokenizer.vocabulary import number_of_ids

# Patterns of a tokenizer.json -> what llama.cpp calls the same cut
KNOWN = {GPT2: "gpt-2", QWEN2: "qwen2", LLAMA3: "llama-bpe"}
WHOLE_WORDS = ("llama-bpe",)  # cuts of tokenizers that look for a word as a whole before they merge its parts
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of tokens in a GGUF file
# Text to count on how often the nearest cut gives other ids
SAMPLES = (
    "The loom stood in the corner, and nobody had touched it since the winter before last. It's 12345 years old.",
    "def add(a, b):\n    return a + b  # the sum of 'those' two\n\nfor i in range(100000):\n\tprint(f'{i:>8}')\n",
    "Der Webstuhl stand in der Ecke, und niemand hatte ihn seit dem vorletzten Winter angerührt (seit 1998).",
    "天地玄黄、宇宙洪荒。日月盈昃、辰宿列张。GPT模型有12层、每层768维。",
    "हिन्दी में लिखा हुआ एक वाक्य। Ένα άλλο, στα ελληνικά· и ещё одно.",
)


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Attributes:
        tokens, kinds: of every id of the model, those without a token filled up.
        merges: pairs, most frequent first, a blank between both.
        pre: llama.cpp's name of the cut into pieces.
        special: "bos", "eos", "unk", "pad", "mask" -> id.
        adds_start, adds_end: whether a text gets the start token before it, the end token behind it.
        note: what llama.cpp does otherwise, if anything.
    """

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    pre: str
    special: dict[str, int]
    adds_start: bool
    adds_end: bool
    note: str | None


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Vocabulary:
    """The vocabulary of a tokenizer for a model of so many ids; raises InteropError where llama.cpp has nothing like
    it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InteropError("its tokenizer has no tokenizer.json, of which a GGUF file is made: convert it.")
    content = json.loads(backend.to_str())
    model, normalizer = content["model"], content["normalizer"]
    pattern = _pattern(content["pre_tokenizer"])
    if model["type"] != "BPE" or model.get("byte_fallback") or pattern is None:
        raise InteropError(
            f"its tokenizer ({model['type']}) is no byte-level BPE, the one kind that is written for llama.cpp: train "
            "the model with --tokenizer_type bpe."
        )
    if normalizer is not None and normalizer != {"type": "NFC"}:
        raise InteropError(
            f"its tokenizer changes text before it cuts it ({normalizer['type']}), which llama.cpp does not: train it "
            "without add_prefix_space."
        )
    if number_of_ids(tokenizer) > vocab_size:
        raise InteropError(
            f"its tokenizer has {number_of_ids(tokenizer)} ids and the model only {vocab_size}: save the one that it "
            "was trained with beside it."
        )
    pre, note = _cut(pattern, model, backend)
    if normalizer is not None:
        note = "llama.cpp does not compose characters as the tokenizer does (NFC): text in NFC is read alike"
    tokens, kinds = _tokens(content, vocab_size)
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad", "mask")}
    special = {name: number for name, number in special.items() if number is not None}
    around = tokenizer("a").input_ids
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    adds = (around[:1] == [special.get("bos")], around[-1:] == [special.get("eos")])
    return Vocabulary(tokens, kinds, merges, pre, special, *adds, note)


def _pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The pattern of a byte-level cut, None for a cut of another kind."""
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer] if pre_tokenizer else [])
    if not parts or parts[-1]["type"] != "ByteLevel" or parts[-1]["add_prefix_space"]:
        return None
    if len(parts) == 1:
        return GPT2 if parts[0].get("use_regex", True) else None
    is_split = len(parts) == 2 and parts[0]["type"] == "Split" and parts[0]["behavior"] == "Isolated"
    if not is_split or parts[0]["invert"] or parts[-1].get("use_regex", True):
        return None
    return parts[0]["pattern"].get("Regex")


def _cut(pattern: str, model: dict[str, Any], backend: Tokenizer) -> tuple[str, str | None]:
    """llama.cpp's name of a cut, and what is said of it where that is only the nearest one.

    Raises:
        InteropError: it has none.
    """
    pre = KNOWN.get(pattern)
    if pre is not None and (pre in WHOLE_WORDS) == bool(model.get("ignore_merges")):
        return pre, None
    if pattern != PIECE:
        raise InteropError(
            f"its tokenizer cuts text by a pattern that llama.cpp is not known to have ({pattern}): it has those of "
            f"{', '.join(sorted(KNOWN.values()))}."
        )
    other = Tokenizer.from_str(backend.to_str())
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    differ = [text for text in SAMPLES if other.encode(text).ids != backend.encode(text).ids]
    return "gpt-2", (
        "llama.cpp has no cut like this tokenizer's and gets the nearest, gpt-2's: numbers of more than four digits, "
        "quotes before a letter and words with marks become other tokens "
        f"({len(differ)} of {len(SAMPLES)} sample texts). Train with --pre_tokenizer gpt2 for the same ids"
    )


def _tokens(content: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Every id's token and its kind; ids without a token get one that no text becomes."""
    tokens = {number: (token, NORMAL) for token, number in content["model"]["vocab"].items()}
    for added in content["added_tokens"]:
        tokens[added["id"]] = (added["content"], CONTROL if added["special"] else USER_DEFINED)
    filled = [tokens.get(number, (f"[PAD{number}]", UNUSED)) for number in range(vocab_size)]
    return [token for token, _ in filled], [kind for _, kind in filled]
