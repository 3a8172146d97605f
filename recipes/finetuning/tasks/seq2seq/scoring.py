"""How texts that a model wrote are scored: BLEU, chrF and ROUGE, by what the language has for words."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import regex
from sacrebleu.metrics import CHRF

from weft.recipes.metrics import load_metric
from weft.recipes.metrics.answers import UNSPACED

SAMPLE_TEXTS = 1000
_KANA, _UNSPACED = regex.compile(r"[\p{Hiragana}\p{Katakana}]"), regex.compile(rf"[{UNSPACED}]")
_HAN, _LETTER = regex.compile(r"\p{Han}"), regex.compile(r"\p{L}")
KANA_OF_JAPANESE = 0.1  # share of the letters; Chinese texts hold a few too


def bleu_tokenizer(texts: Iterable[str]) -> str:
    """What BLEU counts in a language: "zh" for Chinese, "char" for other scripts without blanks between words, and else
    "13a", as everywhere."""
    sample = "".join(itertools.islice(texts, SAMPLE_TEXTS))
    letters, unspaced = len(_LETTER.findall(sample)), len(_UNSPACED.findall(sample))
    if 2 * unspaced <= letters:
        return "13a"
    is_chinese = len(_KANA.findall(sample)) < KANA_OF_JAPANESE * letters and 2 * len(_HAN.findall(sample)) > letters
    return "zh" if is_chinese else "char"


def score_texts(texts: Sequence[str], references: Sequence[Sequence[str]], tokenize: str) -> dict[str, Any]:
    """bleu and chrf (0 to 100), rouge1, rouge2 and rougeL (0 to 1), and how BLEU and chrF were computed."""
    given = {"predictions": list(texts), "references": [list(several) for several in references]}
    bleu = load_metric("bleu").compute(**given, tokenize=tokenize)
    chrf = load_metric("chrf").compute(**given)
    rouge = load_metric("rouge").compute(**given)
    return {
        "bleu": bleu["bleu"],
        "chrf": chrf["chrf"],
        **{name: rouge[name] for name in ("rouge1", "rouge2", "rougeL")},
        "signatures": {"BLEU": bleu.get("signature", ""), "chrF": chrf.get("signature", "")},
    }


def chrf_of_each(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """chrF of each text by itself, by which the best and the worst are found."""
    chrf = CHRF()
    return [chrf.sentence_score(text, list(several)).score for text, several in zip(texts, references, strict=True)]
