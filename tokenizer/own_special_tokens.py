"""Special tokens of a user's own in a tokenizer that is trained: no text becomes one of them."""

import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer


def check_special_tokens(tokens: Sequence[str], taken: Sequence[str]) -> None:
    """Refuse tokens that cannot be had.

    Args:
        tokens: a user's own.
        taken: the special tokens that every trained tokenizer has.

    Raises:
        ValueError: one is empty, has blanks around it, is a single character, is given twice, or is taken; names it.
    """
    for number, token in enumerate(tokens):
        if token != token.strip() or len(token) < 2:
            raise ValueError(
                f"special_tokens has {token!r}: give names of two characters or more without blanks around them, such "
                "as <user>."
            )
        if token in taken:
            raise ValueError(
                f"special_tokens has {token!r}, which every tokenizer that is trained has already: leave it out, or "
                "choose another name."
            )
        if token in tokens[:number]:
            raise ValueError(f"special_tokens has {token!r} twice: give it once.")


def cut_out(texts: Iterable[str], tokens: Sequence[str]) -> list[str]:
    """Return the texts in pieces, in which no token is spelt out: it is taken apart into its characters, so that these
    are learnt, but not what they make together."""
    if not tokens:
        return list(texts)
    spelt = re.compile("|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)))
    result = []
    for text in texts:
        place = 0
        for match in spelt.finditer(text):
            result += [text[place : match.start()], *match.group()]
            place = match.end()
        result.append(text[place:])
    return [piece for piece in result if piece]


def append_special_tokens(backend: Tokenizer, tokens: Sequence[str]) -> list[AddedToken]:
    """Add tokens behind a learnt vocabulary, in their order.

    Raises:
        ValueError: the vocabulary has one as a token of text.
    """
    for token in tokens:
        if backend.token_to_id(token) is not None:
            raise ValueError(
                f"special_tokens has {token!r}, which the vocabulary has as a token of text: choose another name, "
                "such as <user>."
            )
    added = [AddedToken(token, special=True, normalized=False) for token in tokens]
    backend.add_special_tokens(added)
    return added
