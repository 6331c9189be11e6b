"""The C library's heap in a process through which large bodies pass."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT = 16 * 1024 * 1024
LARGEST = 4 * 1024 * 1024


def keep_freed_memory() -> None:
    """Let pieces of bodies reuse pages that others have left; glibc's own alone has the setting.

    As it is, glibc returns what a piece of some 100 KiB lay in to the system, and every next piece
    begins with page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, KEPT)
