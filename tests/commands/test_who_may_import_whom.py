"""The rooms of the house import downwards only, and never in a circle: what docs/architecture.md draws holds."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BELOW_ALL = {"modeling", "recipes/common"}
# Each room, and the rooms whose files it may import beside its own. Commands, benchmarks and tests stand on top of all.
ALLOWED = {
    "modeling": set(),
    "modeling/interop": {"modeling"},
    "tokenizer": set(),
    "recipes/metrics": {"recipes/common"},
    "recipes/common": {"modeling", "modeling/interop"},
    **dict.fromkeys(("recipes/generation", "recipes/training", "recipes/data"), BELOW_ALL | {"tokenizer"}),
    "recipes/conversion": BELOW_ALL | {"tokenizer", "modeling/interop", "recipes/training"},
}
ALLOWED["recipes/searching"] = BELOW_ALL | {"tokenizer", "recipes/data"}
ALLOWED["recipes/classical"] = BELOW_ALL | {"tokenizer", "recipes/data", "recipes/metrics"}
LOWER = BELOW_ALL | {"tokenizer", "recipes/data", "recipes/training", "recipes/generation", "recipes/metrics"}
LOWER |= {"recipes/classical"}
ALLOWED |= dict.fromkeys(("recipes/pretraining", "recipes/finetuning", "recipes/evaluation"), LOWER)
PACKAGES = {"weft": "modeling", "weft.recipes": "recipes", "weft.tokenizer": "tokenizer"}


def module_of(path: Path) -> str:
    top, *rest = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join([next(package for package, folder in PACKAGES.items() if folder == top), *rest])
    return name.removesuffix(".__init__")


FILES = {module_of(path): path for folder in PACKAGES.values() for path in (ROOT / folder).rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """The project's modules that a file imports anywhere in it, inside of functions too."""
    found = set()
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([package, node.module or ""]).rstrip(".") if node.level else node.module
            found |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    found = {name if name in FILES else name.rpartition(".")[0] for name in found}
    return (found & FILES.keys()) - {module}


def room_of(path: Path) -> str:
    """The innermost room of the rule that a file stands in; its own folder where the rule names none."""
    folder = path.parent.relative_to(ROOT)
    return next((str(place) for place in (folder, *folder.parents) if str(place) in ALLOWED), str(folder))


def test_no_room_imports_one_beside_or_above_it() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {FILES[name].relative_to(ROOT)}"
        for path in FILES.values()
        if (room := room_of(path)) in ALLOWED
        for name in imports_of(path)
        if room_of(FILES[name]) not in ALLOWED[room] | {room}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_file_imports_itself_over_others() -> None:
    graph = {name: imports_of(path) for name, path in FILES.items() if path.name != "__init__.py"}
    free: set[str] = set()
    while ready := {name for name, needed in graph.items() if name not in free and not (needed & graph.keys()) - free}:
        free |= ready
    assert not graph.keys() - free, f"a circle among {sorted(graph.keys() - free)}"


def test_no_folder_of_recipes_hides_a_library() -> None:
    """Launching a script puts recipes/ first on sys.path."""
    from importlib.metadata import packages_distributions

    names = {path.stem for path in (ROOT / "recipes").iterdir()}
    assert not names & packages_distributions().keys()
