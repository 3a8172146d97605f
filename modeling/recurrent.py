"""Recurrent networks: LSTM, GRU and Elman's network as layers, alone or between layers of attention."""

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig

from .attention import chosen
from .products import multiply
from .sequences import Sequences
from .state_cache import state_layer

# recurrent_cell -> PyTorch's kernel, how many matrices lie in one, and how many states it has
CELLS = {"lstm": (torch.lstm, 4, 2), "gru": (torch.gru, 3, 1), "rnn": (torch.rnn_tanh, 1, 1)}


class WeftCell(nn.Module):
    """One layer of `nn.LSTM`, `nn.GRU` or `nn.RNN` by their kernels, with their parameters' names. It is none of these
    modules since PyTorch compiles none of them: in a compiled graph the steps are written out."""

    def __init__(self, kind: str, inputs: int, width: int, both: bool) -> None:
        """`width` is that of each direction, and `both`: whether there is one from the end too."""
        super().__init__()
        self.kind, self.width, self.both = kind, width, both
        _, self.gates, self.states = CELLS[kind]
        shapes = {"weight_ih": (inputs,), "weight_hh": (width,), "bias_ih": (), "bias_hh": ()}
        for end in ("", "_reverse")[: 1 + both]:
            for name, shape in shapes.items():
                self.register_parameter(f"{name}_l0{end}", nn.Parameter(torch.zeros(self.gates * width, *shape)))

    def forward(
        self, inputs: torch.Tensor, states: list[torch.Tensor] | None, rows: Sequences
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Args:
            inputs: [batch, tokens, width of the inputs].
            states: of earlier tokens, each [batch, width]; None: 0.
            rows: padding and documents.
        Returns: [batch, tokens, width, or of both directions 2 width], and the states behind the last token, each
            [batch, width]. Half precision is accumulated in float32."""
        dtype = inputs.dtype
        wide = torch.promote_types(torch.promote_types(dtype, self.weight_hh_l0.dtype), torch.float32)
        inputs, weights = inputs.to(wide), [each.to(wide) for each in self.parameters()]
        if states is None:
            states = [inputs.new_zeros(len(inputs), self.width) for _ in range(self.states)]
        states = [each.to(wide) for each in states]
        with torch.autocast(inputs.device.type, enabled=False):
            if torch.compiler.is_compiling():
                mixed, states = self._unrolled(inputs, weights, states, rows)
            else:
                mixed, states = self._by_kernel(inputs, weights, states, rows)
        return mixed.to(dtype), states

    def _by_kernel(
        self, inputs: torch.Tensor, weights: list[torch.Tensor], states: list[torch.Tensor], rows: Sequences
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        kernel, packing, directions = CELLS[self.kind][0], rows.packing, 1 + self.both
        options = (weights, True, 1, 0.0, self.training, self.both)
        if packing is None:
            mixed, *last = kernel(inputs, self._pair(states), *options, True)
            return mixed, [each[0] for each in last]
        mixed = inputs.new_zeros(inputs.shape[:2].numel(), directions * self.width)
        if packing.batch_sizes:
            begin = [each.index_select(0, packing.rows) for each in states]
            lengths = torch.tensor(packing.batch_sizes)
            packed, *last = kernel(inputs.flatten(0, 1)[packing.order], lengths, self._pair(begin), *options)
            mixed = mixed.index_copy(0, packing.order, packed)
            is_empty = (packing.last < 0)[:, None]
            states = [old.where(is_empty, new[0][packing.last.clamp(min=0)]) for old, new in zip(states, last)]
        return mixed.unflatten(0, inputs.shape[:2]), states

    def _pair(self, states: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """The states as the kernel wants them: [directions, batch, width]."""
        given = [each.expand(1 + self.both, *each.shape).contiguous() for each in states]
        return given if self.kind == "lstm" else given[0]

    def _unrolled(
        self, inputs: torch.Tensor, weights: list[torch.Tensor], states: list[torch.Tensor], rows: Sequences
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The same step by step."""
        inputs, is_token, documents = rows.read(inputs), rows.is_token, rows.documents
        mixed, ends = [], []
        for direction in range(1 + self.both):
            to_state, between, *biases = weights[4 * direction : 4 * direction + 4]
            given, now, outputs = nn.functional.linear(inputs, to_state, biases[0]), states, []
            places = range(inputs.shape[1])
            for place in reversed(places) if direction else places:
                neighbour = place + (1 if direction else -1)
                if documents is not None and neighbour in places:
                    goes_on = (documents[:, place] == documents[:, neighbour])[:, None]
                    now = [each * goes_on for each in now]
                new = self._step(given[:, place], nn.functional.linear(now[0], between, biases[1]), now)
                if is_token is not None:
                    new = [each.where(is_token[:, place, None], old) for each, old in zip(new, now)]
                now = new
                outputs.append(now[0])
            mixed.append(torch.stack(outputs[::-1] if direction else outputs, dim=1))
            ends.append(now)
        return rows.put_back(torch.cat(mixed, dim=-1)), ends[0]

    def _step(self, given: torch.Tensor, known: torch.Tensor, now: list[torch.Tensor]) -> list[torch.Tensor]:
        """The next states, of what the token and the last state give to each gate [batch, gates x width]."""
        if self.kind == "rnn":
            return [torch.tanh(given + known)]
        if self.kind == "gru":
            (reset, keep, new), (reset_by, keep_by, new_by) = given.chunk(3, -1), known.chunk(3, -1)
            keep = torch.sigmoid(keep + keep_by)
            new = torch.tanh(new + torch.sigmoid(reset + reset_by) * new_by)
            return [keep * now[0] + (1 - keep) * new]
        write, keep, new, show = (given + known).chunk(4, -1)
        cell = keep.sigmoid() * now[1] + write.sigmoid() * new.tanh()
        return [show.sigmoid() * cell.tanh(), cell]


class WeftRecurrent(nn.Module):
    """A recurrent network, LSTM, GRU (https://huggingface.co/papers/1406.1078) or Elman's, and a map of its state to
    the residual stream. Without a direction there are two, each half as wide, one of which reads from the end: the
    weights belong to the direction that they were made for."""

    def __init__(self, config: PreTrainedConfig, layer_idx: int, *_: Any) -> None:
        super().__init__()
        self.layer_idx, self.is_causal, both = layer_idx, config.is_causal, not config.is_causal
        width = config.recurrent_hidden_size
        self.rnn = WeftCell(config.recurrent_cell, config.hidden_size, width // 2 if both else width, both)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)
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
        """As `WeftLinearAttention.forward`. Raises: ValueError for another direction than that of the weights."""
        if kwargs.get("is_causal", self.is_causal) != self.is_causal:
            raise ValueError(refuse_direction(self.is_causal))
        layer = state_layer(past_key_values, self.layer_idx)
        before = None if layer is None else layer.load()
        mixed, states = self.rnn(hidden_states, before, sequences or Sequences())
        if layer is not None:
            layer.store(states, tokens=hidden_states.shape[1])
        return multiply(self.o_proj, chosen(mixed, read_from)), None, first_values


def refuse_direction(is_causal: bool) -> str:
    """The sentence for a recurrent network that is to read in another direction than it was made for."""
    return (
        f"recurrent layers read one way only, and these were made with is_causal={is_causal}: give a config with "
        f"is_causal={not is_causal}, whose weights are others."
    )
