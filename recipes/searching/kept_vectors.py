"""Vectors that a build has made, kept until its index is whole: after a stop the same command goes on with them.

texts     the hash of each text, 16 bytes
vectors   its vector in float32, which is written before the hash
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from weft.recipes.searching.stamps import Stamp

NAME, HASH = "vectors-{}.partial", 16
AT_ONCE = 256  # texts, after which their vectors are written


def forget_kept(index: Path) -> None:
    """Remove what is kept, of any model."""
    for folder in index.glob(NAME.format("*")):
        shutil.rmtree(folder, ignore_errors=True)


class KeptVectors:
    """Vectors by their texts, of one model."""

    def __init__(self, index: Path, model: dict[str, Stamp], size: int) -> None:
        """Open what is there, without a last part that was not written whole, or begin anew.

        Args:
            index: the folder of the index that is built.
            model: stamps of the model's files.
            size: of a vector.
        """
        told = "".join(stamp[2] for stamp in model.values())
        folder = index / NAME.format(hashlib.sha256(told.encode()).hexdigest()[:HASH])
        self.size, self.texts, self.vectors = size, folder / "texts", folder / "vectors"
        widths = {file: width for file, width in ((self.texts, HASH), (self.vectors, 4 * size)) if file.is_file()}
        whole = min(file.stat().st_size // width for file, width in widths.items()) if len(widths) == 2 else 0
        for file, width in widths.items():
            os.truncate(file, whole * width)
        hashes = self.texts.read_bytes() if whole else b""
        self.rows = {hashes[row * HASH : (row + 1) * HASH]: row for row in range(whole)}

    def of(self, texts: Sequence[str], embed: Callable[[list[str]], np.ndarray]) -> np.ndarray:
        """The vectors of texts [texts, size] float32; those that are not there are made by `embed`, and kept."""
        keys = [hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=HASH).digest() for text in texts]
        new = {key: text for key, text in zip(keys, texts) if key not in self.rows}
        self.texts.parent.mkdir(exist_ok=True)
        in_order = sorted(new, key=lambda key: len(new[key]))  # so that texts of like length are embedded together
        for first in range(0, len(in_order), AT_ONCE):
            some = in_order[first : first + AT_ONCE]
            for file, content in (
                (self.vectors, embed([new[key] for key in some]).astype(np.float32).tobytes()),
                (self.texts, b"".join(some)),
            ):
                with file.open("ab") as handle:
                    handle.write(content)
            self.rows |= {key: row for row, key in enumerate(some, start=len(self.rows))}
        vectors = np.memmap(self.vectors, np.float32, "r", shape=(len(self.rows), self.size))
        return vectors[[self.rows[key] for key in keys]]
