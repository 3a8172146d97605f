"""Run the notebooks of `examples/` and write their outputs into them.

python tests/write_notebook_outputs.py
"""

import tempfile
from pathlib import Path

import nbformat
from helpers.notebooks import NOTEBOOKS, run, tidy


def main() -> None:
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(tidy(run(path, Path(folder))), path)


if __name__ == "__main__":
    main()
