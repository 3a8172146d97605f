"""Pre-tokenizers: they cut text into pieces, and no token reaches over the end of a piece."""

from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

# Scripts that write words without blanks between them, and the sign that lengthens vowels in both kana.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u30FC"
LONGEST_RUN = 32
LONGEST_WORD = 64

# Marks are part of a word (vowel signs of Devanagari, accents), and so are the two joiners of Persian and Hindi.
_MORE = r"\p{L}\p{M}\u200C\u200D"


def _run(unspaced: str) -> str:
    return rf"[{unspaced}][{unspaced}\p{{M}}]{{0,{LONGEST_RUN - 1}}}"


def _piece(unspaced: str, letter: str, more_letters: str) -> str:
    """The pattern of `split_pieces`, of a set of characters and two patterns of one character outside of it."""
    return "|".join(
        (
            rf"(?<=\p{{L}})['\u2019]{letter}{more_letters}?(?!{more_letters})",
            _run(unspaced),
            rf" ?{letter}{more_letters}{{0,{LONGEST_WORD - 1}}}",
            r" ?\p{N}{1,4}",
            r" ?[^\s\p{L}\p{N}]{1,16}",
            r"\s{1,64}(?!\S)",
            r"\s{1,64}",
        )
    )


_UNSPACED_RUN = _run(UNSPACED)
PIECE = _piece(UNSPACED, rf"[\p{{L}}&&[^{UNSPACED}]]", rf"[{_MORE}&&[^{UNSPACED}]]")


# Patterns of other families. No piece of the last two reaches over a blank in front of a word either.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SIGNS_AND_BLANKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTIONS_AND_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
LLAMA3 = _CONTRACTIONS_AND_WORDS + r"\p{N}{1,3}" + _SIGNS_AND_BLANKS
QWEN2 = _CONTRACTIONS_AND_WORDS + r"\p{N}" + _SIGNS_AND_BLANKS


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


def spell_out_scripts(content: Any) -> Any:
    """The content of a tokenizer.json whose patterns cut text alike in engines that know neither the names of scripts
    nor differences of sets, such as JavaScript's: the scripts are written as ranges of characters."""
    if isinstance(content, list):
        return [spell_out_scripts(each) for each in content]
    if not isinstance(content, dict):
        return content
    if content.get("Regex") in (PIECE, _UNSPACED_RUN):
        ranges = _ranges_of(UNSPACED)
        other = rf"(?:(?![{ranges}])"
        spelt = _piece(ranges, rf"{other}\p{{L}})", rf"{other}[{_MORE}])")
        return {"Regex": spelt if content["Regex"] == PIECE else _run(ranges)}
    return {name: spell_out_scripts(each) for name, each in content.items()}


def _ranges_of(characters: str) -> str:
    """A set of characters, none beyond the four planes that have any, as ranges that the engine takes for the same."""
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x40000))))
    keep_matches = pre_tokenizers.Split(Regex(f"[{characters}]+"), "removed", invert=True)
    runs = (run for run, _ in keep_matches.pre_tokenize_str(everything))
    return "".join(run if len(run) < 3 else f"{run[0]}-{run[-1]}" for run in runs)
