"""Near duplicates: documents that share most of their text with one that was there before.

The measure is the overlap of their sets of shingles (Jaccard index). MinHash signatures estimate it (Broder, On the
resemblance and containment of documents, 1997), and locality-sensitive hashing finds candidates without comparing all
pairs (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3). A shingle is a few bytes rather than
words, so that it works for text without blanks. Only signatures stay in memory, never text.
"""

from typing import Any

import numpy as np

from weft.recipes.common.errors import optional_package

SHINGLE_BYTES = 8  # eight letters of English, two to three Chinese characters: one 64-bit number
PERMUTATIONS = 128  # estimates are off by about 0.04
SEED, SCHEME = 1, "affine32"  # the scheme is named so that another version draws the same signatures
AT_ONCE = 1 << 14  # shingles; each takes a number for every permutation


def check_near_duplicates() -> None:
    """Raise RecipeError if the package that finds near duplicates is missing."""
    optional_package("datasketch", "dedup near")


class NearDuplicates:
    """Remembers documents, and compares new ones with them."""

    def __init__(self, threshold: float) -> None:
        """Args:
            threshold: least share of common shingles that makes two documents duplicates.

        Raises:
            RecipeError: datasketch is not installed.
        """
        self.threshold = threshold
        self.package = optional_package("datasketch", "dedup near")
        self.index = self.package.MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self.permutations = self.package.MinHash(num_perm=PERMUTATIONS, seed=SEED, scheme=SCHEME).permutations
        self.signatures: list[np.ndarray] = []

    def is_near(self, text: str) -> bool:
        """Tell whether a document is near to a remembered one; if not, remember it."""
        signature = self._signature(shingles_of(text))
        for earlier in self.index.query(signature):
            if np.mean(self.signatures[earlier] == signature.hashvalues) >= self.threshold:
                return True
        self.index.insert(len(self.signatures), signature, check_duplication=False)
        self.signatures.append(signature.hashvalues)
        return False

    def _signature(self, shingles: np.ndarray) -> Any:
        signature = self.package.MinHash(
            num_perm=PERMUTATIONS, seed=SEED, scheme=SCHEME, hashfunc=int, permutations=self.permutations
        )
        hashes = _mixed(shingles)
        for first in range(0, len(hashes), AT_ONCE):
            signature.update_batch(hashes[first : first + AT_ONCE].tolist())
        return signature


def shingles_of(text: str) -> np.ndarray:
    """Return the distinct shingles of a text as sorted 64-bit numbers; case and white space do not matter."""
    content = " ".join(text.casefold().split()).encode()
    content += bytes(max(0, SHINGLE_BYTES - len(content)))
    values = np.frombuffer(content, dtype=np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(values, SHINGLE_BYTES)
    return np.unique(np.ascontiguousarray(windows).view("<u8").ravel())


def _mixed(shingles: np.ndarray) -> np.ndarray:
    """Hash 64-bit shingles to the 32 bits that signatures are made of (the finaliser of SplitMix64)."""
    mixed = shingles.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed >> np.uint64(32)
