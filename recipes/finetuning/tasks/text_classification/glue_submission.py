"""The files that the GLUE benchmark (https://gluebenchmark.com) takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.recipes.common.files import write_text

LOWEST, HIGHEST = 0.0, 5.0  # of STS-B


def write_glue_submission(
    path: Path, indices: Sequence[str], predicted: Sequence[Any], official: Sequence[str] | None
) -> None:
    """Write a TSV file with the columns index and prediction.

    Args:
        path: such as SST-2.tsv.
        indices: of the examples in the official test set.
        predicted: names of labels, or numbers, which are clipped to STS-B's range from 0 to 5.
        official: the names in the order of the class numbers where GLUE takes numbers; None where it takes names.
    """
    rows = ["index\tprediction"]
    for index, value in zip(indices, predicted, strict=True):
        if isinstance(value, float):
            text = f"{min(max(value, LOWEST), HIGHEST):.3f}"
        else:
            text = str(official.index(value)) if official is not None else value
        rows.append(f"{index}\t{text}")
    write_text(path, "\n".join(rows) + "\n")
