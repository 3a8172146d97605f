"""A server that flattens all requests into one row and brings its own attention, embedding and cache (as vLLM's backend
for transformers does) computes what the model does; what it would compute otherwise is refused by name."""

import ast
import copy
import inspect
import textwrap
from typing import Any

import pytest
import torch
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from weft import WeftForMaskedLM, WeftModel
from weft.attention import WeftAttention
from weft.backends import LEFT_OUT_BY_VLLM, VLLM, check_backend

MIXED = {"num_hidden_layers": 3, "sliding_window": 5, "layer_types": [SLIDING, FULL, SLIDING]}
# What is served -> config fields
WRITERS: dict[str, dict[str, Any]] = {
    "as a new model is": {"attention_gate": True, "value_residual": True},
    "as Qwen3": {},
    "as Llama": {"qk_norm": False},
    "as GPT-2": {"position_embedding_type": "learned", "norm_type": "layernorm", "mlp_gated": False, "qk_norm": False},
    "windows": {"sliding_window": 5},
    "windows in some layers, gates": {"attention_gate": True, "value_residual": True, **MIXED},
    "some layers without positions": {"layers_without_positions": [1]},
    "sinusoidal positions": {"position_embedding_type": "sinusoidal", "position_interleaved": True},
    "no positions": {"position_embedding_type": "none"},
    "interleaved, in part": {
        "position_interleaved": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
    },
    "norms of the output": {"norm_position": "output", "qk_norm_over": "width"},
    "norms on both sides": {"norm_position": "sandwich"},
    "norms behind the sum": {"norm_position": "post", "embedding_norm": True},
    "both at once": {"parallel_residual": True, "attention_bias": True, "mlp_bias": True},
    "scaled": {"embedding_scale": 5.6, "attention_scale": 0.3, "final_logit_softcapping": 4.0, "lm_head_bias": True},
    "both roles": {"masked_next_token": True},
    "segments": {"type_vocab_size": 2},
}
READERS = ("as a new model is", "as Qwen3", "as Llama", "as GPT-2", "norms behind the sum", "segments", "scaled")
# Requests, as lengths of their texts; and steps, each with the requests in its row and how many of their tokens.
LENGTHS = (9, 3, 14)
STEPS = ([(0, 6), (1, 2)], [(1, 1), (0, 1), (2, 5)], [(2, 8), (0, 1)], [(0, 1), (2, 1)])


class Pages:
    """One layer's attention: keys and values of every request, and whose tokens the row at hand holds."""

    def __init__(self, module: WeftAttention, window: int | None) -> None:
        self.is_causal, self.window, self.head_dim = module.is_causal, window, module.head_dim
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.row: list[tuple[int, int]] = []

    def forward(self, scale: float, *states: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values [tokens, heads x head_dim] to the mixture."""
        tokens = sum(number for _, number in self.row)
        parts = (each.view(tokens, -1, self.head_dim).split([number for _, number in self.row]) for each in states)
        mixed = [self._attend(request, scale, *own) for (request, _), *own in zip(self.row, *parts)]
        return torch.cat(mixed).flatten(1)

    def _attend(self, request: int, scale: float, *states: torch.Tensor) -> torch.Tensor:
        query, *new = states
        if request in self.kept:
            new = [torch.cat(pair) for pair in zip(self.kept[request], new)]
        self.kept[request] = tuple(new)
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in new)
        scores = torch.einsum("qhd,khd->hqk", query, key) * scale
        places = torch.arange(len(key))
        behind = places[-len(query) :, None] - places
        hidden = (behind < 0) & self.is_causal
        hidden |= torch.zeros_like(hidden) if self.window is None else behind >= self.window
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), value)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    attention_instances: dict[int, Pages] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    assert attention_mask is None and query.shape[0] == 1
    flat = (each.transpose(1, 2).reshape(query.shape[-2], -1) for each in (query, key, value))
    return attention_instances[module.layer_idx].forward(scaling, *flat), None


class Embedding(nn.Embedding):
    """A table of the server's own, with the one thing that it reads off the model's."""

    def __init__(self, replaced: nn.Module) -> None:
        super().__init__(*replaced.weight.shape, _weight=replaced.weight)
        self.scale = replaced.embed_scale

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * self.scale


class Server:
    """A base model that runs many requests in rows [1, tokens] with positions that begin again."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = copy.deepcopy(model.config)
        self.model = AutoModel.from_config(config, attn_implementation=VLLM).eval()
        self.model.load_state_dict(model.model.state_dict())
        self.model.set_input_embeddings(Embedding(self.model.get_input_embeddings()))
        windows = [config.sliding_window if kind == SLIDING else None for kind in config.layer_types]
        modules = [module for module in self.model.modules() if isinstance(module, WeftAttention)]
        self.layers = {module.layer_idx: Pages(module, windows[module.layer_idx]) for module in modules}
        self.seen: dict[int, int] = {}

    @torch.no_grad()
    def step(self, texts: list[torch.Tensor], row: list[tuple[int, int]]) -> dict[int, torch.Tensor]:
        """The hidden states of the next tokens of some requests: request -> [tokens, hidden_size]."""
        begin = {request: self.seen.get(request, 0) for request, _ in row}
        places = [torch.arange(begin[request], begin[request] + number) for request, number in row]
        ids = torch.cat([texts[request][place] for (request, _), place in zip(row, places)])
        for layer in self.layers.values():
            layer.row = row
        given = {"input_ids": ids[None], "position_ids": torch.cat(places)[None], "attention_instances": self.layers}
        states = self.model(**given, use_cache=False, return_dict=False)[0][0]
        self.seen |= {request: begin[request] + number for request, number in row}
        return dict(zip(begin, states.split([number for _, number in row])))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, VLLM, attend)


def make_texts() -> list[torch.Tensor]:
    return [random_ids(length, seed=length) for length in LENGTHS]


@pytest.mark.parametrize("case", WRITERS)
def test_requests_in_one_row_get_the_logits_of_each_text_alone(case: str) -> None:
    """Prompts in parts, some beside others that write already."""
    model = make_model(tiny_config(pad_token_id=0, architectures=["WeftForCausalLM"], **WRITERS[case]))
    server, texts = Server(model), make_texts()
    states: dict[int, list[torch.Tensor]] = {}
    for row in STEPS:
        for request, new in server.step(texts, row).items():
            states.setdefault(request, []).append(new)
    with torch.no_grad():
        for request, ids in enumerate(texts):
            expected = model(ids[None]).logits[0]
            torch.testing.assert_close(model.get_logits(torch.cat(states[request])), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", READERS)
def test_an_encoder_reads_texts_in_one_row(case: str) -> None:
    model = make_model(tiny_config(is_causal=False, **WRITERS[case]), model_class=WeftForMaskedLM)
    server, texts = Server(model), make_texts()
    assert not any(module.is_causal for module in server.model.modules() if isinstance(module, WeftAttention))
    found = server.step(texts, list(enumerate(LENGTHS)))
    with torch.no_grad():
        for request, ids in enumerate(texts):
            expected = model.model(ids[None]).last_hidden_state[0]
            torch.testing.assert_close(found[request], expected, rtol=1e-4, atol=2e-5)


def test_the_lookup_of_attention_and_its_scale_are_found_in_the_source() -> None:
    """Where there is no such assignment, or another call, vLLM takes the module for one without attention."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(WeftAttention.forward)))
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    found = [
        node.targets[0].id for node in assigned if ast.unparse(node.value.func).startswith("ALL_ATTENTION_FUNCTIONS.")
    ]
    assert len(found) == 1
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == found[0]]
    assert len(calls) == 1
    assert [ast.unparse(word.value) for word in calls[0].keywords if word.arg == "scaling"] == ["self.scaling"]


# What is left out -> config fields that have it
REFUSED: dict[str, dict[str, Any]] = {
    "is_encoder_decoder=True": {"is_encoder_decoder": True, "decoder_start_token_id": 1},
    "is_causal=False of a model that writes": {"is_causal": False},
    "sliding_window with is_causal=False": {
        "is_causal": False,
        "sliding_window": 5,
        "architectures": ["WeftForMaskedLM"],
    },
    "layer_types without keys and values": {"layer_types": ["recurrent", "full_attention"], "num_hidden_layers": 2},
    "norm_offset": {"norm_offset": 1.0},
    "lm_head_transform": {"lm_head_transform": True},
    "lm_head_scale": {"lm_head_scale": 0.5},
}


def test_every_refusal_is_tried() -> None:
    assert REFUSED.keys() == LEFT_OUT_BY_VLLM.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_server_would_leave_out_is_refused_by_name(name: str) -> None:
    fields = {"architectures": ["WeftForCausalLM"], **REFUSED[name]}
    with pytest.raises(ValueError, match=f"vllm cannot compute {name}"):
        AutoModel.from_config(tiny_config(**fields), attn_implementation=VLLM)


@pytest.mark.parametrize("fields", [{"attn_logit_softcapping": 2.0}, {"position_embedding_type": "alibi"}])
def test_what_its_attention_is_not_known_to_compute_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="vllm is not known to"):
        WeftModel._from_config(tiny_config(**fields), attn_implementation=VLLM)


def test_a_head_that_the_server_does_not_use_is_no_reason_to_refuse() -> None:
    config = tiny_config(is_causal=False, lm_head_transform=True, architectures=["WeftForMaskedLM"])
    check_backend(config, VLLM)
