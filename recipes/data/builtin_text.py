"""English text that every Python carries, so that the recipes have something to learn from without a network."""

import ast
import functools
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

_SELF = re.compile(r"^(self|cls)(, |$)")
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
    for module, tree in _modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node)
                if docstring:
                    yield module, docstring


@dataclass(frozen=True)
class Definition:
    """A module, class, function or method of the standard library that has a docstring.

    Attributes:
        kind: "module", "class", "function" or "method".
        name: dotted, from the top-level module on.
        call: how it is called, such as "dedent(text)"; None for modules and classes.
    """

    kind: str
    name: str
    docstring: str
    call: str | None = None


@functools.cache
def embedded_definitions() -> tuple[Definition, ...]:
    """Return what the standard library defines and describes, but for names that begin with an underscore."""
    return tuple(
        each
        for module, tree in _modules()
        for each in _definitions("module", module, tree)
        if not any(part.startswith("_") for part in each.name.split("."))
    )


def _definitions(kind: str, name: str, node: ast.AST) -> Iterator[Definition]:
    docstring = ast.get_docstring(node)
    if docstring:
        yield Definition(kind, name, docstring, _call(node) if kind in ("function", "method") else None)
    if kind in ("function", "method"):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _definitions("class", f"{name}.{child.name}", child)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _definitions("method" if kind == "class" else "function", f"{name}.{child.name}", child)


def _call(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """How a function is called: without what a method gets by itself."""
    return f"{node.name}({_SELF.sub('', ast.unparse(node.args))})"


def _modules() -> Iterator[tuple[str, ast.Module]]:
    """The modules of the standard library by their dotted names, parsed; tests and installed packages are left out."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if {"site-packages", "dist-packages", "test", "tests"} & set(parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates and deliberately broken samples
        yield ".".join(parts).removesuffix(".py").removesuffix(".__init__"), tree
