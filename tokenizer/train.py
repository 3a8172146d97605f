"""Train a tokenizer on your text and save it as a plain PreTrainedTokenizerFast.

    python tokenizer/train.py --train_files text.txt --tokenizer_type bpe --vocab_size 8192 --output_dir runs/tokenizer

Without train_files it learns from the English text that Python itself carries.

Whatever loads tokenizers loads the result: `AutoTokenizer.from_pretrained("runs/tokenizer")`, without remote code.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, END, UNKNOWN, MASK = "<pad>", "<s>", "</s>", "<unk>", "<mask>"
SPECIAL_TOKENS = [PAD, START, END, UNKNOWN, MASK]
# A blank before a mask belongs to the masked word, as in RoBERTa; trainers keep only what they are given here.
LEFT_STRIPPING_MASK = AddedToken(MASK, lstrip=True, special=True, normalized=False)
SPECIAL_TOKENS_OF_WORDS = [*SPECIAL_TOKENS[:-1], LEFT_STRIPPING_MASK]
TOKENIZER_TYPES = ("bpe", "wordpiece", "unigram", "char")


def train_tokenizer(
    texts: Iterator[str], tokenizer_type: str, vocab_size: int, model_max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary.

    Args:
        texts: documents to learn from; read once, in order.
        tokenizer_type: "bpe" (byte-level, as GPT-2: no text is unknown to it), "wordpiece" (as BERT, cased),
            "unigram" (as T5's SentencePiece) or "char" (every character of the text is one token).
        vocab_size: at most so many tokens, the special ones included; "char" takes the most frequent characters.
        model_max_length: longest input, in tokens, written into the tokenizer's config.

    Returns:
        A tokenizer that puts the start token before a text, as the recipes do in training.

    Raises:
        ValueError: an unknown tokenizer_type, or a vocab_size with no room for the special tokens and an alphabet.
    """
    if tokenizer_type not in TOKENIZER_TYPES:
        raise ValueError(f"tokenizer_type {tokenizer_type!r} is unknown: choose one of {', '.join(TOKENIZER_TYPES)}.")
    smallest = len(SPECIAL_TOKENS) + (256 if tokenizer_type == "bpe" else 1)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size={vocab_size} is too small for tokenizer_type {tokenizer_type}: at least {smallest}."
        )
    tokenizer, trainer = _BUILDERS[tokenizer_type](vocab_size)
    try:
        tokenizer.train_from_iterator(texts, trainer)
    except Exception as error:  # tokenizers has no type of its own for it
        if "vocabulary is not large enough" not in str(error):
            raise
        raise ValueError(f"vocab_size={vocab_size} is too small for all the characters of the text.") from error
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A {START} $B", special_tokens=[(START, SPECIAL_TOKENS.index(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        mask_token=MASK if tokenizer_type == "char" else LEFT_STRIPPING_MASK,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **({} if model_max_length is None else {"model_max_length": model_max_length}),
    )


def without_boundaries(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer for text that has neither start nor end tokens: calling it adds none, and it names none."""
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    tokenizer.bos_token = tokenizer.eos_token = None
    return tokenizer


def _byte_level_bpe(vocab_size: int) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS_OF_WORDS, initial_alphabet=alphabet, show_progress=False
    )


def _wordpiece(vocab_size: int) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    alphabet = max(1, (vocab_size - len(SPECIAL_TOKENS)) // 2)  # a character may take two places: c and ##c
    return tokenizer, trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS_OF_WORDS, limit_alphabet=alphabet, show_progress=False
    )


def _unigram(vocab_size: int) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\n"), "isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    return tokenizer, trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS_OF_WORDS, unk_token=UNKNOWN, show_progress=False
    )


def _characters(vocab_size: int) -> tuple[Tokenizer, trainers.Trainer]:
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer, trainers.WordLevelTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False
    )


_BUILDERS = {"bpe": _byte_level_bpe, "wordpiece": _wordpiece, "unigram": _unigram, "char": _characters}


@dataclass
class TokenizerArguments:
    """Where the tokenizer goes."""

    output_dir: str = field(default="runs/tokenizer", metadata={"help": "folder to write; must not be there yet"})
    model_max_length: int | None = field(
        default=None, metadata={"help": "longest input, in tokens, to write into the tokenizer's config"}
    )


def main() -> None:
    # Here, because preparing a corpus trains tokenizers too and imports this file.
    from weft.recipes.common.arguments import parse_arguments
    from weft.recipes.common.errors import RecipeError
    from weft.recipes.common.files import new_folder, only_one_process
    from weft.recipes.common.preparation import TextArguments, show_progress, texts_of

    data, output = parse_arguments(__doc__, [TextArguments, TokenizerArguments]).groups
    data.check()
    folder = Path(output.output_dir)
    with only_one_process(folder.with_name(f".{folder.name}.lock"), str(folder)):
        if folder.exists():
            raise RecipeError(f"{folder} exists: name another --output_dir, or remove it.")
        texts = show_progress(texts_of(data, "train"), "training the tokenizer", quiet=False)
        try:
            tokenizer = train_tokenizer(texts, data.tokenizer_type, data.vocab_size, output.model_max_length)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        with new_folder(folder) as partial:
            tokenizer.save_pretrained(partial)
    print(f"{data.tokenizer_type} tokenizer with {len(tokenizer):,} tokens in {folder}")


if __name__ == "__main__":
    from weft.recipes.common.errors import run_command

    run_command(main)
