"""Graphs with weights of 8 bits, and how much of what a model says they change."""

import inspect
import logging
import tempfile
import textwrap
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.conversion.onnx_graphs import OUTPUTS
from weft.recipes.conversion.onnx_runtime import OnnxModel, Tensors, at_tokens, batches_of

ENDING = "_quantized"
MOST_TEXTS, MOST_TOKENS = 200, 128


def write_int8(folder: Path) -> None:
    """Write each graph of a folder once more: matrices in 8 bits, one scale for each, activations as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    level = logging.root.level
    logging.root.setLevel(logging.ERROR)  # it says of every graph that it might be prepared further
    try:
        for file in sorted(folder.glob("*.onnx")):
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                prepared = Path(temporary) / file.name
                # matrices are turned around by the graph until it is optimised, and only constant ones become small
                quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
                quantize_dynamic(prepared, folder / f"{file.stem}{ENDING}.onnx", weight_type=QuantType.QInt8)
    finally:
        logging.root.setLevel(level)


def texts_to_compare(file: Path | None, tokenizer: PreTrainedTokenizerBase | None) -> list[str]:
    """Texts to measure on: lines of a file, or documentation that Python carries; none where nothing can read them.

    Raises:
        RecipeError: the file cannot be read, or holds no text.
    """
    if tokenizer is None:
        return []
    if file is None:
        found = (inspect.getdoc(value) for _, value in inspect.getmembers(textwrap) + inspect.getmembers(tempfile))
        return [text for text in dict.fromkeys(found) if text][:MOST_TEXTS]
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"text {str(file)!r} cannot be read: give a file in UTF-8, one text a line.") from error
    texts = [line for line in lines if line.strip()][:MOST_TEXTS]
    if not texts:
        raise RecipeError(f"text {str(file)!r} holds no text: give a file with one text a line.")
    return texts


def tell_loss(
    model: PreTrainedModel, head: str, folder: Path, tokenizer: PreTrainedTokenizerBase | None, texts: list[str]
) -> str:
    """What 8 bits cost, in a sentence: measured on texts, or on random ids where there is no tokenizer."""
    exact, small = OnnxModel(model, head, folder), OnnxModel(model, head, folder, ENDING)
    batches = [_batch_of(text, model, head, tokenizer) for text in texts] or batches_of(model, head, None)[:1]
    counted: dict[str, list[float]] = {}
    for batch in batches:
        ours, theirs = exact(batch), small(batch)
        for name in OUTPUTS.get(head, ("logits",)):
            for what, values in _compare(ours[name], theirs[name], batch, head, model.config.num_labels).items():
                counted.setdefault(what, []).extend(values.tolist())
    files = [(file, ENDING in file.name) for file in folder.glob("*.onnx*") if file.is_file()]
    exact_size, small_size = (sum(file.stat().st_size for file, it in files if it == small) for small in (False, True))
    on = f"{len(texts)} texts" if texts else "random ids"
    return f"8 bits: {exact_size / 1e6:.1f} MB become {small_size / 1e6:.1f} MB; {_tell(counted)}, on {on}"


def _batch_of(text: str, model: PreTrainedModel, head: str, tokenizer: PreTrainedTokenizerBase) -> Tensors:
    longest = min(MOST_TOKENS, model.config.max_position_embeddings)
    ids = torch.tensor([tokenizer(text).input_ids[:longest]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if head == "choice":
        return {name: one[None] for name, one in batch.items()}
    return batch | ({"decoder_input_ids": ids} if head == "seq2seq" else {})


def _compare(ours: torch.Tensor, theirs: torch.Tensor, batch: Tensors, head: str, labels: int) -> Tensors:
    """For each place of a batch that something is said at, how much 8 bits change."""
    if head == "base":
        return {"cosine": torch.cosine_similarity(at_tokens(ours, batch), at_tokens(theirs, batch), dim=-1)}
    if head == "sequence" and labels == 1:
        return {"difference": (ours - theirs).abs().flatten()}
    logs = [each.log_softmax(-1) for each in (ours, theirs)]
    found = {"same": (logs[0].argmax(-1) == logs[1].argmax(-1)).float()}
    found["divergence"] = (logs[0].exp() * (logs[0] - logs[1])).sum(-1)
    if head == "causal":
        following = batch["input_ids"][:, 1:, None]
        for what, each in zip(("loss", "loss in 8 bits"), logs):
            found[what] = -each[:, :-1].gather(-1, following)[..., 0]
    return {what: values.flatten() for what, values in found.items()}


def _tell(counted: dict[str, list[float]]) -> str:
    mean = {what: sum(values) / max(1, len(values)) for what, values in counted.items()}
    if "cosine" in mean:
        return f"hidden states have a cosine of {mean['cosine']:.4f} with those before"
    if "difference" in mean:
        return f"the numbers it says change by {mean['difference']:.4f} on average"
    told = f"{100 * mean['same']:.1f}% of {len(counted['same']):,} predictions stay the same"
    told += f" (KL divergence {mean['divergence']:.4f} nats)"
    if "loss" in mean:
        told += f", loss {mean['loss']:.4f} becomes {mean['loss in 8 bits']:.4f} nats a token"
    return told
