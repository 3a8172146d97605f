"""Fields of the dataclasses that a command's words fill."""

from dataclasses import field
from typing import Any


def option(default: Any, help: str) -> Any:
    """A field with its default, of which each instance gets a list of its own, and its line of `--help`."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": help})
    return field(default=default, metadata={"help": help})
