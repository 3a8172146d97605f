"""Replaced-token detection: a discriminator and the generator whose tokens it judges, trained as one model."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput

from weft import IGNORE_INDEX, WeftConfig, WeftForMaskedLM, WeftForTokenClassification, WeftPreTrainedModel
from weft.losses import target_nats

EMBEDDINGS = "model.embed_tokens.weight"


def generator_config(config: WeftConfig, depth: float) -> WeftConfig:
    """The config of a generator beside a discriminator: the same width, and `depth` times as many layers, at least one.

    One width, so that both can have the same embeddings (DeBERTa-v3, https://huggingface.co/papers/2111.09543).
    """
    made, layers = copy.deepcopy(config), max(1, round(depth * config.num_hidden_layers))
    made.layer_types = config.layer_types[:layers]  # the number is checked against them
    made.layers_without_positions = [layer for layer in config.layers_without_positions if layer < layers]
    made.num_hidden_layers = layers
    return made


@torch.no_grad()
def sample_tokens(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """The tokens [n] at which the distribution functions of logits [n, vocabulary] first exceed draws [n] in [0, 1)."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    reached = logits.softmax(-1, dtype=wide).cumsum(-1)
    limits = draws.to(wide) * reached[:, -1]  # which rounding may keep from being 1
    return torch.searchsorted(reached, limits[:, None], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


@dataclass
class ReplacedTokenOutput(ModelOutput):
    """The weighted sum of both losses; the generator's cross-entropy of each target (target_nats [n]) and the
    discriminator's of each token (discriminator_nats [batch * tokens], 0 where it is not asked), both without gradient;
    the tokens that the discriminator read (read_ids [batch, tokens]), what it should say of them (is_replaced [batch,
    tokens]: 1 or 0, or -100 where it is not asked), and its logits [batch, tokens, 2]."""

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    target_nats: torch.FloatTensor | None = None
    discriminator_nats: torch.FloatTensor | None = None
    read_ids: torch.LongTensor | None = None
    is_replaced: torch.LongTensor | None = None


class ReplacedTokenModel(WeftPreTrainedModel):
    """A generator fills masked tokens in by drawing from what it predicts, and a discriminator tells for each token
    whether it is the text's own (ELECTRA, https://huggingface.co/papers/2003.10555). A token that is drawn as it was
    counts as the text's own. No gradient passes through the draw.

    The discriminator is what is saved: a plain model, whose embeddings are those that it reads with here.
    """

    def __init__(
        self, discriminator: WeftForTokenClassification, depth: float, embedding_sharing: str, weight: float
    ) -> None:
        """Args:
        discriminator: of two labels, with new weights.
        depth: layers of the generator over those of the discriminator.
        embedding_sharing: "shared", one matrix, which both losses train; "gradient_disentangled", the generator's
            without gradient plus a matrix of the discriminator's own, which begins with zeros (DeBERTa-v3,
            https://huggingface.co/papers/2111.09543); "none", two matrices.
        weight: of the discriminator's loss beside the generator's.
        """
        super().__init__(discriminator.config)
        self.discriminator = discriminator
        self.generator = WeftForMaskedLM(generator_config(discriminator.config, depth))
        self.is_disentangled, self.weight = embedding_sharing == "gradient_disentangled", weight
        if embedding_sharing == "shared":
            discriminator.set_input_embeddings(self.generator.get_input_embeddings())
        elif self.is_disentangled:
            nn.init.zeros_(discriminator.get_input_embeddings().weight)
        self.post_init()

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """What the discriminator's layers read for token ids [batch, tokens]: [batch, tokens, hidden_size]."""
        vectors = self.discriminator.get_input_embeddings()(ids)
        return vectors + self.generator.get_input_embeddings()(ids).detach() if self.is_disentangled else vectors

    def forward(
        self,
        input_ids: torch.LongTensor,
        position_ids: torch.LongTensor,
        predict_from: torch.LongTensor,
        labels: torch.LongTensor,
        draws: torch.FloatTensor,
        original_ids: torch.LongTensor,
        is_text: torch.BoolTensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        num_tokens_in_batch: torch.Tensor | int | None = None,
        return_logits: bool = True,
        **kwargs: Any,
    ) -> ReplacedTokenOutput:
        """Args:
        input_ids, position_ids, predict_from, labels: the generator's, as in `WeftForMaskedLM.forward`.
        draws: [n], numbers in [0, 1) that say which tokens the generator puts at the places of `predict_from`.
        original_ids, is_text: [batch, tokens], the text without masks, and which tokens the discriminator is asked of.
        num_items_in_batch, num_tokens_in_batch: what the generator's and the discriminator's nats are divided by; None:
            the number of those here.
        return_logits: not looked at, as tokens are drawn from the generator's.
        """
        masked = {"input_ids": input_ids, "position_ids": position_ids, "predict_from": predict_from, "labels": labels}
        predicted = self.generator(**masked, num_items_in_batch=num_items_in_batch, **kwargs)
        drawn = sample_tokens(predicted.logits, draws)
        # places that only fill the batch up write behind the last token
        places = torch.where(labels != IGNORE_INDEX, predict_from, original_ids.numel())
        room = torch.cat((original_ids.flatten(), original_ids.new_zeros(1)))
        read_ids = room.scatter(0, places, drawn)[:-1].view_as(original_ids)
        is_replaced = torch.where(is_text, (read_ids != original_ids).long(), IGNORE_INDEX)
        logits = self.discriminator(inputs_embeds=self.embed(read_ids), position_ids=position_ids).logits
        nats = target_nats(logits.flatten(0, 1), is_replaced.flatten())
        count = is_text.sum().clamp(min=1) if num_tokens_in_batch is None else num_tokens_in_batch
        loss = predicted.loss + self.weight * nats.sum() / count
        return ReplacedTokenOutput(loss, logits, predicted.target_nats, nats.detach(), read_ids, is_replaced)

    def training_only(self) -> dict[str, nn.Parameter]:
        """The weights that saving leaves out, or that it folds into others."""
        folded = {f"discriminator.{EMBEDDINGS}"} if self.is_disentangled else set()
        named = self.named_parameters()
        return {name: weight for name, weight in named if name.startswith("generator.") or name in folded}

    @torch.no_grad()
    def save_pretrained(self, save_directory: Any, state_dict: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Save the discriminator, as a plain model of its own."""
        weights = self.discriminator.state_dict()
        if self.is_disentangled:
            weights[EMBEDDINGS] = weights[EMBEDDINGS] + self.generator.get_input_embeddings().weight
        self.discriminator.save_pretrained(save_directory, state_dict=weights, **kwargs)
