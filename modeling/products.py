"""Products of a few rows with a matrix, as decoding multiplies them on a processor."""

import torch
from torch import nn
from transformers.utils import is_tracing

SMALL_MATRIX = 100_000  # numbers, below which choosing takes longer than it saves
PARTS = 16  # of the matrix that one row is multiplied with
FEW_ROWS, FEW_NUMBERS = 8, 3072  # up to so many rows, of so many numbers together, are multiplied as columns
# oneDNN is faster than MKL with so large a matrix, until the rows are many
LARGE_MATRIX, MANY_ROWS = 1_500_000, 256


class WeftLinear(nn.Linear):
    """`nn.Linear` that, without gradients, multiplies a few rows of float32 on a processor another way: chosen by shape
    alone, nothing is stored, and the numbers are the same but for rounding.

    MKL takes as long for one row as for four. One row is 1.3 to 3 times as fast in a batch of products with parts of
    the matrix, two to eight are 1.2 to 5 times as fast as columns; beyond, oneDNN multiplies with large matrices 1.2 to
    2 times as fast (RESULTS.md, section 24). Half precision gains nothing."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features]."""
        is_small = self.in_features * self.out_features < SMALL_MATRIX
        if is_small or torch.is_grad_enabled() or not self._may_choose(states):
            return super().forward(states)
        flat = states.reshape(-1, self.in_features)
        rows = flat.shape[0]
        if rows == 1 and self.out_features >= PARTS:
            product = self._multiply_one(flat)
        elif 1 < rows <= FEW_ROWS and flat.numel() <= FEW_NUMBERS:
            product = (self.weight @ flat.t()).t()
        elif 2 < rows <= MANY_ROWS and self.weight.numel() >= LARGE_MATRIX and torch.backends.mkldnn.is_available():
            product = nn.functional.linear(flat.to_mkldnn(), self.weight).to_dense()
        else:
            return super().forward(states)
        product = product if self.bias is None else product + self.bias
        return product.reshape(*states.shape[:-1], self.out_features)

    def _may_choose(self, states: torch.Tensor) -> bool:
        """Whether weights and states are plain float32 on a processor that MKL computes on, and no graph is made."""
        weight = self.weight
        if type(weight) is not nn.Parameter or not weight.is_cpu or not weight.is_contiguous():
            return False
        if weight.dtype != torch.float32 or states.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return False
        return torch.backends.mkl.is_available() and not is_tracing(states)

    def _multiply_one(self, row: torch.Tensor) -> torch.Tensor:
        outputs, inputs = self.weight.shape
        whole = outputs // PARTS * PARTS
        parts = self.weight[:whole].view(PARTS, -1, inputs)
        product = torch.bmm(parts, row.t().expand(PARTS, inputs, 1)).view(1, whole)
        if whole == outputs:
            return product
        return torch.cat((product, nn.functional.linear(row, self.weight[whole:])), dim=1)
