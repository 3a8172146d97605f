"""English text that every Python carries, so that the recipes have something to learn from without a network."""

import ast
import functools
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

TITLE = "the language reference and the docstrings of Python's standard library"


@functools.cache
def embedded_documents() -> tuple[str, ...]:
    """Return the language reference's topics, then the docstrings of the standard library, one document each.

    The modules are parsed, never imported. Tests and installed packages are left out.
    """
    return tuple(_find_documents())


@functools.cache
def embedded_docstrings() -> tuple[tuple[str, str], ...]:
    """Return the docstrings of the standard library, each after the dotted name of its module."""
    return tuple(_find_docstrings())


def _find_documents() -> Iterator[str]:
    yield from (topics[name] for name in sorted(topics))
    yield from (docstring for _, docstring in embedded_docstrings())


def _find_docstrings() -> Iterator[tuple[str, str]]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if {"site-packages", "dist-packages", "test", "tests"} & set(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and deliberately broken samples
        module = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield module, docstring
