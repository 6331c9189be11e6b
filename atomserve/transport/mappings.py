"""Shared memory as its reader sees it: read-only arrays over places in another's segments."""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from atomserve.transport.arenas import Place

Bytes = npt.NDArray[np.uint8]
OnFree = Callable[[Place], None]


class Mapping:
    """The segments of one peer's arena, of at most ``bound`` bytes; every word of it is checked."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._segments: dict[int, mmap.mmap] = {}
        self.mapped = 0

    def __repr__(self) -> str:
        return f"<Mapping: {len(self._segments)} segments, {self.mapped} of {self._bound} bytes>"

    def __contains__(self, segment: int) -> bool:
        return segment in self._segments

    def add(self, segment: int, fd: int, size: int) -> None:
        """Map a segment and close ``fd``, also on failure.

        Raises:
            ValueError: it is not what the peer says, could be truncated, or is too much.
        """
        try:
            if segment in self._segments or self.mapped + size > self._bound:
                raise ValueError(f"segment {segment} is there already, or over the bound")
            # A file that shrinks after it was mapped would kill its reader (SIGBUS).
            if size != os.fstat(fd).st_size or not _seals(fd) & fcntl.F_SEAL_SHRINK:
                raise ValueError(f"segment {segment} is not a sealed one of {size} bytes")
            memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        self._segments[segment] = memory
        self.mapped += size

    def root(self, place: Place, on_free: OnFree) -> Bytes:
        """Return the bytes at ``place``, read-only and without a copy.

        ``on_free`` is called once with ``place`` when neither the array nor anything made of it
        (slices, reshapes, memoryviews) is left: in any thread, in the middle of anything. It must
        take no lock; what it raises is lost. It is not called when the interpreter ends.

        Raises:
            ValueError: the peer's place is outside of its segments.
        """
        memory = self._segments.get(place.segment)
        if memory is None:
            raise ValueError(f"{place} is in no segment that is known")
        if place.offset < 0 or place.size < 0 or place.offset + place.size > len(memory):
            raise ValueError(f"{place} is outside of its segment of {len(memory)} bytes")
        return leased(memory, place, on_free)

    def drop(self, segment: int) -> None:
        """Forget a segment; it is unmapped when no array over it is left.

        Raises:
            ValueError: it is not there.
        """
        memory = self._segments.pop(segment, None)
        if memory is None:
            raise ValueError(f"segment {segment} is not there")
        self.mapped -= len(memory)

    def close(self) -> None:
        """Forget all segments."""
        self._segments.clear()
        self.mapped = 0


def leased(memory: mmap.mmap | memoryview, place: Place, on_free: OnFree) -> Bytes:
    """Return the bytes at ``place`` in ``memory``; ``on_free`` is called as `Mapping.root` says."""
    root = np.frombuffer(memory, np.uint8, place.size, place.offset)
    root.flags.writeable = False
    # On the root, which all views keep alive: numpy and memoryview skip what lies between.
    lease = _Lease(root, _over)
    lease.place = place
    lease.on_free = on_free
    _leases[id(lease)] = lease
    return root


def offset_within(part: memoryview, whole: memoryview) -> int | None:
    """Say where in ``whole`` the bytes of ``part`` lie; None: not all of them lie there."""
    offset = _address(part) - _address(whole)
    return offset if 0 <= offset <= whole.nbytes - part.nbytes else None


def _address(view: memoryview) -> int:
    address: int = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return address


class _Lease(weakref.ref[Bytes]):
    """Half the price of `weakref.finalize`, and nothing of it runs at exit."""

    __slots__ = ("on_free", "place")

    place: Place
    on_free: OnFree


_leases: dict[int, _Lease] = {}
"""Keeps each lease for as long as its array lives, whatever becomes of its mapping."""


def _over(
    lease: Any,
    # Bound here: at exit the module's names may be gone.
    leases: dict[int, _Lease] = _leases,
    ending: Callable[[], bool] = sys.is_finalizing,
) -> None:
    if not ending():
        del leases[id(lease)]
        lease.on_free(lease.place)


def _seals(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return 0
