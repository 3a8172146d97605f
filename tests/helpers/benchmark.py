"""The benchmark run in this process on a small shape."""

from typing import Any

import pytest

from weft.recipes import benchmark

SMALL = {"num_layers": 1, "width": 64, "vocab_size": 200, "length": 16, "batch_size": 2, "cpu_threads": 1}


def run(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Give benchmark.py these fields, a list of several words for one that takes several, and SMALL."""
    words = []
    for name, value in {**SMALL, **fields}.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *words])
    benchmark.main()
