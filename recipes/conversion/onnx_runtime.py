"""Models in ONNX Runtime: their graphs run as PyTorch's models are, and what both compute compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft.interop import InteropError
from weft.interop.convert import TOLERANCE, sample_batch
from weft.recipes.common.errors import optional_package
from weft.recipes.conversion.onnx_graphs import OUTPUTS, empty_cache

Tensors = dict[str, torch.Tensor]


class OnnxModel:
    """The graphs of a model in a folder, called as the model is: text that is read in pieces goes through the cache."""

    def __init__(self, model: PreTrainedModel, head: str, folder: Path, ending: str = "") -> None:
        """`ending` is that of the files' names, such as "_quantized"; `model` says how large an empty cache is."""
        self.model, self.head = model, head
        runtime = optional_package("onnxruntime", "export onnx")
        options = runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, torch.get_num_threads()
        names = ("encoder_model", "decoder_model_merged") if head == "seq2seq" else ("model",)
        files = [str(folder / f"{name}{ending}.onnx") for name in names]
        self.sessions = [runtime.InferenceSession(file, options, ["CPUExecutionProvider"]) for file in files]

    def __call__(self, batch: Tensors, pieces: Sequence[int] = ()) -> Tensors:
        """What the model returns for a batch; decoders read it cut at these places."""
        if self.head == "causal":
            mask = batch["attention_mask"]
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            given = {"input_ids": batch["input_ids"], "position_ids": positions}
            return self._in_pieces(self.sessions[0], given, pieces, mask, {})
        if self.head == "seq2seq":
            states = self._run(self.sessions[0], batch)["last_hidden_state"]
            read = {"encoder_hidden_states": states, "encoder_attention_mask": batch["attention_mask"]}
            return self._in_pieces(self.sessions[1], {"input_ids": batch["decoder_input_ids"]}, pieces, None, read)
        types = torch.zeros_like(batch["input_ids"])
        return self._run(self.sessions[0], {"token_type_ids": types, **batch})

    def _in_pieces(
        self, session: Any, given: Tensors, pieces: Sequence[int], mask: torch.Tensor | None, more: Tensors
    ) -> Tensors:
        rows, length = given["input_ids"].shape
        names = [one.name for one in session.get_inputs() if one.name.startswith("past_key_values.")]
        past, logits = empty_cache(self.model, names, rows), []
        for begin, end in zip((0, *pieces), (*pieces, length)):
            new = {name: tensor[:, begin:end] for name, tensor in given.items()}
            new |= {} if mask is None else {"attention_mask": mask[:, :end]}
            found = self._run(session, {**new, **more, **past})
            past = {name: found[name.replace("past_key_values", "present")] for name in names}
            logits.append(found["logits"])
        return {"logits": torch.cat(logits, dim=1)}

    @staticmethod
    def _run(session: Any, tensors: Tensors) -> Tensors:
        given = {one.name: tensors[one.name].contiguous().numpy() for one in session.get_inputs()}
        names = [one.name for one in session.get_outputs()]
        return {name: torch.from_numpy(value) for name, value in zip(names, session.run(None, given))}


@torch.no_grad()
def check_graphs(model: PreTrainedModel, head: str, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> float:
    """The largest difference between a model in PyTorch, without a cache, and in ONNX Runtime.

    Rows are padded on either side or stand alone, and decoders read them as a whole, in two parts, and token by token.

    Raises:
        InteropError: it is more than rounding.
    """
    onnx, most = OnnxModel(model, head, folder), 0.0
    for batch in batches_of(model, head, tokenizer):
        expected = model(**batch, **({"use_cache": False} if head in ("causal", "seq2seq") else {}))
        length = batch.get("decoder_input_ids", batch["input_ids"]).shape[-1]
        cuts = ((), (length // 2,), tuple(range(1, length))) if head in ("causal", "seq2seq") else ((),)
        for cut in cuts:
            found = onnx(batch, cut)
            for name in OUTPUTS.get(head, ("logits",)):
                ours, theirs = (at_tokens(one[name], batch) for one in (expected, found))
                difference, largest = float((ours - theirs).abs().max()), float(ours.abs().max())
                if not difference <= TOLERANCE * max(1.0, largest):
                    raise InteropError(
                        f"{name} of ONNX Runtime and PyTorch differ by {difference:.1e}, where values reach "
                        f"{largest:.1e}."
                    )
                most = max(most, difference)
    return most


def batches_of(model: PreTrainedModel, head: str, tokenizer: PreTrainedTokenizerBase | None) -> list[Tensors]:
    """Sample text padded on the right, the same padded on the left, and its longest row alone."""
    right = sample_batch(model, head, tokenizer)
    mask = right["attention_mask"]
    places = torch.arange(mask.shape[-1]) - (mask.shape[-1] - mask.sum(-1, keepdim=True))
    left = {
        name: one.gather(-1, places % one.shape[-1]) if one.shape == mask.shape else one for name, one in right.items()
    }
    if head == "choice":
        return [right, left, {name: one[:, 1:] for name, one in right.items()}]
    longest = int(mask.sum(-1).argmax())
    return [right, left, {name: one[longest : longest + 1] for name, one in right.items()}]


def at_tokens(values: torch.Tensor, batch: Tensors) -> torch.Tensor:
    """Those of values [batch, tokens, ...] that are no padding's; others [batch, ...] as they are."""
    is_token = batch["attention_mask"].bool()
    of_tokens = "decoder_input_ids" not in batch and is_token.ndim == 2 and values.shape[:2] == is_token.shape
    return values[is_token] if of_tokens else values
