"""Small models of the known families, of awkward shapes, and how far Weft's version of them is from the stock class."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from weft.interop import find_family, weft_class
from weft.interop.family import Family

SHAPE = {
    **{"vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6},
    **{"intermediate_size": 80, "max_position_embeddings": 64},
}
ODD = {**SHAPE, "num_attention_heads": 3}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MARKS = {**IDS, "cls_token_id": 1, "sep_token_id": 2}
TWO_STACKS = {
    **{"vocab_size": 97, "d_model": 48, "encoder_layers": 2, "decoder_layers": 3, "max_position_embeddings": 64},
    **{"encoder_attention_heads": 6, "decoder_attention_heads": 6, "encoder_ffn_dim": 80, "decoder_ffn_dim": 80},
}
T5 = {"vocab_size": 97, "d_model": 48, "d_kv": 10, "d_ff": 80, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 3}
DEBERTA = {**ODD, "relative_attention": True, "share_att_key": True, "position_biased_input": False}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    **{"original_max_position_embeddings": 16},
}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA = {**SHAPE, "num_key_value_heads": 2, "head_dim": 10, "query_pre_attn_scalar": 24, "sliding_window": 5}
LINEAR = {
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6, "linear_value_head_dim": 10},
    **{"linear_conv_kernel_dim": 3, "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
}
# with a small epsilon, random states of a text's first tokens, which may be near 0, are magnified with their rounding
QWEN_HYBRID = {**SHAPE, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 0.01, **LINEAR, **IDS}
OPT = {
    **{"vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "ffn_dim": 80},
    **{"max_position_embeddings": 64, "word_embed_proj_dim": 48},
}

# name -> (model_type, config): odd head counts, windows shorter than the input, untied heads, token types ...
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("bart", {**TWO_STACKS, "scale_embedding": True}),
    "bert": ("bert", {**ODD, "type_vocab_size": 3, "hidden_act": "relu"}),
    "bert-untied": ("bert", {**ODD, "tie_word_embeddings": False}),
    "bloom": ("bloom", {"vocab_size": 97, "hidden_size": 48, "n_layer": 3, "n_head": 6, **IDS}),
    "deberta-v2": (
        "deberta-v2",
        {**DEBERTA, "position_buckets": 8, "max_relative_positions": 20, "norm_rel_ebd": "layer_norm"}
        | {"pos_att_type": "p2c|c2p", "type_vocab_size": 2},
    ),
    "deberta-v2-c2p": ("deberta-v2", {**DEBERTA, "pos_att_type": "c2p"}),
    "gemma": ("gemma", {**SHAPE, "num_key_value_heads": 2, "head_dim": 10, "attention_bias": True, **IDS}),
    "gemma2": (
        "gemma2",
        {**GEMMA, "layer_types": MIXED, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 7.0},
    ),
    "gemma3_text": (
        "gemma3_text",
        {**GEMMA, "layer_types": MIXED}
        | {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
            }
        },
    ),
    "glm": ("glm", {**SHAPE, "num_key_value_heads": 2, "head_dim": 12, **IDS}),
    "glm4": (
        "glm4",
        {
            **SHAPE,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "attention_bias": False,
            "tie_word_embeddings": True,
            **IDS,
        },
    ),
    "gpt2": (
        "gpt2",
        {"vocab_size": 97, "n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 64, "n_inner": 80, **IDS},
    ),
    "gpt_neox": ("gpt_neox", {**ODD, "rotary_pct": 0.25, **IDS}),
    "gpt_neox-sequential": (
        "gpt_neox",
        {**ODD, "use_parallel_residual": False, "attention_bias": False, "tie_word_embeddings": True, **IDS},
    ),
    "granite": (
        "granite",
        {**SHAPE, "num_key_value_heads": 2, "embedding_multiplier": 3.0, "logits_scaling": 7.0, **IDS}
        | {"residual_multiplier": 0.3, "attention_multiplier": 0.2, "mlp_bias": True, "attention_bias": True},
    ),
    "llama": (
        "llama",
        {**SHAPE, "num_key_value_heads": 2, "rope_parameters": LLAMA3, "tie_word_embeddings": False, **IDS},
    ),
    "llama-biases": ("llama", {**SHAPE, "head_dim": 14, "attention_bias": True, "mlp_bias": True, **IDS}),
    "marian": ("marian", {**TWO_STACKS, "scale_embedding": True, "decoder_start_token_id": 0, **IDS}),
    "mistral": ("mistral", {**SHAPE, "num_key_value_heads": 2, "head_dim": 12, "sliding_window": 5, **IDS}),
    "modernbert": (
        "modernbert",
        {**ODD, **MARKS, "local_attention": 6, "layer_types": MIXED[1:] + MIXED[:1], "norm_bias": True}
        | {"classifier_pooling": "mean"},
    ),
    "modernbert-biases": (
        "modernbert",
        {**ODD, **MARKS, "local_attention": 6, "classifier_bias": True, "attention_bias": True, "decoder_bias": False},
    ),
    "mpt": ("mpt", {"vocab_size": 97, "d_model": 48, "n_heads": 6, "n_layers": 3, "max_seq_len": 64, **IDS}),
    "olmo2": ("olmo2", {**SHAPE, "num_key_value_heads": 2, **IDS}),
    "olmo3": (
        "olmo3",
        {**SHAPE, "num_key_value_heads": 2, "layer_types": MIXED, "sliding_window": 5, **IDS}
        | {"rope_parameters": {"full_attention": dict(LLAMA3), "sliding_attention": {"rope_theta": 500.0}}},
    ),
    "olmo_hybrid": ("olmo_hybrid", {**SHAPE, "num_key_value_heads": 2, "attention_bias": True, **LINEAR, **IDS}),
    "olmo_hybrid-nope": (
        "olmo_hybrid",
        {**SHAPE, **LINEAR, "linear_num_value_heads": 2, "linear_allow_neg_eigval": False, "tie_word_embeddings": True}
        | {"rope_parameters": {"rope_type": "default", "rope_theta": None}, "linear_conv_kernel_dim": 4, **IDS},
    ),
    "opt": ("opt", OPT),
    "opt-post": (
        "opt",
        {**OPT, "do_layer_norm_before": False, "enable_bias": False, "layer_norm_elementwise_affine": False},
    ),
    "phi3": (
        "phi3",
        {**SHAPE, "num_key_value_heads": 2, "sliding_window": 5, "original_max_position_embeddings": 8, **IDS}
        | {
            "rope_parameters": {
                **{"rope_type": "longrope", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
                **{"short_factor": [1.0, 1.2], "long_factor": [1.5, 3.0]},
            }
        },
    ),
    "qwen2": (
        "qwen2",
        {**SHAPE, "num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
        | IDS,
    ),
    "qwen3": (
        "qwen3",
        {**SHAPE, "num_key_value_heads": 2, "head_dim": 16, "attention_bias": True, "use_sliding_window": True}
        | {"sliding_window": 5, "max_window_layers": 1, **IDS},
    ),
    "qwen3_5_text": ("qwen3_5_text", QWEN_HYBRID),
    "qwen3_next": (
        "qwen3_next",
        {**QWEN_HYBRID, "mlp_only_layers": [0, 1, 2], "num_experts": 4, "tie_word_embeddings": True}
        | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    ),
    "roberta": ("roberta", {**ODD, "type_vocab_size": 1}),
    "smollm3": (
        "smollm3",
        {**SHAPE, "num_key_value_heads": 2, "no_rope_layers": [1, 0, 1], "use_sliding_window": True}
        | {"sliding_window": 5, **IDS},
    ),
    "stablelm": ("stablelm", {**SHAPE, "num_key_value_heads": 2, "use_qkv_bias": True, **IDS}),
    "starcoder2": (
        "starcoder2",
        {**SHAPE, "num_key_value_heads": 2, "sliding_window": 5, "tie_word_embeddings": False, **IDS},
    ),
    "t5": ("t5", {**T5, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 11}),
    "t5-1.1": ("t5", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "xlm-roberta": ("xlm-roberta", {**ODD, "type_vocab_size": 1, "pad_token_id": 1}),
}
WITHOUT_LEFT_PADDING = ("bart", "marian")  # the stock classes count positions over padding, and take no position_ids
GIVEN_POSITIONS = ("bert", "gpt2")  # the stock classes count so too, but can be told the positions


def all_cases() -> list[tuple[str, str]]:
    """Every case with every head of its family."""
    return [(case, head) for case, (model_type, _) in CASES.items() for head in find_family(model_type).heads]


class InnerFloat64(TorchFunctionMode):
    """Turns requests for float32 inside of a model into float64: stock classes cast there, whatever their dtype."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64
        args = tuple(torch.float64 if argument is torch.float32 else argument for argument in args)
        return args[0].double() if func is torch.Tensor.float else func(*args, **kwargs)


def make_pair(case: str, head: str) -> tuple[Family, PreTrainedModel, PreTrainedModel]:
    """The family, its stock model with random weights (no norm at 1, no bias at 0), and Weft's with the same."""
    model_type, fields = CASES[case]
    family = find_family(model_type)
    config = transformers.AutoConfig.for_model(model_type, **fields)
    config._attn_implementation = "eager"
    stock = family.stock_class(head)(config).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if not any(re.search(pattern, name) for pattern in family.ignored):
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * (0.3 if parameter.ndim > 1 else 0.5))
    stock.tie_weights()
    own = family.import_config(stock.config, head)
    own._attn_implementation = "eager"
    model = weft_class(head)(own).eval()
    family.import_weights(stock.state_dict(), model, head)
    return family, stock, model


def make_batch(stock: PreTrainedModel, head: str, side: str) -> dict[str, torch.Tensor]:
    """Two rows of 13 tokens, one padded by 4 on a side; for the stock model what it needs to know of positions."""
    config = stock.config
    ids = torch.randint(5, config.vocab_size - 1, (2, 13))
    mask = torch.ones_like(ids)
    mask[1, slice(9, None) if side == "right" else slice(4)] = 0
    ids = ids.masked_fill(mask == 0, config.pad_token_id or 0)
    if config.is_encoder_decoder and head in ("sequence", "question"):  # BART is read at the end token
        ids[0, -1] = ids[1, 8 if side == "right" else 12] = config.eos_token_id
    batch = {"input_ids": ids, "attention_mask": mask}
    if side == "left" and config.model_type in GIVEN_POSITIONS:
        batch["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    if head == "choice":
        batch = {name: tensor[:, None].expand(-1, 3, -1).contiguous() for name, tensor in batch.items()}
    if config.is_encoder_decoder and head in ("base", "seq2seq"):
        batch["decoder_input_ids"] = torch.randint(5, config.vocab_size - 1, (2, 7))
    return batch


def output_of(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits or, without a head, hidden states; of tokens only where each token has some."""
    outputs = model(**batch)
    names = ("logits", "prediction_logits", "start_logits", "last_hidden_state")
    output = next(outputs[name] for name in names if name in outputs)
    if "decoder_input_ids" not in batch and output.shape[:2] == batch["input_ids"].shape:
        return output[batch["attention_mask"].bool()]
    return output


def differences(case: str, head: str, dtype: torch.dtype, side: str = "right") -> tuple[float, float]:
    """Largest difference of outputs, and of the gradients of their weighted sum, each over the largest value (at least
    1)."""
    family, stock, model = make_pair(case, head)
    batch = make_batch(stock, head, side)
    with InnerFloat64() if dtype is torch.float64 else contextlib.nullcontext():
        ours, theirs = (output_of(each.to(dtype), batch) for each in (model, stock))
        weights = torch.randn(theirs.shape, dtype=dtype) / theirs.numel()
        for output in (ours, theirs):
            (output * weights).sum().backward()
    worst = 0.0
    for own, other in paired_gradients(family, model, stock, head):
        worst = max(worst, float((own - other).abs().max()) / max(1.0, float(other.abs().max())))
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).abs().max()) / max(1.0, float(theirs.abs().max())), worst


def paired_gradients(
    family: Family, model: PreTrainedModel, stock: PreTrainedModel, head: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Gradients of Weft's and the stock parameters, in the stock layout."""
    own, other = (each.state_dict(keep_vars=True) for each in (model, stock))
    for entry in family.all_weights(head, model.config):
        if entry.stock in other and all(name in own for name in entry.weft) and other[entry.stock].requires_grad:
            parts = [own[name] for name in entry.weft]
            gradients = [torch.zeros_like(part) if part.grad is None else part.grad for part in parts]
            theirs = other[entry.stock]
            joined = entry.layout.join(gradients, model.config)
            yield joined, torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
