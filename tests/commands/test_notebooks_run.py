"""The notebooks of `examples/` run from top to bottom, and show in the repository what they print."""

import copy
import re
from pathlib import Path

import nbformat
import pytest
from helpers.notebooks import NOTEBOOKS, run, tidy
from nbformat import NotebookNode

SMALL = {
    "pretrain_and_use": {"STEPS": 10, "VOCABULARY": 300, "NEW_TOKENS": 5},
    "finetune_and_look_at_mistakes": {"STEPS": 4, "VOCABULARY": 300},
}
EXPECTED = {
    "pretrain_and_use": {"curve": "image/png", "next": "image/png", "tokens": "image/png"},
    "finetune_and_look_at_mistakes": {"confusion": "image/png", "mistakes": "text/html", "calibration": "image/png"},
}
PLACES = re.compile(r"/(tmp|home|root|Users|var)/|[A-Z]:\\")
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def printed(notebook: NotebookNode, cell: str) -> str:
    """The text that a cell has printed."""
    outputs = next(found.outputs for found in notebook.cells if found.id == cell)
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


@notebooks
def test_a_notebook_runs_and_writes_nothing_beside_itself(path: Path, tmp_path: Path) -> None:
    before = set(path.parent.rglob("*"))
    notebook = run(path, tmp_path, SMALL[path.stem])
    assert set(path.parent.rglob("*")) == before
    assert not re.search(r"<progress|%\|", nbformat.writes(notebook)), "a bar or a table of progress"
    shown = {
        cell.id: {task for output in cell.get("outputs", []) for task in output.get("data", {})}
        for cell in notebook.cells
    }
    for cell, task in EXPECTED[path.stem].items():
        assert task in shown[cell], cell
    if path.stem == "pretrain_and_use":
        by_hand = re.search(r"bits per byte ([\d.]+)", printed(notebook, "bits")).group(1)
        assert re.search(rf"bits_per_byte +{by_hand}", printed(notebook, "evaluate"))


@notebooks
def test_outputs_in_the_repository_are_whole_and_tidy(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert tidy(copy.deepcopy(notebook)) == notebook, "write them with tests/write_notebook_outputs.py"
    assert not PLACES.search(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 200_000
