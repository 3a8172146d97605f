"""Tokenizers of four kinds, learnt from text; as a command, `weft.recipes.train_tokenizer`."""

import json
import runpy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weft.tokenizer.own_special_tokens import append_special_tokens, check_special_tokens, cut_out
from weft.tokenizer.pre_tokenizers import LONGEST_WORD, prefix_blank, split_pieces, split_unspaced_and_long
from weft.tokenizer.sampling import sample
from weft.tokenizer.special_tokens import LEFT_STRIPPING_MASK, MASK, for_role

PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL_TOKENS = [PAD, START, END, UNKNOWN, MASK]
SPECIAL_TOKENS_OF_WORDS = [*SPECIAL_TOKENS[:-1], LEFT_STRIPPING_MASK]  # trainers keep only what they are given
TOKENIZER_TYPES = ("bpe", "wordpiece", "unigram", "char")
PRE_TOKENIZERS = ("weft", "gpt2")
SMALLEST = {"bpe": 256, "wordpiece": 2, "unigram": 257, "char": 1}  # tokens besides the special ones
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
BLANK = "\u2581"  # how Metaspace writes one
# Share of the vocabulary that single characters may take: more where a character without a token makes its whole word
# unknown, less where it only becomes bytes.
ALPHABET_SHARE = {"wordpiece": 0.75, "unigram": 0.5}
SAMPLE_CHARACTERS = 100_000_000


def train_tokenizer(
    texts: Iterator[str],
    tokenizer_type: str,
    vocab_size: int,
    model_max_length: int | None = None,
    sample_characters: int = SAMPLE_CHARACTERS,
    add_prefix_space: bool = False,
    special_tokens: Sequence[str] = (),
    pre_tokenizer: str = "weft",
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary.

    Args:
        texts: documents to learn from; read once, in order.
        tokenizer_type: "bpe" (byte-level, as GPT-2: no text is unknown to it, and it gives every text back),
            "wordpiece" (as BERT, cased: Han characters stand alone, blanks and joiners are not kept), "unigram" (as
            T5's SentencePiece, after NFKC; a character without a token becomes bytes, so that none is unknown) or
            "char" (every character of the text is one token).
        vocab_size: largest number of tokens, the special ones included. "char" takes the most frequent characters.
            "wordpiece" and "unigram" fill up to three quarters and half of it with these, the rest with words and
            their parts.
        model_max_length: longest input, in tokens, written into the tokenizer's config.
        sample_characters: largest number of characters to learn from, taken evenly over all texts; see `sample`.
        add_prefix_space: for "bpe" and "unigram": take the first word of a text as if a blank stood before it. Needed
            where words are given one by one (`is_split_into_words=True`, as in token classification), since each would
            otherwise look like the beginning of a text; decoding then gives a blank before the first word.
        special_tokens: names of your own, such as "<user>", which get the last ids, behind the vocabulary. No text
            that training reads becomes one of them; calling the tokenizer on a text that spells one out does.
        pre_tokenizer: for "bpe", how text is cut into pieces: "weft" (see `split_pieces`), or "gpt2", which llama.cpp
            and others know by name, so that a model can be shipped to them with the same tokens.

    Returns:
        A tokenizer that puts the start token before a text, as the recipes do in training (`for_role` of decoders).
        "bpe", "wordpiece" and "char" are the same every time. "unigram" is not: its trainer adds up in an order that
        differs from run to run.

    Raises:
        ValueError: an unknown tokenizer_type, special_tokens that are taken or given twice, a vocab_size with no room
            for the special tokens and an alphabet, sample_characters below 1, add_prefix_space for a type that has no
            use for it, another pre_tokenizer likewise, or text of which the type keeps nothing.
    """
    if tokenizer_type not in TOKENIZER_TYPES:
        raise ValueError(f"tokenizer_type {tokenizer_type!r} is unknown: choose one of {', '.join(TOKENIZER_TYPES)}.")
    check_special_tokens(special_tokens, SPECIAL_TOKENS)
    smallest = len(SPECIAL_TOKENS) + SMALLEST[tokenizer_type] + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size} is too small for tokenizer_type {tokenizer_type}: at least {smallest}."
        )
    if sample_characters < 1:
        raise ValueError(f"sample_characters={sample_characters} leaves no text to learn from: at least 1.")
    if add_prefix_space and tokenizer_type not in ("bpe", "unigram"):
        raise ValueError(f"add_prefix_space is for tokenizer_type bpe and unigram, not {tokenizer_type}: leave it out.")
    if pre_tokenizer not in PRE_TOKENIZERS:
        raise ValueError(f"pre_tokenizer {pre_tokenizer!r} is unknown: choose one of {', '.join(PRE_TOKENIZERS)}.")
    if pre_tokenizer != "weft" and (tokenizer_type != "bpe" or add_prefix_space):
        raise ValueError(
            f"pre_tokenizer {pre_tokenizer} is for tokenizer_type bpe without add_prefix_space: leave one of them out."
        )
    learnt = cut_out(sample(texts, sample_characters), special_tokens)
    backend = _LEARN[tokenizer_type](learnt, vocab_size - len(special_tokens), add_prefix_space, pre_tokenizer)
    if backend.get_vocab_size() <= len(SPECIAL_TOKENS) and any(map(str.strip, learnt)):
        raise ValueError(
            f"tokenizer_type {tokenizer_type} keeps no character of the text, which is all of blanks, control and "
            "private characters: choose bpe or unigram, or give other text."
        )
    own = append_special_tokens(backend, special_tokens)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        mask_token=MASK if tokenizer_type == "char" else LEFT_STRIPPING_MASK,
        clean_up_tokenization_spaces=False,
        **({} if model_max_length is None else {"model_max_length": model_max_length}),
        **({"extra_special_tokens": own} if own else {}),
    )
    return for_role(tokenizer, "decoder")


def _learn_bpe(texts: list[str], vocab_size: int, add_prefix_space: bool, pre_tokenizer: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if add_prefix_space:
        tokenizer.normalizer = prefix_blank()
    if pre_tokenizer == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split_pieces(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS_OF_WORDS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _learn_wordpiece(texts: list[str], vocab_size: int, add_prefix_space: bool, pre_tokenizer: str) -> Tokenizer:
    """Learn WordPiece: Han characters stand alone, as in BERT; other scripts without blanks are cut as for BPE."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), split_unspaced_and_long()])
    tokenizer.decoder = decoders.WordPiece()
    room = vocab_size - len(SPECIAL_TOKENS)
    cut, normalise = tokenizer.pre_tokenizer.pre_tokenize_str, tokenizer.normalizer.normalize_str

    def forms(character: str) -> list[str]:
        """Return a character's tokens: at the begin of a piece and, unless it always stands alone, inside one."""
        if not cut(normalise(character)):
            return []
        return [character, f"##{character}"] if len(cut(normalise(character * 2))) == 1 else [character]

    alphabet, known = _alphabet(map(normalise, texts), max(2, int(room * ALPHABET_SHARE["wordpiece"])), forms)
    # The trainer numbers an alphabet that it finds itself in random order, and breaks ties by these numbers; tokens
    # that it is given come first and in their order.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIAL_TOKENS, *alphabet], show_progress=False
    )
    tokenizer.train_from_iterator(known, trainer)
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    return _with_model(
        tokenizer, models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD)
    )


def _learn_unigram(texts: list[str], vocab_size: int, add_prefix_space: bool, pre_tokenizer: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    steps = [normalizers.NFKC(), *([prefix_blank()] if add_prefix_space else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split_pieces(), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()])
    room = vocab_size - len(SPECIAL_TOKENS) - len(BYTES)
    normalised = map(tokenizer.normalizer.normalize_str, texts)
    _, known = _alphabet(normalised, max(1, int(room * ALPHABET_SHARE["unigram"])), lambda character: [character])
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - len(BYTES), special_tokens=SPECIAL_TOKENS, unk_token=UNKNOWN, show_progress=False
    )
    tokenizer.train_from_iterator(known, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # Of a text of one character or of NUL, which the trainer takes for the end of one, a score is no number; and of a
    # text with few characters it keeps more than it was asked for.
    known_scores = [score for _, score in model["vocab"] if score is not None]
    pieces = [(piece, min(known_scores) if score is None else score) for piece, score in model["vocab"]]
    # The trainer knows nothing of bytes. Their score does not matter: no piece of text spells one, so they are only
    # used for what has no other token.
    vocabulary = [*pieces[: vocab_size - len(BYTES)], *((byte, 0.0) for byte in BYTES)]
    return _with_model(tokenizer, models.Unigram(vocabulary, unk_id=model["unk_id"], byte_fallback=True))


def _learn_characters(texts: list[str], vocab_size: int, add_prefix_space: bool, pre_tokenizer: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _alphabet(texts: Iterable[str], room: int, forms: Callable[[str], list[str]]) -> tuple[list[str], Iterator[str]]:
    """Return the tokens of the most frequent characters that fit, and the texts without the other characters."""
    texts = list(texts)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    alphabet: list[str] = []
    rare: dict[int, None] = {}
    for character in sorted(counts, key=lambda character: (-counts[character], character)):
        tokens = forms(character)
        if rare or len(alphabet) + len(tokens) > room:
            rare[ord(character)] = None
        else:
            alphabet += tokens
    return alphabet, (text.translate(rare) if rare else text for text in texts)


def _with_model(tokenizer: Tokenizer, model: models.Model) -> Tokenizer:
    """Put a tokenizer around another model, with the special tokens alone set apart."""
    result = Tokenizer(model)
    result.normalizer, result.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    result.decoder = tokenizer.decoder
    result.add_special_tokens(SPECIAL_TOKENS_OF_WORDS)
    return result


_LEARN = {"bpe": _learn_bpe, "wordpiece": _learn_wordpiece, "unigram": _learn_unigram, "char": _learn_characters}


if __name__ == "__main__":
    runpy.run_module("weft.recipes.train_tokenizer", run_name="__main__")
