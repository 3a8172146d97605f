"""Linear attention: a state that each token corrects stands in for the keys and values of all tokens before it."""

import functools
import importlib
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils.import_utils import is_flash_linear_attention_available

from .attention import chosen
from .products import multiply
from .sequences import Sequences
from .state_cache import state_layer

CHUNK = 64  # tokens that are computed at once; the state is handed on from one chunk to the next
LEAST_NORM = 1e-6  # added to squared lengths of queries and keys
DECAY, STEP = (1e-3, 16.0), (1e-3, 0.1)  # bounds of initial decay rates, and of the steps that they are multiplied with


@functools.cache
def find_kernels(device: torch.device) -> Any:
    """The module of flash-linear-attention's Triton kernels (package `fla`), where it is installed and this is no
    processor; else None."""
    may_use = device.type != "cpu" and is_flash_linear_attention_available()
    return importlib.import_module("fla.ops.gated_delta_rule") if may_use else None


def gated_delta_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor | None = None,
    documents: torch.Tensor | None = None,
    needs_state: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gated DeltaNet (https://huggingface.co/papers/2412.06464): a state [key width, value width] for each head, which
    every token first shrinks, then corrects by `beta` of the difference between its value and what the state says of
    its key: S <- exp(decay) S; S <- S + k beta (v - k S); out = q S. Queries and keys have length 1, and out is scaled
    by 1 / sqrt(key width).

    Half precision is accumulated in float32; on a GPU with the package `fla` its kernels compute it.
    Args:
        query, key: [batch, tokens, heads, key width]; value: [batch, tokens, heads, value width].
        decay: logarithm, at most 0, and beta: [batch, tokens, heads].
        state: [batch, heads, key width, value width], of earlier tokens; None: all 0.
        documents: ids [batch, tokens], each of which begins with a state of 0; not beside `state`.
        needs_state: whether the state behind the last token is returned too.
    Returns: [batch, tokens, heads, value width] in the dtype of value, and the state."""
    dtype, tokens = value.dtype, value.shape[1]
    may_use = dtype in (torch.float16, torch.bfloat16) and not (needs_state and documents is not None)
    kernels = find_kernels(value.device) if may_use and not torch.compiler.is_compiling() else None
    if kernels is not None:
        return _by_kernels(kernels, (query, key, value, decay, beta), state, documents, needs_state)
    wide = torch.promote_types(dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        query, key, value, decay, beta = (each.to(wide) for each in (query, key, value, decay, beta))
        query, key = _normalised(query) * query.shape[-1] ** -0.5, _normalised(key)
        state = None if state is None else state.to(wide)
        if tokens == 1 and state is not None:
            mixed, state = _step(query, key, value, decay, beta, state)
        else:
            mixed, state = _by_chunks(query, key, value, decay, beta, state, documents)
    return mixed.to(dtype), state if needs_state else None


def _normalised(states: torch.Tensor) -> torch.Tensor:
    return states * torch.rsqrt(states.square().sum(-1, keepdim=True) + LEAST_NORM)


def _step(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token, written as the recurrence is."""
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))  # [batch, heads, 1, width]
    decay, beta = decay[:, 0, :, None, None], beta[:, 0, :, None, None]
    state = state * decay.exp()
    state = state + key.transpose(-1, -2) @ (beta * (value - key @ state))
    return (query @ state).transpose(1, 2), state


def _by_chunks(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor | None,
    documents: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All tokens of a chunk at once: what they write is the solution of a triangular system, since each corrects what
    those before it have written (section 3.3 of the paper). Another document's tokens have factors of exactly 0."""
    batch, tokens, heads, width = key.shape
    size = min(CHUNK, tokens)
    rest = -tokens % size

    def cut(states: torch.Tensor) -> torch.Tensor:
        """[batch, tokens, heads, ...] to [batch, heads, chunks, size, ...]."""
        filled = nn.functional.pad(states, (0, 0) * (states.ndim - 2) + (0, rest)) if rest else states
        return filled.unflatten(1, (-1, size)).movedim(3, 1)

    query, key, value, decay, beta = (cut(each) for each in (query, key, value, decay, beta))
    is_seen = torch.ones(size, size, dtype=torch.bool, device=key.device).tril()
    if documents is None:
        total = decay.cumsum(-1)
        entering, leaving = total, total[..., -1:] - total
    else:
        ids = torch.cat((documents, documents[:, -1:].expand(-1, rest)), dim=1).view(batch, 1, -1, size)
        is_seen = is_seen & (ids[..., None] == ids[..., None, :])
        # sums over a token's own document only: those of another must not even be rounded with it
        total = (is_seen.to(decay.dtype) @ decay[..., None])[..., 0]
        before = nn.functional.pad(ids[:, :, :-1, -1:], (0, 0, 1, 0), value=-2)
        entering = total.masked_fill(ids != before, -torch.inf)
        leaving = (total[..., -1:] - total).masked_fill(ids != ids[..., -1:], -torch.inf)
    between = (total[..., :, None] - total[..., None, :]).masked_fill(~is_seen, -torch.inf).exp()
    entering, leaving = entering.exp(), leaving.exp()[..., None]
    kept, entering = entering[..., -1, None, None], entering[..., None]
    written = beta[..., None] * key
    known = torch.cat((beta[..., None] * value, entering * written), dim=-1)
    system = (written @ key.transpose(-1, -2)) * between
    solved = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
    new, read = solved.split((value.shape[-1], width), dim=-1)
    scores = (query @ key.transpose(-1, -2)) * between
    query, key = query * entering, (key * leaving).transpose(-1, -2)
    if state is None:
        state = value.new_zeros(batch, heads, width, value.shape[-1])
    mixed = []
    for chunk in range(value.shape[2]):
        fresh = new[:, :, chunk] - read[:, :, chunk] @ state
        mixed.append(query[:, :, chunk] @ state + scores[:, :, chunk] @ fresh)
        state = state * kept[:, :, chunk] + key[:, :, chunk] @ fresh
    return torch.cat(mixed, dim=2)[:, :, :tokens].transpose(1, 2), state


def _by_kernels(
    kernels: Any,
    inputs: tuple[torch.Tensor, ...],
    state: torch.Tensor | None,
    documents: torch.Tensor | None,
    needs_state: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    names, shape = ("q", "k", "v", "g", "beta"), inputs[0].shape[:2]
    given: dict[str, Any] = {"initial_state": state, "output_final_state": needs_state}
    if documents is not None:  # one long row, and where documents end
        begins = nn.functional.pad(documents.diff(dim=-1) != 0, (1, 0), value=True).flatten().nonzero().flatten()
        given["cu_seqlens"] = nn.functional.pad(begins, (0, 1), value=documents.numel())
        inputs = tuple(each.flatten(0, 1)[None] for each in inputs)
    is_step = shape[1] == 1 and state is not None and not torch.is_grad_enabled()
    compute = kernels.fused_recurrent_gated_delta_rule if is_step else kernels.chunk_gated_delta_rule
    given |= {name: each.contiguous() for name, each in zip(names, inputs)}
    mixed, state = compute(**given, use_qk_l2norm_in_kernel=True)
    return mixed if documents is None else mixed[0].unflatten(0, shape), state


class WeftShortConvolution(nn.Conv1d):
    """Each channel's weighted sum of its last few inputs, then SiLU."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, groups=channels, bias=False)

    def forward(
        self,
        states: torch.Tensor,
        before: torch.Tensor | None = None,
        is_token: torch.Tensor | None = None,
        documents: torch.Tensor | None = None,
        keeps_halves: tuple[int, ...] = (),
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Args:
            states: [batch, tokens, channels]; or, read from both ends, [2 x batch, tokens, channels / 2].
            before: [batch, kernel - 1, channels], the inputs before them; None: 0.
            is_token: bool [batch, tokens], False at padding, which is in front; None: there is none.
            documents: ids [batch, tokens]; nothing is seen of another document.
            keeps_halves: where the channels of several parts end, of which both directions have a half each.
        Returns: the same shape as states, and the last kernel - 1 inputs."""
        weight, past, tokens = self.weight[:, 0].to(states.dtype), self.kernel_size[0] - 1, states.shape[1]
        if keeps_halves:
            parts = [part.unflatten(0, (2, -1)) for part in weight.split(keeps_halves)]
            weight = torch.cat(parts, dim=1).repeat_interleave(len(states) // 2, dim=0)[:, None]  # [rows, 1, channels]
        if is_token is not None:
            states = states * is_token[..., None]
        before_all = states.new_zeros(len(states), past, states.shape[2]) if before is None else before
        inputs = torch.cat((before_all.to(states.dtype), states), dim=1)
        if before is not None and is_token is not None:  # what came before stands right before the first token
            padding = (tokens - is_token.sum(dim=1))[:, None]
            place = torch.arange(past + tokens, device=states.device)[None]
            place = torch.where(place < padding + past, (place - padding).clamp(min=0), place)
            inputs = inputs.gather(1, place[..., None].expand_as(inputs))
        ids = None if documents is None else nn.functional.pad(documents, (past, 0), value=-2)
        mixed = states * weight[..., past]
        for lag in range(1, past + 1):
            seen = inputs[:, past - lag : past - lag + tokens]
            if ids is not None:
                seen = seen * (ids[:, past - lag : past - lag + tokens] == documents)[..., None]
            mixed = torch.addcmul(mixed, seen, weight[..., past - lag])
        last = inputs[:, tokens:]
        if ids is not None:
            last = last * (ids[:, tokens:] == documents[:, -1:])[..., None]
        return nn.functional.silu(mixed), last


class WeftGatedRMSNorm(nn.Module):
    """RMSNorm of each head, times SiLU of a gate."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.width, self.eps = nn.Parameter(torch.ones(width)), width, eps

    def forward(self, states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """States and gate [..., width] to the same."""
        return nn.functional.rms_norm(states, (self.width,), self.weight, self.eps) * nn.functional.silu(gate)


class WeftLinearAttention(nn.Module):
    """Gated DeltaNet (https://huggingface.co/papers/2412.06464): short convolutions of queries, keys and values, the
    gated delta rule, and a gated norm of each head. It costs the same for each token however long the text is.

    Without a direction half of the heads read from the end, so that the same weights serve both. There are no
    positions: a token's place is in what the state has been through."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int, *_: Any) -> None:
        super().__init__()
        self.layer_idx, self.is_causal = layer_idx, config.is_causal
        self.key_heads, self.value_heads = config.linear_num_key_heads, config.linear_num_value_heads
        key_width = self.key_heads * config.linear_key_head_dim
        value_width = self.value_heads * config.linear_value_head_dim
        self.widths = (key_width, key_width, value_width)
        self.largest_beta = 2.0 if config.linear_allow_neg_eigval else 1.0
        self.q_proj = nn.Linear(config.hidden_size, key_width, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, value_width, bias=False)
        self.g_proj = nn.Linear(config.hidden_size, value_width, bias=False)
        self.b_proj = nn.Linear(config.hidden_size, self.value_heads, bias=False)
        self.a_proj = nn.Linear(config.hidden_size, self.value_heads, bias=False)
        self.conv1d = WeftShortConvolution(2 * key_width + value_width, config.linear_conv_kernel_dim)
        self.A_log = nn.Parameter(torch.zeros(self.value_heads))
        self.dt_bias = nn.Parameter(torch.zeros(self.value_heads))
        self.norm = WeftGatedRMSNorm(config.linear_value_head_dim, config.linear_norm_eps)
        self.o_proj = nn.Linear(value_width, config.hidden_size, bias=False)
        self.o_proj.writes_to_residual = True

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        sequences: Sequences | None = None,
        table: None = None,
        first_values: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        read_from: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None, torch.Tensor | None]:
        """Args:
            hidden_states: [batch, tokens, hidden_size].
            sequences: what `create_masks` says of padding, documents and directions.
            read_from: as in `WeftAttention.forward`; `is_causal` in kwargs overrides the config's.
        Returns: as `WeftAttention.forward`, first_values as they were given.
        Raises: ValueError for an odd number of key heads without a direction."""
        rows, both = sequences or Sequences(), not kwargs.get("is_causal", self.is_causal)
        if both and self.key_heads % 2:
            raise ValueError(
                f"linear_num_key_heads={self.key_heads} is odd, and without is_causal half of the heads read from the "
                "end: make it even."
            )
        states, is_token, documents = rows.read(hidden_states), rows.is_token, rows.documents
        parts = [multiply(each, states) for each in (self.q_proj, self.k_proj, self.v_proj)]
        rate = nn.functional.softplus(self._wide(multiply(self.a_proj, states)) + self._wide(self.dt_bias))
        decay = -self._wide(self.A_log).exp() * rate
        beta = self._wide(multiply(self.b_proj, states)).sigmoid() * self.largest_beta
        if is_token is not None:
            decay, beta = decay * is_token[..., None], beta * is_token[..., None]
        if both:
            *parts, decay, beta = (_halve(each, rows) for each in (*parts, decay, beta))
            is_token, documents = (
                None if each is None else _halve(each[..., None].expand(-1, -1, 2), rows)[..., 0]
                for each in (is_token, documents)
            )
        layer, before, state = state_layer(past_key_values, self.layer_idx), None, None
        kept = None if layer is None else layer.load()
        if kept is not None:
            before, state = kept
        mixed, inputs = self.conv1d(torch.cat(parts, -1), before, is_token, documents, self.widths if both else ())
        widths = [width // 2 if both else width for width in self.widths]
        query, key, value = mixed.split(widths, dim=-1)
        heads, key_heads = (number // 2 if both else number for number in (self.value_heads, self.key_heads))
        value = value.unflatten(-1, (heads, -1))
        query, key = (each.unflatten(-1, (key_heads, -1)) for each in (query, key))
        if heads != key_heads:
            query, key = (each.repeat_interleave(heads // key_heads, dim=2) for each in (query, key))
        rule = (query, key, value, decay, beta, state, documents)
        mixed, state = gated_delta_rule(*rule, needs_state=layer is not None)
        if layer is not None:
            layer.store((state,), inputs.clone(), states.shape[1])
        mixed = rows.put_back(_join(mixed, rows) if both else mixed)
        gate = multiply(self.g_proj, chosen(hidden_states, read_from))
        mixed = self.norm(chosen(mixed, read_from), gate.unflatten(-1, (self.value_heads, -1)))
        return multiply(self.o_proj, mixed.flatten(-2)), None, first_values

    @staticmethod
    def _wide(states: torch.Tensor) -> torch.Tensor:
        return states.to(torch.promote_types(states.dtype, torch.float32))


def _halve(states: torch.Tensor, rows: Sequences) -> torch.Tensor:
    """[batch, tokens, heads, ...] to [2 x batch, tokens, heads / 2, ...]: the first half of the heads, and the second
    as read from the end (not in `causal_rows`)."""
    ahead, back = states.chunk(2, dim=2)
    return torch.cat((ahead, _turned(back, rows)))


def _join(states: torch.Tensor, rows: Sequences) -> torch.Tensor:
    """The opposite."""
    ahead, back = states.chunk(2)
    return torch.cat((ahead, _turned(back, rows)), dim=2)


def _turned(states: torch.Tensor, rows: Sequences) -> torch.Tensor:
    if rows.causal_rows is None:
        return states.flip(1)
    return torch.where(rows.causal_rows.view(-1, *[1] * (states.ndim - 1)), states, states.flip(1))
