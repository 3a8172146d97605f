"""Validation of a causal language model: nats per token, perplexity and bits per byte, on any number of processes."""

import math

import torch
from torch.utils.data import DataLoader, Subset

from weft.recipes.common.packing import IGNORE_INDEX, ValidationRows, collate_causal
from weft.recipes.common.trainer import WeftTrainer


class CausalEvaluator:
    """Scores every token of the held-out text once (but the first of a document without a start token).

    Metrics: loss (nats per target, end tokens included), perplexity (its exponential) and bits_per_byte (the nats of
    the text's own tokens, in bits, over the UTF-8 bytes of the text).
    """

    def __init__(self, rows: ValidationRows) -> None:
        self.rows = rows

    @torch.no_grad()
    def __call__(self, trainer: WeftTrainer) -> dict[str, float]:
        arguments, model = trainer.args, trainer.model
        share = -(-len(self.rows) // arguments.world_size)  # the same number of rows for every process
        first = arguments.process_index * share
        loader = DataLoader(
            Subset(self.rows, range(first, first + share)),
            batch_size=arguments.per_device_eval_batch_size,
            collate_fn=collate_causal,
            generator=torch.Generator(),  # leaves the global one as it is
        )
        sums = torch.zeros(3, dtype=torch.float64)  # on the CPU, because not every device has float64
        was_training = model.training
        model.eval()
        for batch in loader:
            batch = {name: tensor.to(arguments.device) for name, tensor in batch.items()}
            logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
            nats = token_nats(logits, batch["labels"])
            is_target = batch["labels"] != IGNORE_INDEX
            sums += torch.stack([nats.sum(), nats[batch["is_text"].cpu()].sum(), is_target.sum().cpu()])
        model.train(was_training)
        if arguments.world_size > 1:
            sums = trainer.accelerator.reduce(sums.to(arguments.device), "sum")
        nats, text_nats, targets = sums.tolist()
        loss = nats / targets
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "bits_per_byte": text_nats / math.log(2) / self.rows.byte_count,
        }


def token_nats(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token [batch, tokens], in float64 on the CPU; 0 where there is no target."""
    flat = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return flat.view_as(labels).cpu().double()
