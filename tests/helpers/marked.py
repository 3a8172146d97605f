"""A part of a document that a script writes, between two marks."""

from pathlib import Path


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->\n", f"<!-- end of {name} -->"


def read_marked(path: Path, name: str) -> str:
    """The text between the marks; SystemExit where a mark is missing."""
    begin, end = _marks(name)
    _, _, rest = path.read_text(encoding="utf-8").partition(begin)
    inside, found, _ = rest.partition(end)
    if not found:
        raise SystemExit(f"{path} has no place for the table: write {begin.strip()} and {end} where it belongs.")
    return inside.strip("\n")


def write_marked(path: Path, name: str, inside: str) -> None:
    """Put a text in place of what stands between the marks; SystemExit where a mark is missing."""
    read_marked(path, name)
    begin, end = _marks(name)
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    behind = rest.partition(end)[2]
    path.write_text(f"{before}{begin}\n{inside.strip()}\n\n{end}{behind}", encoding="utf-8")
    print(f"written: {path}")
