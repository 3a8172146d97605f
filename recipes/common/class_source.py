"""Fields of WeftConfig and TrainingArguments, read from their source: importing the classes takes seconds of torch."""

import ast
import builtins
import dataclasses
import enum
import functools
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

import weft

CONFIG = Path(weft.__file__).with_name("configuration_weft.py")
TRAINER = Path(transformers.__file__).with_name("training_args.py")
NAMED_BY_TRAINER = (TRAINER, TRAINER.with_name("trainer_utils.py"), TRAINER.with_name("debug_utils.py"))


@functools.cache
def config_fields() -> dict[str, Any]:
    """The fields of WeftConfig and their types."""
    return {name: _value_of(node.annotation, {}) for name, node in _fields_of(CONFIG, "WeftConfig")}


def config_texts() -> dict[str, str]:
    """What WeftConfig's docstring says of each field: an entry about several has a part for each, or one for all."""
    texts: dict[str, str] = {}
    documentation = ast.get_docstring(_find(CONFIG, "WeftConfig"), clean=False) or ""
    for names, text in re.findall(r"^ +(\w+(?:, \w+)*): (.*?)(?=^ +\w+(?:, \w+)*: |\Z)", documentation, re.M | re.S):
        each, whole = names.split(", "), " ".join(text.split())
        parts = whole.rstrip(".").split("; ")
        texts |= zip(each, parts if len(parts) == len(each) else [whole] * len(each))
    return texts


def trainer_arguments(heading: str) -> type:
    """A dataclass with the fields of TrainingArguments, and nothing of what it does with them."""
    namespace = {"_argument_group_name": heading}
    try:
        names = _Names(vars(builtins) | vars(typing) | vars(dataclasses))
        found = list(_fields_of(TRAINER, "TrainingArguments"))
        fields = [(name, _value_of(node.annotation, names), _value_of(node.value, names)) for name, node in found]
        return dataclasses.make_dataclass("TrainerArguments", fields, namespace=namespace)
    except Exception:  # a version of transformers that is written otherwise is imported, however long that takes
        return type("TrainerArguments", (transformers.TrainingArguments,), namespace)


class _Names(dict[str, Any]):
    """What the source names; a type that is neither an enumeration nor Python's passes for a string."""

    def __missing__(self, name: str) -> Any:
        node = next((node for path in NAMED_BY_TRAINER if (node := _find(path, name)) is not None), None)
        if isinstance(node, ast.ClassDef):
            members = {each.targets[0].id: each.value.value for each in node.body if isinstance(each, ast.Assign)}
            self[name] = enum.Enum(name, members, type=str)
        elif isinstance(node, ast.Assign):
            self[name] = _value_of(node.value, self)
        else:
            self[name] = getattr(transformers.utils, name, str)
        return self[name]


def _fields_of(path: Path, name: str) -> Iterator[tuple[str, ast.AnnAssign]]:
    return ((node.target.id, node) for node in _find(path, name).body if isinstance(node, ast.AnnAssign))


def _find(path: Path, name: str) -> ast.ClassDef | ast.Assign | None:
    """The class or value of this name in a file."""
    for node in _statements_of(path):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return node
    return None


@functools.cache
def _statements_of(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def _value_of(node: ast.expr | None, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<fields>", "eval"), {}, names)
