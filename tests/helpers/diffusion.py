"""Masked diffusion written out: a vocabulary of four tokens, and the bound on a text by enumeration."""

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from helpers.models import make_model, tiny_config
from weft import WeftForMaskedLM
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.diffusion import MASK as STREAM
from weft.recipes.pretraining.datasets.diffusion import DocumentMasker
from weft.recipes.pretraining.datasets.masking import Vocabulary
from weft.recipes.pretraining.datasets.packed import DocumentSpan

PAD, START, END, MASK = range(4)
LETTERS = range(4, 8)
VOCAB_SIZE = 8
VOCABULARY = Vocabulary(mask=MASK, ordinary=np.array(LETTERS), special=np.array([PAD, START, END, MASK]))
TEXT = [START, 5, 4, 7, 7, 6, END]
PLACES = range(1, 6)  # of the text in it

Table = dict[frozenset[int], dict[int, float]]


def make_letters_model(**changes: object) -> nn.Module:
    """A tiny masked language model of the four tokens, in float64."""
    fields = {"vocab_size": VOCAB_SIZE, "is_causal": False, "pad_token_id": PAD, **changes}
    return make_model(tiny_config(**fields), model_class=WeftForMaskedLM).double()


def masked_sets(places: Iterable[int]) -> list[frozenset[int]]:
    """Every set of one place or more."""
    places = list(places)
    return [frozenset(chosen) for size in range(1, len(places) + 1) for chosen in itertools.combinations(places, size)]


@torch.no_grad()
def nats_of_masks(model: nn.Module, ids: Sequence[int], places: Iterable[int] = PLACES, mask: int = MASK) -> Table:
    """For each set of masked places the nats of the token at each of them, one input at a time."""
    table: Table = {}
    for chosen in masked_sets(places):
        masked = [mask if place in chosen else token for place, token in enumerate(ids)]
        log_probs = model(torch.tensor([masked])).logits[0].double().log_softmax(-1)
        table[chosen] = {place: -log_probs[place, ids[place]].item() for place in chosen}
    return table


def bound_over_orders(table: Table) -> float:
    """The mean over all orders of the nats of a text that is written one token at a time."""
    places = max(table, key=len)
    orders = list(itertools.permutations(places))
    total = sum(
        table[frozenset(order[step:])][place] for order in orders for step, place in enumerate(order)
    )  # what is written sees what was written before it
    return total / len(orders)


def share_of(chosen: frozenset[int], size: int) -> float:
    """How often a set of masked places comes, of a text of so many tokens: each number as often, then each set."""
    return 1 / size / math.comb(size, len(chosen))


def mask_by_hand(
    masker: DocumentMasker, span: DocumentSpan, point: float, noise: int = 0
) -> tuple[list[int], list[int], list[float]]:
    """Ids, targets and weights of a document span, token by token, each at the token's own place."""
    tokens = span.tokens.tolist()
    text = [place for place, token in enumerate(tokens) if token not in masker.vocabulary.special]
    if masker.from_before:
        text = [place for place in text if place > 0]
    key = make_key(masker.seed, noise, span.pass_number, span.document)
    ranked = sorted(text, key=lambda place: float(uniform(key, span.first + place, STREAM)))
    count = math.floor(point * len(text)) + 1 if text else 0
    masked = set(ranked[:count])
    ids = [masker.vocabulary.mask if place in masked else token for place, token in enumerate(tokens)]
    targets = [token if place in masked else -100 for place, token in enumerate(tokens)]
    return ids, targets, [len(text) / count if place in masked else 0.0 for place in range(len(tokens))]
