"""Replaced-token detection written out: a tiny pair of models, and what it says of a row, token by token."""

from typing import Any, NamedTuple

import torch

from helpers.masks import VOCAB_SIZE
from helpers.models import shake, tiny_config
from weft import WeftForTokenClassification
from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.replaced_tokens import ReplacedTokenModel

SHARING = ("gradient_disentangled", "shared", "none")


def make_pair(
    sharing: str = SHARING[0], weight: float = 50.0, depth: float = 0.5, **changes: Any
) -> ReplacedTokenModel:
    """A tiny generator and discriminator whose weights all matter, in float64."""
    config = tiny_config(**{"vocab_size": VOCAB_SIZE, "is_causal": False, "num_labels": 2, **changes})
    discriminator = WeftForTokenClassification._from_config(config, attn_implementation="sdpa")
    return shake(ReplacedTokenModel(discriminator, depth, sharing, weight)).double().eval()


class Judged(NamedTuple):
    """What a pair says of a row: the nats of each target of the generator, and of each token of the text the
    discriminator's nats, whether it was replaced, and whether it is called so; and the tokens that it read."""

    target_nats: list[torch.Tensor]
    nats: list[torch.Tensor]
    is_replaced: list[bool]
    is_called: list[bool]
    read_ids: list[int]


def judge_by_hand(pair: ReplacedTokenModel, row: dict[str, Any]) -> Judged:
    """Each document of a row alone, with logits at every place, and tokens drawn by adding probabilities up."""
    own, others = (model.get_input_embeddings().weight for model in (pair.discriminator, pair.generator))
    embeddings = own + others.detach() if pair.is_disentangled else own
    judged = Judged([], [], [], [], [])
    starts = [place for place, position in enumerate(row["position_ids"]) if position == 0]
    for first, last in zip(starts, [*starts[1:], len(row["position_ids"])]):
        here = slice(first, last)
        names = ("input_ids", "targets", "draws", "original_ids", "is_text")
        masked, targets, draws, original, is_text = (row[name][here].tolist() for name in names)
        predicted, read = pair.generator(torch.tensor([masked])).logits[0], list(original)
        for place, target in enumerate(targets):
            if target != IGNORE_INDEX:
                judged.target_nats.append(-predicted[place].log_softmax(-1)[target])
                read[place] = _draw(predicted[place].softmax(-1).tolist(), draws[place])
        scores = pair.discriminator(inputs_embeds=embeddings[torch.tensor([read])]).logits[0]
        for place in (place for place, counts in enumerate(is_text) if counts):
            called, replaced = torch.sigmoid(scores[place, 1] - scores[place, 0]), read[place] != original[place]
            judged.nats.append(-torch.log(called if replaced else 1 - called))
            judged.is_replaced.append(replaced)
            judged.is_called.append(called.item() > 0.5)
        judged.read_ids.extend(read)
    return judged


def _draw(shares: list[float], number: float) -> int:
    """The token at which probabilities that are added up first exceed a number."""
    reached = 0.0
    for token, share in enumerate(shares):
        reached += share
        if number < reached:
            return token
    return len(shares) - 1
