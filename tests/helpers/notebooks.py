"""Run the notebooks of `examples/`, and keep of their outputs what does not depend on the machine."""

import base64
import io
import os
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COLOURS = 128  # of a picture: plots need few, and take half of the space
SPEEDS = re.compile(r" \| ([\d,]+ (tokens|examples)/s|MFU [\d.]+%|after [\d,]+ s)")


def run(path: Path, folder: Path, settings: dict[str, int] | None = None) -> NotebookNode:
    """A notebook with its outputs, run from top to bottom without a network and with one thread.

    Args:
        folder: where its kernel starts, and makes temporary files.
        settings: numbers to put in the place of those in its first code cell.
    """
    notebook = nbformat.read(path, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for name, value in (settings or {}).items():
        first.source, found = re.subn(rf"(?m)^{name} = \d+", f"{name} = {value}", first.source)
        assert found == 1, f"{path.name} has no setting {name}"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, resources=place, record_timing=False, coalesce_streams=True)
    client.execute(env=environment)
    return notebook


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Drop from a notebook warnings, speeds and metadata, and make its pictures small."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                _tidy_output(output)
    return notebook


def _tidy_output(output: NotebookNode) -> None:
    if "metadata" in output:
        output.metadata = NotebookNode({name: output.metadata[name] for name in output.metadata if name == "image/png"})
    if "text" in output:
        output.text = SPEEDS.sub("", output.text)
    if "image/png" in output.get("data", {}):
        picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        if picture.mode != "P":
            smaller = io.BytesIO()
            picture.convert("RGB").quantize(COLOURS).save(smaller, "PNG", optimize=True)
            output.data["image/png"] = base64.b64encode(smaller.getvalue()).decode()
