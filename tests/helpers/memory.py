"""How large the tensors are that operations make."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        found = [one.numel() for one in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(one)]
        self.numel = max(self.numel, *found, 0)
        return out
