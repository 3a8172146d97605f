"""Texts to tokens as training and evaluation count them: without special tokens around or inside them."""

from collections.abc import Sequence

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase


def encode_as_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], with_offsets: bool = True
) -> list[Encoding]:
    """Encode texts without special tokens; one that is spelt out in a text stays text.

    Truncation and padding that the tokenizer came with are switched off for good.

    Args:
        tokenizer: any fast tokenizer.
        texts: encoded together, on all cores.
        with_offsets: also tell the characters of each token, which takes longer.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    previous, backend.encode_special_tokens = backend.encode_special_tokens, True
    try:
        encode = backend.encode_batch if with_offsets else backend.encode_batch_fast
        return encode(list(texts), add_special_tokens=False)
    finally:
        backend.encode_special_tokens = previous


def unread_pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """List what a tokenizer has no token for, each once: pieces that become the unknown token, and characters, other
    than blanks, that become none at all."""
    (encoding,) = encode_as_text(tokenizer, [text])
    unknown = {
        text[start:end]: None
        for token, (start, end) in zip(encoding.ids, encoding.offsets)
        if token == tokenizer.unk_token_id
    }
    # each by itself: behind a character that becomes nothing, places can be wrong
    characters = [character for character in dict.fromkeys(text) if not character.isspace()]
    alone = encode_as_text(tokenizer, characters)
    return list(unknown | {character: None for character, made in zip(characters, alone) if not made.ids})
