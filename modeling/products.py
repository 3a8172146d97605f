"""Products of a few rows with a matrix, as decoding multiplies them on a processor."""

import torch
from torch import nn
from torch.nn.modules import module as of_all_modules

HAS_MKL = torch.backends.mkl.is_available()
SMALL_MATRIX = 100_000  # numbers, below which choosing takes longer than it saves
PARTS = 16  # of the matrix that one row is multiplied with
FEW_ROWS, FEW_NUMBERS = 8, 3072  # up to so many rows, of so many numbers together, are multiplied as columns
# oneDNN is faster than MKL with so large a matrix, until the rows are many
LARGE_MATRIX, MANY_ROWS = 1_500_000, 256


def multiply(linear: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """`linear(states)`, [..., in_features] to [..., out_features]. Without gradients, a plain `nn.Linear` multiplies a
    few rows of float32 on a processor another way, in compiled graphs too: chosen by shape alone, nothing is stored,
    and the numbers are the same but for rounding. The maps are plain since quantisers and other tools look for exactly
    that class.

    MKL takes as long for one row as for four. One row is 1.4 to 2.3 times as fast in a batch of products with parts of
    the matrix. Two to eight are 1.2 to 5 times as fast as columns. Beyond, oneDNN multiplies with large matrices 1.15
    to 2.4 times as fast (RESULTS.md, section 29). Half precision gains nothing."""
    # a token takes tens of these calls, so that each question counts: the rarest answers first
    if torch.is_grad_enabled() or type(linear) is not nn.Linear:
        return linear(states)
    weight, inputs, outputs = linear.weight, linear.in_features, linear.out_features
    if inputs * outputs < SMALL_MATRIX or not (_is_plain(linear) and _may_choose(weight, states)):
        return linear(states)
    rows = states.numel() // inputs
    if torch.compiler.is_compiling() and (torch.compiler.is_exporting() or rows > FEW_ROWS):
        return linear(states)  # an exported graph is for other processors too
    if rows == 1 and outputs >= PARTS:
        product = _multiply_one(states.reshape(1, inputs), weight)
    elif 1 < rows <= FEW_ROWS and rows * inputs <= FEW_NUMBERS:
        product = (weight @ states.reshape(rows, inputs).t()).t()
    elif 2 < rows <= MANY_ROWS and weight.numel() >= LARGE_MATRIX and torch.backends.mkldnn.is_available():
        product = nn.functional.linear(states.reshape(rows, inputs).to_mkldnn(), weight).to_dense()
    else:
        return linear(states)
    product = product.reshape(*states.shape[:-1], outputs)
    return product if linear.bias is None else product + linear.bias


def _is_plain(linear: nn.Linear) -> bool:
    """Whether nobody waits for a call of it, or has put another `forward` in its place."""
    hooks = linear._forward_hooks or linear._forward_pre_hooks
    hooks = hooks or of_all_modules._global_forward_hooks or of_all_modules._global_forward_pre_hooks
    return not hooks and "forward" not in vars(linear)


def _may_choose(weight: torch.Tensor, states: torch.Tensor) -> bool:
    """Whether both are plain float32 on a processor that MKL computes on, and nothing records what is computed."""
    is_plain = type(weight) is nn.Parameter and type(states) is torch.Tensor and weight.is_cpu and HAS_MKL
    if not is_plain or weight.dtype != torch.float32 or states.dtype != torch.float32 or not weight.is_contiguous():
        return False
    return not (torch.is_autocast_enabled("cpu") or torch.jit.is_tracing())


def _multiply_one(row: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A row [1, inputs] times the matrix [outputs, inputs] in PARTS parts, and by itself with what these leave."""
    outputs, inputs = weight.shape
    whole = outputs // PARTS * PARTS
    parts = weight if whole == outputs else weight[:whole]
    product = torch.bmm(parts.view(PARTS, -1, inputs), row.t().expand(PARTS, inputs, 1))
    if whole == outputs:
        return product
    return torch.cat((product.view(1, whole), nn.functional.linear(row, weight[whole:])), dim=1)
