"""Bytes out of files, compressed or not: whole, however many parts an archive has, or refused."""

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any

import zstandard

COMPRESSIONS = (".gz", ".zst")
BROKEN = (OSError, EOFError, zlib.error, zstandard.ZstdError)  # what reading a torn archive raises
LARGEST_WINDOW = 1 << 31  # bytes, as `zstd --ultra --long=31` writes; without a limit named, 2^27 is the largest read
BYTES_AT_ONCE = 1 << 16


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading; the ending tells its compression (raises OSError: it cannot be opened)."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(_ZstdFrames(path), buffer_size=BYTES_AT_ONCE)
    return path.open("rb")


class _ZstdFrames(io.RawIOBase):
    """The content of all frames of a .zst file; unlike zstandard's own reader it tells a torn frame from the end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._frame = _new_frame()
        self._content = memoryview(b"")

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer as far as a piece of the file goes; 0 at the end.

        Raises:
            EOFError: the file ends within a frame, or before one.
            zstandard.ZstdError: not a frame.
        """
        while not self._content:
            is_between = self._frame.eof
            given = (self._frame.unused_data if is_between else b"") or self._file.read(BYTES_AT_ONCE)
            if not given and is_between:
                return 0
            if not given:
                raise EOFError("it ends within a frame")
            if is_between:
                self._frame = _new_frame()
            self._content = memoryview(self._frame.decompress(given))
        size = min(len(buffer), len(self._content))
        buffer[:size], self._content = self._content[:size], self._content[size:]
        return size


def _new_frame() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()
