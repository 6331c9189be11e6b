"""Give bytes in memory a path, for libraries that take several inputs only as files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from atomserve import Blob

__all__ = ["EDGE", "as_file"]

EDGE = 64 * 1024
"""Bytes of either end that are copied; magika reads the first and last 4096 of a file."""


@contextmanager
def as_file(blob: Blob) -> Iterator[str]:
    """Give ``blob`` a path for as long as the block, in memory: nothing reaches a disk.

    The file is as long as ``blob`` but has zeros between its two ends, so that large ones are
    neither copied nor take memory twice.
    """
    with open(os.memfd_create("blob"), "wb", buffering=0) as file:
        file.write(blob[:EDGE])
        file.truncate(len(blob))
        file.seek(max(0, len(blob) - EDGE))
        file.write(blob[-EDGE:])
        yield f"/proc/self/fd/{file.fileno()}"
