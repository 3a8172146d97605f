"""Selection of documents: those are kept that hold text, pass the filters, and repeat no earlier one."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.near_duplicates import NearDuplicates

DIGEST_BYTES = 16


def digest_of(text: str) -> bytes:
    """Return `DIGEST_BYTES` bytes that only copies of a text have in common."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


@dataclass
class Dropped:
    """Numbers of documents that were left out, by reason."""

    empty: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    filtered: dict[str, int] = field(default_factory=dict)  # by the name of each filter that is on


class Selection:
    """Sees every document once, in order, and counts those that it drops."""

    def __init__(self, arguments: DataArguments) -> None:
        self.arguments = arguments
        self.dropped = Dropped(filtered=dict.fromkeys(arguments.active_filters(), 0))
        self._digests: set[bytes] = set()
        self._near = NearDuplicates(arguments.near_duplicate_threshold) if arguments.dedup == "near" else None

    def kept(self, texts: Iterator[str], is_filtered: bool = True) -> Iterator[str]:
        """Yield the documents that `keeps` keeps."""
        return (text for text in texts if self.keeps(text, is_filtered))

    def keeps(self, text: str, is_filtered: bool = True) -> bool:
        """Tell whether to keep a document, and count it if not.

        Args:
            is_filtered: apply the filters; text of validation files is left as it is.
        """
        if not text.strip():
            self.dropped.empty += 1
            return False
        refused_by = self.arguments.refused_by(text) if is_filtered else None
        if refused_by is not None:
            self.dropped.filtered[refused_by] += 1
            return False
        if self.arguments.dedup == "off":
            return True
        digest = digest_of(text)
        if digest in self._digests:
            self.dropped.duplicates += 1
            return False
        self._digests.add(digest)
        if self._near is not None and self._near.is_near(text):
            self.dropped.near_duplicates += 1
            return False
        return True
