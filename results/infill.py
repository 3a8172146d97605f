"""How many bits the middle of a held-out text costs: behind its prefix alone, and with its suffix known.

    python results/infill.py DATA RUN ...

Each held-out document that fits a row is cut at two places (the same in all runs), and the tokens of its middle are
scored from left to right behind the prefix, and, where the model has tokens for infilling, in both forms of
fill-in-the-middle. The end token behind a middle counts apart.
"""

import math
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.tokenizer.fill_in_the_middle import MiddleTokens

ROW = 256


@torch.no_grad()
def nats(model: torch.nn.Module, before: list[int], behind: list[int]) -> list[float]:
    """Those of each of the tokens behind the others."""
    logits = model(torch.tensor([[*before, *behind]])).logits[0, len(before) - 1 : -1]
    return (-logits.double().log_softmax(-1)[range(len(behind)), behind]).tolist()


def score(corpus: Corpus, folder: str) -> None:
    """Print bits per byte of the middles, and nats of the end tokens behind them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    tokens = MiddleTokens.find(tokenizer)
    totals, ends, byte_count, documents = {}, {}, 0, 0
    for document in corpus.documents("validation").tolist():
        ids = corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]].tolist()
        if len(ids) + 3 > ROW:
            continue
        start, *text, end = ids
        drawn = uniform(make_key(1, document), np.arange(2), 0)
        first, last = np.sort((drawn * (len(text) + 1)).astype(int)).tolist()
        prefix, middle, suffix = text[:first], text[first:last], text[last:]
        if not middle:
            continue
        documents, byte_count = documents + 1, byte_count + len(tokenizer.decode(middle).encode())
        found = {"prefix alone": [*nats(model, [start, *prefix], middle), 0.0]}
        if tokens is not None:
            for name, suffix_first in (("prefix first", False), ("suffix first", True)):
                parts = tokens.before_middle(prefix, suffix, suffix_first)
                found[name] = nats(model, [start, *(token for part in parts for token in part)], [*middle, end])
        for name, each in found.items():
            totals[name] = totals.get(name, 0.0) + sum(each[:-1])
            ends[name] = ends.get(name, 0.0) + each[-1]
    bits = {name: f"{total / math.log(2) / byte_count:.4f}" for name, total in totals.items()}
    told = {name: f"{total / documents:.2f}" for name, total in ends.items() if total}
    print(f"{folder}: {documents} middles of {byte_count:,} bytes; bits/byte {bits}; nats of the end token {told}")


for each in sys.argv[2:]:
    score(Corpus.open(sys.argv[1]), each)
