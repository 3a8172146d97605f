"""Whole models to and from other families, and whether both compute the same."""

import copy

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft.interop import family as families
from weft.interop.family import Family, InteropError

TOLERANCE = 1e-4  # of the largest value, at least of 1: float32 rounds differently in every order of summing
SAMPLES = (
    "The loom stood in the corner, and nobody had touched it since the winter before last.",
    "A short line.",
    "天地玄黄 宇宙洪荒 日月盈昃 辰宿列张",
)
OUTPUTS = ("logits", "prediction_logits", "start_logits", "last_hidden_state")


def import_model(stock: PreTrainedModel, family: Family, head: str) -> tuple[PreTrainedModel, list[str]]:
    """A Weft model with the weights of a stock one.

    Returns:
        The model, in the stock model's dtype, and the names of stock tensors that it has no place for and that the
        head's output does not depend on.

    Raises:
        InteropError: the config cannot be expressed, or the weights do not fit.
    """
    config = family.import_config(stock.config, head)
    model = families.weft_class(head)._from_config(config, dtype=stock.dtype)
    dropped = family.import_weights(stock.state_dict(), model, head)
    return model.eval(), dropped


def export_model(model: PreTrainedModel, family: Family, head: str) -> PreTrainedModel:
    """A stock model with the weights of a Weft model, in its dtype; raises InteropError where there is none."""
    config = family.export_config(model.config, head)
    stock = family.stock_class(head)._from_config(config, dtype=model.dtype)
    family.export_weights(model, stock, head)
    return stock.eval()


def sample_batch(
    model: PreTrainedModel, head: str, tokenizer: PreTrainedTokenizerBase | None
) -> dict[str, torch.Tensor]:
    """Input for both models: sample text, or random ids where there is no tokenizer; the shorter rows padded on the
    right."""
    config = model.config
    pad = config.pad_token_id or 0
    if tokenizer is not None:
        rows = [tokenizer(text).input_ids[: config.max_position_embeddings] for text in SAMPLES]
    else:
        draw = torch.Generator().manual_seed(0)
        most = min(24, config.max_position_embeddings)
        rows = [torch.randint(0, config.vocab_size, (most - 5 * short,), generator=draw).tolist() for short in range(3)]
        rows = [[id_ for id_ in row if id_ != pad] for row in rows]  # some models take the padding id for padding
    if config.is_encoder_decoder and head in ("sequence", "question"):  # read at the end token, in BART the only one
        end = config.eos_token_id
        rows = [[id_ for id_ in row if id_ != end] + [end] for row in rows]
    longest = max(map(len, rows))
    batch = {
        "input_ids": torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }
    if config.is_encoder_decoder and head in ("base", "seq2seq"):
        batch["decoder_input_ids"] = batch["input_ids"][:, : min(map(len, rows))]
    if head == "choice":
        batch = {name: tensor[None] for name, tensor in batch.items()}
    return batch


@torch.no_grad()
def largest_difference(
    model: PreTrainedModel, stock: PreTrainedModel, head: str, batch: dict[str, torch.Tensor]
) -> tuple[float, float]:
    """Largest difference of what the two compute in float32, padding apart, and the largest value itself."""
    ours, theirs = (_output(copy.deepcopy(each).float().eval(), batch) for each in (model, stock))
    if ours.shape != theirs.shape:
        raise InteropError(f"the two models return other shapes, {tuple(ours.shape)} and {tuple(theirs.shape)}.")
    if "decoder_input_ids" not in batch and ours.shape[:2] == batch["input_ids"].shape:
        is_token = batch["attention_mask"].bool()
        ours, theirs = ours[is_token], theirs[is_token]
    return float((ours - theirs).abs().max()), float(theirs.abs().max())


def _output(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    outputs = model(**batch)
    return next(outputs[name] for name in OUTPUTS if name in outputs)


def check_same(model: PreTrainedModel, stock: PreTrainedModel, head: str, batch: dict[str, torch.Tensor]) -> float:
    """The largest difference of the two; raises InteropError where it is more than rounding."""
    difference, largest = largest_difference(model, stock, head, batch)
    if not difference <= TOLERANCE * max(1.0, largest):
        raise InteropError(
            f"the two models compute different things: {difference:.1e} at most, where values reach {largest:.1e}."
        )
    return difference
