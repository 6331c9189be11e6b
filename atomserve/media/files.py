"""Files of clients, read from below the folders that the operator names.

They are read, never mapped: whoever shortens a mapped file ends the process that looks at it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from atomserve.errors import SourceRefused, TooLarge
from atomserve.media.beneath import ONLY_PATH, open_beneath

REFUSED = (
    "this file may not be opened: expected the path of a regular file below a folder that this "
    "server may read"
)
"""Said of whatever is wrong with a path, so that it tells nothing of other files."""
SHORT = "the file ends before what is asked of it"

Opener = Callable[[int, Sequence[bytes]], int]


class Folders:
    """The folders ``roots``, absolute paths; any thread may read files below them."""

    def __init__(self, roots: Sequence[str], opener: Opener = open_beneath) -> None:
        self._roots = tuple(map(os.fsencode, roots))
        self._opener = opener

    def read(self, path: str, most: int) -> memoryview:
        """Return a whole file.

        Raises:
            SourceRefused: it is none that may be opened.
            TooLarge: it has more than ``most`` bytes.
        """
        with self._opened(path) as (fd, size):
            _check(size, most)
            return _read(fd, 0, size)

    def read_part(self, path: str, position: int, size: int, most: int) -> memoryview:
        """Return ``size`` bytes of a file, from ``position``; raises as `read` does."""
        _check(size, most)
        with self._opened(path) as (fd, whole):
            if position + size > whole:
                raise SourceRefused(SHORT)
            return _read(fd, position, size)

    @contextmanager
    def _opened(self, path: str) -> Iterator[tuple[int, int]]:
        try:
            fd = self._open(os.fsencode(path))
        except (OSError, ValueError) as exc:
            raise SourceRefused(REFUSED) from exc
        try:
            found = os.fstat(fd)
            # Another name of a file may lie in a folder that is nobody's to read.
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or not found.st_size:
                raise SourceRefused(REFUSED)
            yield fd, found.st_size
        finally:
            os.close(fd)

    def _open(self, path: bytes) -> int:
        if b"\0" in path:
            raise ValueError("a NUL in a path")
        failure: OSError = FileNotFoundError()
        for root in self._roots:
            if path.startswith(b"/") and not path.startswith(root + b"/"):
                continue
            parts = path.removeprefix(root + b"/").split(b"/")
            if not {b"", b".", b".."}.isdisjoint(parts):
                break
            try:
                return self._open_below(root, parts)
            except OSError as exc:
                failure = exc
        raise failure

    def _open_below(self, root: bytes, parts: list[bytes]) -> int:
        folder = os.open(root, ONLY_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return self._opener(folder, parts)
        finally:
            os.close(folder)


def _check(size: int, most: int) -> None:
    if size > most:
        raise TooLarge(f"what the path leads to is too large; expected at most {most} bytes")


def _read(fd: int, position: int, size: int) -> memoryview:
    body = bytearray(size)
    rest = memoryview(body)
    while rest:
        try:
            count = os.preadv(fd, [rest], position)
        except (OSError, OverflowError) as exc:
            raise SourceRefused(REFUSED) from exc
        if not count:
            raise SourceRefused(SHORT)
        rest, position = rest[count:], position + count
    return memoryview(body).toreadonly()
