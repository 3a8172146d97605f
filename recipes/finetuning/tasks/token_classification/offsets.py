"""Tokenizers whose tokens stand where their letters do, so that a pipeline's entities do not begin with a blank."""

import copy
import json
from itertools import islice

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

BLANKS = ("Ġ", "\u2581")  # how byte-level tokenizers and Metaspace write one
PROBES = 20


def trim_offsets(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer, or a copy, whose tokens do not stand on the blank before their word, as far as that can be had.

    A byte-level token such as "ĠYork" includes a blank, and so does its place in the text unless the post-processor
    trims it. That of Unigram ("▁York") has no such switch: see `keeps_blanks`.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    post = state["post_processor"]
    parts = [part for part in ([post, *post.get("processors", ())] if post else []) if "trim_offsets" in part]
    if all(part["trim_offsets"] for part in parts) and (
        parts or '"ByteLevel"' not in json.dumps(state["pre_tokenizer"])
    ):
        return tokenizer
    result = copy.deepcopy(tokenizer)
    for part in parts:
        part["trim_offsets"] = True
    if not parts:
        # a blank that the tokenizer itself puts before a text has no place in it: there is nothing to trim
        first = tokenizer.backend_tokenizer.encode("a", add_special_tokens=False).tokens[0]
        trimming = {"type": "ByteLevel", "add_prefix_space": first[0] == BLANKS[0], "trim_offsets": True}
        trimming["use_regex"] = False
        state["post_processor"] = {"type": "Sequence", "processors": [trimming, *([post] if post else [])]}
    result.backend_tokenizer.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor
    return result


def keeps_blanks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a token's place in the text begins with the blank before its word, as far as some words tell."""
    backend = tokenizer.backend_tokenizer
    vocabulary = backend.get_vocab()  # in another order each time
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    words = (token[1:] for token in tokens if token[0] in BLANKS and token[1:].isalpha())
    for word in islice(words, PROBES):
        text = f"a {word}"
        places = backend.encode(text, add_special_tokens=False).offsets
        if any(text[start:end].strip() and text[start] == " " for start, end in places):
            return True
    return False


def surroundings(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True, truncation=False)
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    if 0 not in special:
        return list(ids), []
    first = special.index(0)
    last = len(special) - special[::-1].index(0)
    return ids[:first], ids[last:]
