"""The command that writes, for the tests of this room."""

from collections.abc import Callable
from typing import Any

import pytest

from weft.recipes import generate


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `generate.py` prints, called with some words."""

    def call(*words: Any) -> str:
        monkeypatch.setattr("sys.argv", ["generate.py", *map(str, words)])
        capsys.readouterr()
        generate.main()
        return capsys.readouterr().out

    return call
