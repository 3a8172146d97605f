"""Tables of a model card."""

from typing import Any


def table(rows: dict[str, Any]) -> str:
    """Names and values as a Markdown table."""
    cells = [(name, str(value).replace("|", "\\|").replace("\n", " ")) for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells)])
