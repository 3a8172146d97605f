"""The special tokens that a tokenizer puts around a text when it is called, as a decoder or an encoder expects them."""

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from weft.tokenizer.vocabulary import number_of_ids

MASK = "<mask>"
# A blank before a mask belongs to the masked word, as in RoBERTa.
LEFT_STRIPPING_MASK = AddedToken(MASK, lstrip=True, special=True, normalized=False)
ROLES = ("decoder", "encoder")


def for_role(tokenizer: PreTrainedTokenizerBase, role: str, token_types: bool = False) -> PreTrainedTokenizerFast:
    """Copy a tokenizer and have it put start and end tokens where the role needs them.

    | role    | one text        | two texts                  | their token types         |
    | ------- | --------------- | -------------------------- | ------------------------- |
    | decoder | `<s> A`         | `<s> A </s> B`             | 0 to the `</s>`, 1 from B |
    | encoder | `<s> A </s>`    | `<s> A </s> B </s>`        | 0 to the `</s>`, 1 from B |

    Start is the tokenizer's bos token, else its cls token; end is its eos token, else its sep token. A tokenizer that
    already puts exactly these around one text keeps its own way with two (BERT's, RoBERTa's).

    Args:
        tokenizer: any fast tokenizer; it is left as it is.
        role: "decoder" or "encoder"; an encoder's start and end also become its cls and sep tokens.
        token_types: return `token_type_ids` too.

    Returns:
        A plain PreTrainedTokenizerFast; it keeps all of this when it is saved and loaded.

    Raises:
        ValueError: an unknown role, a tokenizer without a fast version, or one without start and end tokens.
    """
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown: choose one of {', '.join(ROLES)}.")
    if not tokenizer.is_fast:
        raise ValueError("the tokenizer has no fast version (tokenizer.json): convert it.")
    start, end = find_start_and_end(tokenizer)
    if start is None or end is None:
        raise ValueError(
            f"the tokenizer has no {'start' if start is None else 'end'} token, which the role {role} needs: set its "
            f"{'bos_token' if start is None else 'eos_token'}."
        )
    names = {"bos_token": start, "eos_token": end}
    if role == "encoder":
        names |= {"cls_token": start, "sep_token": end}
    result = _plain(tokenizer, names, token_types)
    before, after = [start], ([end] if role == "encoder" else [])
    if not _puts_around(result, before, after, token_types):
        _set_template(result.backend_tokenizer, start, end, closed=role == "encoder")
    return result


def find_start_and_end(tokenizer: PreTrainedTokenizerBase) -> tuple[str | None, str | None]:
    """Return the tokens that open and close a text: bos, else cls; eos, else sep; None where it has neither."""
    return tokenizer.bos_token or tokenizer.cls_token, tokenizer.eos_token or tokenizer.sep_token


def decoder_start(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id that the decoder of a new encoder-decoder begins with: bos, else padding, else eos."""
    ids = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((number for number in ids if number is not None), None)


def tokens_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that a fast tokenizer puts before and after one text."""
    encoding = tokenizer.backend_tokenizer.encode("a")
    is_text = [not special for special in encoding.special_tokens_mask]
    last = len(is_text) - is_text[::-1].index(True)
    return encoding.ids[: is_text.index(True)], encoding.ids[last:]


def separate_pairs(tokenizer: PreTrainedTokenizerBase, token: str, closed: bool = False) -> None:
    """Have a fast tokenizer put a token between two texts, and go on to put around one text what it does.

    Args:
        closed: also put the token behind the second text where nothing stands there.
    """
    backend = tokenizer.backend_tokenizer
    encoding = backend.encode("a")
    names = [name for name, special in zip(encoding.tokens, encoding.special_tokens_mask) if special]
    opening = [*encoding.special_tokens_mask, 0].index(0)
    before, after = names[:opening], names[opening:]
    last = after or ([token] if closed else [])
    ids = {name: backend.token_to_id(name) for name in (*names, token)}
    template = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", token, "$B", *last],
        special_tokens=list(ids.items()),
    )
    trimming = _trimming(backend)
    backend.post_processor = processors.Sequence([*trimming, template]) if trimming else template


def without_start_and_end(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerFast:
    """Copy a tokenizer and have it put nothing around a text, whatever its post-processor did before.

    It names no start and end token either, so that nothing adds one by its name, as generation and scoring do. The
    tokens stay in the vocabulary, with their ids.

    Args:
        tokenizer: any fast tokenizer; it is left as it is.
    """
    nameless = dict.fromkeys(("bos_token", "eos_token", "cls_token", "sep_token"))
    result = _plain(tokenizer, nameless, "token_type_ids" in tokenizer.model_input_names)
    trimming = _trimming(result.backend_tokenizer)
    result.backend_tokenizer.post_processor = processors.Sequence(trimming)
    return result


def add_mask_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Give a tokenizer a mask token, "<mask>", if it has none; a blank before it then belongs to the masked word.

    Returns:
        Whether it had none. The vocabulary may have grown by one: resize the model's embeddings to `number_of_ids`.
    """
    if tokenizer.mask_token is not None:
        return False
    if tokenizer.is_fast and number_of_ids(tokenizer) > len(tokenizer):
        _append(tokenizer, MASK)
    tokenizer.add_special_tokens({"mask_token": LEFT_STRIPPING_MASK})
    return True


def add_extra_tokens(tokenizer: PreTrainedTokenizerBase, names: Sequence[str]) -> list[str]:
    """Make tokens of these names special ones, in place; those that the vocabulary has not got are added behind it.

    Returns:
        The ones that were added: resize the model's embeddings to `number_of_ids`.
    """
    new = [name for name in names if name not in tokenizer.get_vocab()]
    for name in new:
        if tokenizer.is_fast and number_of_ids(tokenizer) > len(tokenizer):
            _append(tokenizer, name)
    tokens = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
    return new


def _append(tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Give a token the id behind the largest. Added to ids with holes it might get one that another token has."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    if isinstance(vocabulary, dict) and token not in tokenizer.get_vocab():
        vocabulary[token] = number_of_ids(tokenizer)
        tokenizer.backend_tokenizer.model = Tokenizer.from_str(json.dumps(state)).model


def _plain(
    tokenizer: PreTrainedTokenizerBase, names: dict[str, str | None], token_types: bool
) -> PreTrainedTokenizerFast:
    """Copy a tokenizer to the plain class, since some classes set their own template when they are loaded."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    # With their properties: a name alone would lose what belongs to the token, such as stripping the blank before it.
    added = {str(token): token for token in backend.get_added_tokens_decoder().values()}
    named: dict[str, Any] = {
        name: added.get(token, token)
        for name, token in {**tokenizer.special_tokens_map, **names}.items()
        if isinstance(token, str)
    }
    extra = tokenizer.extra_special_tokens
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **named,
        **({"extra_special_tokens": [added.get(token, token) for token in extra]} if extra else {}),
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        model_input_names=["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"],
    )


def _puts_around(tokenizer: PreTrainedTokenizerFast, before: list[str], after: list[str], token_types: bool) -> bool:
    """Tell whether the tokenizer does this already, and has token types for two texts if these are asked for."""
    text = tokenizer.backend_tokenizer.encode("a", add_special_tokens=False).tokens
    one, two = tokenizer.backend_tokenizer.encode("a"), tokenizer.backend_tokenizer.encode("a", "a")
    return one.tokens == before + text + after and (not token_types or set(two.type_ids) == {0, 1})


def _set_template(backend: Tokenizer, start: str, end: str, closed: bool) -> None:
    last = f" {end}" if closed else ""
    template = processors.TemplateProcessing(
        single=f"{start} $A{last}",
        pair=f"{start} $A {end} $B:1{last and f'{last}:1'}",
        special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys((start, end))],
    )
    trimming = _trimming(backend)
    backend.post_processor = processors.Sequence([*trimming, template]) if trimming else template


def _trimming(backend: Tokenizer) -> list[processors.PostProcessor]:
    """Return what lets a byte-level tokenizer go on to trim blanks off its offsets as before."""
    state = json.loads(backend.to_str())["post_processor"] or {}
    trims = [part["trim_offsets"] for part in (state, *state.get("processors", ())) if "trim_offsets" in part]
    return [processors.ByteLevel(trim_offsets=trims[0])] if trims else []
