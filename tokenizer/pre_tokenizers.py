"""Pre-tokenizers: they cut text into pieces, and no token reaches over the end of a piece."""

from tokenizers import Regex, normalizers, pre_tokenizers

# Scripts that write words without blanks between them, and the sign that lengthens vowels in both kana.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u30FC"
LONGEST_RUN = 32
LONGEST_WORD = 64

_LETTER = rf"[\p{{L}}&&[^{UNSPACED}]]"
# Marks are part of a word (vowel signs of Devanagari, accents), and so are the two joiners of Persian and Hindi.
_MORE_LETTERS = rf"[\p{{L}}\p{{M}}\u200C\u200D&&[^{UNSPACED}]]"
_UNSPACED_RUN = rf"[{UNSPACED}][{UNSPACED}\p{{M}}]{{0,{LONGEST_RUN - 1}}}"

PIECE = "|".join(
    (
        rf"(?<=\p{{L}})['\u2019]{_LETTER}{_MORE_LETTERS}?(?!{_MORE_LETTERS})",
        _UNSPACED_RUN,
        rf" ?{_LETTER}{_MORE_LETTERS}{{0,{LONGEST_WORD - 1}}}",
        r" ?\p{N}{1,4}",
        r" ?[^\s\p{L}\p{N}]{1,16}",
        r"\s{1,64}(?!\S)",
        r"\s{1,64}",
    )
)


def split_pieces() -> pre_tokenizers.PreTokenizer:
    """Build the cut for byte-level BPE and Unigram. Nothing is lost; every piece is bounded. The pieces are:

    - a short ending behind an apostrophe inside a word ('s, 'll);
    - a run of scripts without blanks between words, so that tokens of several characters can be learnt (中国), of at
      most LONGEST_RUN characters (few clauses are longer), and apart from other scripts;
    - a word of any other script with the one blank before it, of at most LONGEST_WORD letters and marks;
    - at most four digits (a year), counted from the left, with the one blank before them;
    - other signs, up to 16, with the one blank before them (emoji with their joiners stay together);
    - blanks and line ends, up to 64; the last blank before a word goes with the word.

    The words are those of GPT-2's pattern (https://huggingface.co/openai-community/gpt2). That counts marks as signs,
    so it cuts Hindi words at each vowel sign, and sets no bounds.
    """
    return pre_tokenizers.Split(Regex(PIECE), "isolated")


def split_unspaced_and_long() -> pre_tokenizers.PreTokenizer:
    """Build the same runs and bounds for WordPiece, after its own cut at blanks and signs."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_UNSPACED_RUN), "isolated"),
            pre_tokenizers.Split(Regex(rf"\S{{{LONGEST_WORD}}}"), "isolated"),
        ]
    )


def prefix_blank() -> normalizers.Normalizer:
    """Build a normalizer that has every text begin with a blank, so that its first word looks like any other."""
    return normalizers.Sequence([normalizers.Prepend(" "), normalizers.Replace(Regex(r"\A (?=\s)"), "")])
