"""How tensors of other families correspond to Weft's: names, and how several are laid out in one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from weft import WeftConfig

Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """How Weft tensors lie in one stock tensor.

    Attributes:
        join: from Weft's tensors to the stock one.
        split: the opposite, given the shapes of Weft's.
    """

    join: Callable[[Tensors, WeftConfig], torch.Tensor]
    split: Callable[[torch.Tensor, list[torch.Size], WeftConfig], Tensors]


def _join_rows(parts: Tensors, _: WeftConfig) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _split_rows(whole: torch.Tensor, shapes: list[torch.Size], _: WeftConfig) -> Tensors:
    return list(whole.split([shape[0] for shape in shapes]))


def _join_columns(parts: Tensors, config: WeftConfig) -> torch.Tensor:
    return _transposed(_join_rows(parts, config))


def _split_columns(whole: torch.Tensor, shapes: list[torch.Size], config: WeftConfig) -> Tensors:
    return _split_rows(_transposed(whole), shapes, config)


def _transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.t() if tensor.ndim == 2 else tensor  # a bias has one dimension


def _by_head(number: str) -> Layout:
    """Rows of the first head of each tensor, then of the second; `number`: the field that says how many there are."""

    def join(parts: Tensors, config: WeftConfig) -> torch.Tensor:
        return torch.cat([part.unflatten(0, (getattr(config, number), -1)) for part in parts], dim=1).flatten(0, 1)

    def split(whole: torch.Tensor, shapes: list[torch.Size], config: WeftConfig) -> Tensors:
        heads = getattr(config, number)
        by_head = whole.unflatten(0, (heads, -1)).split([shape[0] // heads for shape in shapes], dim=1)
        return [part.flatten(0, 1) for part in by_head]

    return Layout(join, split)


# One below the other, as nn.Linear maps that are fused; also what one tensor alone is.
ROWS = Layout(_join_rows, _split_rows)
# The same transposed (GPT-2's Conv1D).
COLUMNS = Layout(_join_columns, _split_columns)
# Query, key and value of the first head, then of the second ... (BLOOM, GPT-NeoX); of the first key head (Qwen3-Next).
BY_HEAD, BY_KEY_HEAD = _by_head("num_attention_heads"), _by_head("linear_num_key_heads")
# A vector that is stored as a matrix of one row.
ONE_ROW = Layout(lambda parts, _: parts[0][None], lambda whole, *_: [whole[0]])


@dataclass(frozen=True)
class Weight:
    """A stock tensor and the Weft tensors in it. Names may hold {i}, the number of a layer. Several entries may name
    the same Weft tensor, which the stock model then has several times (tied)."""

    stock: str
    weft: tuple[str, ...]
    layout: Layout = ROWS


# Query, key and value of a layer, which many families keep in one tensor.
QKV = tuple(f"layers.{{i}}.self_attn.{name}_proj" for name in "qkv")


def module(stock: str, weft: str | Sequence[str] | None = None, layout: Layout = ROWS) -> list[Weight]:
    """Weight and bias of a module, as far as both models have them.

    Args:
        weft: the names of the Weft modules in it; None: the same name.
    """
    names = (stock,) if weft is None else (weft,) if isinstance(weft, str) else tuple(weft)
    return [Weight(f"{stock}.{kind}", tuple(f"{name}.{kind}" for name in names), layout) for kind in ("weight", "bias")]


def modules(*names: str) -> list[Weight]:
    """Modules that have the same name in both."""
    return [weight for name in names for weight in module(name)]


def prefixed(weights: Iterable[Weight], stock: str, weft: str) -> list[Weight]:
    """The same weights inside of modules with these names (with their dots)."""
    return [Weight(stock + each.stock, tuple(weft + name for name in each.weft), each.layout) for each in weights]


def with_layers(weights: Iterable[Weight], layers: int) -> list[Weight]:
    """Every entry with {i} once for each of so many layers."""
    entries = []
    for each in weights:
        for i in range(layers if "{i}" in each.stock else 1):
            number = str(i)
            names = tuple(name.replace("{i}", number) for name in each.weft)
            entries.append(Weight(each.stock.replace("{i}", number), names, each.layout))
    return entries
