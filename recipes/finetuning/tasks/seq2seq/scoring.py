"""How texts that a model wrote are scored: BLEU, chrF and ROUGE, by what the language has for words."""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from sacrebleu.metrics import CHRF

from weft.recipes.data.language import MOST, unspaced_script
from weft.recipes.finetuning.tasks.seq2seq.reading import TextPair
from weft.recipes.metrics import load_metric

SAMPLE_TEXTS = 1000
MUCH_SHORTER = 0.5  # of a source's length: from here down a target is taken for a summary
_BLEU_TOKENIZERS = {"zh": "zh", "unspaced": "char", None: "13a"}


def bleu_tokenizer(texts: Iterable[str]) -> str:
    """What BLEU counts in a language: "zh" for Chinese, "char" for other scripts without blanks between words, and else
    "13a", as everywhere."""
    sample = "".join(itertools.islice(texts, SAMPLE_TEXTS))
    return _BLEU_TOKENIZERS[unspaced_script(sample, MOST)]


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


def beginnings(learnt: Sequence[TextPair], pairs: Sequence[TextPair], by_words: bool) -> tuple[str, list[str]]:
    """What is written without a model: each source or, where the targets that were learnt are much shorter than their
    sources, as much of its beginning as a target usually is long.

    Args:
        by_words: lengths are counted in words; otherwise in characters.

    Returns:
        It in words, and a text for each pair.
    """

    def units(text: str) -> list[str]:
        return text.split() if by_words else list(text)

    sources = statistics.median(len(units(pair.source)) for pair in learnt)
    length = math.ceil(statistics.median(len(units(target)) for pair in learnt for target in pair.targets))
    if length > MUCH_SHORTER * sources:
        return "copies the source", [pair.source for pair in pairs]
    unit, glue = ("words", " ") if by_words else ("characters", "")
    answer = f"copies the first {length:,} {unit} of the source"
    return answer, [glue.join(units(pair.source)[:length]) for pair in pairs]


def chrf_of_each(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """chrF of each text by itself, by which the best and the worst are found."""
    chrf = CHRF()
    return [chrf.sentence_score(text, list(several)).score for text, several in zip(texts, references, strict=True)]
