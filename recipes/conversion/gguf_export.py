"""A causal checkpoint as a GGUF file, which llama.cpp and the programs around it read."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from weft.interop import InteropError, find_family
from weft.interop.convert import export_model
from weft.recipes.common.errors import RecipeError, optional_package
from weft.recipes.common.files import new_file
from weft.recipes.conversion.gguf_tokenizer import Vocabulary, read_vocabulary
from weft.recipes.conversion.loading import head_of, load_weft, load_weft_config, tokenizer_for

ENDING = ".gguf"
# Families whose computation llama.cpp has, the one that most models are first
SHAPES = ("qwen3", "llama")
# llama.cpp turns neighbouring numbers of a Llama's heads, where transformers turns halves
TURNED = ("q_proj", "k_proj")
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}  # general.file_type


def export_gguf(checkpoint: str, output: Path, int8: bool = False) -> None:
    """Write a Weft checkpoint as a GGUF file; raises RecipeError and InteropError, and writes nothing then.

    Args:
        int8: matrices in 8 bits (Q8_0) instead of in the checkpoint's dtype.
    """
    gguf = optional_package("gguf", "export gguf")
    if output.suffix != ENDING:
        raise RecipeError(f"{output} is to be a GGUF file: give a name that ends in {ENDING}.")
    config = load_weft_config(checkpoint)
    head = head_of(config)
    if head != "causal":
        raise InteropError("llama.cpp gets causal models only: give a checkpoint of WeftForCausalLM.")
    shape = find_shape(config)
    tokenizer = tokenizer_for(checkpoint, config, head)
    if tokenizer is None:
        raise InteropError("it has no tokenizer, without which llama.cpp loads no file: save one into its folder.")
    vocabulary = read_vocabulary(tokenizer, config.vocab_size)
    stock = export_model(load_weft(checkpoint, head), find_family(shape), head)
    tensors = tensors_of(stock, gguf)
    kind = "Q8_0" if int8 else {torch.bfloat16: "BF16", torch.float16: "F16"}.get(stock.dtype, "F32")
    output.parent.mkdir(parents=True, exist_ok=True)
    with new_file(output) as partial:
        writer = gguf.GGUFWriter(partial, shape)
        _write_fields(writer, stock.config, Path(checkpoint).name, FILE_TYPES[kind], gguf)
        _write_vocabulary(writer, vocabulary, tokenizer.chat_template)
        kept = {name: _store(writer, name, tensor, kind, gguf) for name, tensor in tensors.items()}
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _check(partial, kept, gguf)
    print(f"written: {output}, a {shape} of {len(tensors)} tensors in {kind}, read back as they are")
    if vocabulary.note is not None:
        print(f"note: {vocabulary.note}")


def find_shape(config: PreTrainedConfig) -> str:
    """The family that llama.cpp knows and that computes what a config does.

    Raises:
        InteropError: names what stands in the way.
    """
    refusals = []
    for name in SHAPES:
        try:
            stock = find_family(name).export_config(config, "causal")
        except InteropError as error:
            refusals.append(error)
            continue
        _refuse(stock)
        return name
    nearest = min(refusals, key=lambda error: len(error.fields) or 99)
    raise InteropError(f"llama.cpp cannot compute it: {nearest}", nearest.fields)


def _refuse(stock: PreTrainedConfig) -> None:
    """Refuse what the family has in transformers and not in llama.cpp."""
    rope = stock.rope_parameters
    scaled = ("default", "linear", "llama3") if stock.model_type == "llama" else ("default", "linear")
    wrong = {
        f"hidden_act={stock.hidden_act!r} (only 'silu')": stock.hidden_act not in ("silu", "swish"),
        "sliding_window": "sliding_attention" in (getattr(stock, "layer_types", None) or ()),
        f"rope_type={rope['rope_type']!r} (only {', '.join(scaled)})": rope["rope_type"] not in scaled,
        "partial_rotary_factor": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "attention_bias (without qk_norm it can)": stock.model_type == "qwen3" and stock.attention_bias,
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise InteropError(f"llama.cpp cannot compute this model as {stock.model_type}: {'; '.join(found)}.")


def tensors_of(stock: PreTrainedModel, gguf: Any) -> dict[str, torch.Tensor]:
    """The tensors of a stock model under llama.cpp's names, and in its order of numbers."""
    config = stock.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[config.model_type.upper()], config.num_hidden_layers)
    found = {}
    for name, tensor in stock.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if config.model_type == "llama" and any(f".{part}." in name for part in TURNED):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            tensor = interleave(tensor, heads)
        found[names.get_name(name, try_suffixes=(".weight", ".bias"))] = tensor
    if config.rope_parameters["rope_type"] == "llama3":
        found["rope_freqs.weight"] = _slower(config)
    return found


def interleave(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows [heads x (2 halves x pairs), ...] of queries or keys, each number next to the one that it is turned with:
    [heads x (pairs x 2), ...]."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _slower(config: PreTrainedConfig) -> torch.Tensor:
    """How many times slower than without scaling each pair turns."""
    rope, head_dim = config.rope_parameters, config.head_dim
    plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, device=None)
    return plain / scaled


def _write_fields(writer: Any, config: PreTrainedConfig, name: str, file_type: int, gguf: Any) -> None:
    rope = config.rope_parameters
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _write_vocabulary(writer: Any, vocabulary: Vocabulary, chat_template: str | None) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    for name, number in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.adds_start)
    writer.add_add_eos_token(vocabulary.adds_end)
    if chat_template:
        writer.add_chat_template(chat_template)


def _store(writer: Any, name: str, tensor: torch.Tensor, kind: str, gguf: Any) -> np.ndarray:
    """Add a tensor to a file: vectors in float32, matrices as asked for where their rows can be; returns the bytes."""
    values, kind = tensor.float().contiguous().numpy(), kind if tensor.ndim > 1 else "F32"
    kind = "F32" if kind == "Q8_0" and values.shape[-1] % 32 else kind
    stored = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    writer.add_tensor(name, stored, raw_dtype=gguf.GGMLQuantizationType[kind])
    return stored


def _check(file: Path, kept: dict[str, np.ndarray], gguf: Any) -> None:
    """Raise InteropError where a file does not hold what was to be written into it."""
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
    wrong = [name for name in kept if name not in found or found[name].tobytes() != kept[name].tobytes()]
    if wrong or len(found) != len(kept):
        raise InteropError(f"the file that was written holds something else than the model: {', '.join(wrong)}.")
