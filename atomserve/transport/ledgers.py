"""Where a worker notes, for one link, which jobs it has begun: in memory that outlives it.

The number of the last job begun, and for each place of the slot (a thread, or one of the
coroutines that may run at once) the jobs that run there and since when, by CLOCK_MONOTONIC.
"""

from __future__ import annotations

import struct
import threading

from atomserve.transport.frames import BrokenFrame

_LAST = struct.Struct("<q")
_SINCE = struct.Struct("<d")
_JOBS = struct.Struct("<qq")
_PLACE = _SINCE.size + _JOBS.size


def ledger_size(places: int) -> int:
    """Return the bytes that a ledger for so many places has."""
    return _LAST.size + places * _PLACE


class LedgerWriter:
    """The worker's side; for any thread."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._lock = threading.Lock()
        self._last = 0

    def __repr__(self) -> str:
        return f"<LedgerWriter: up to job {self._last}>"

    def begin(self, place: int, first: int, last: int, now: float) -> None:
        """Write down that the jobs from ``first`` to ``last`` begin in ``place``."""
        start = _LAST.size + place * _PLACE
        with self._lock:
            # The time first: who reads in between takes a job that is over for a later one.
            _SINCE.pack_into(self._memory, start, now)
            _JOBS.pack_into(self._memory, start + _SINCE.size, first, last)
            if last > self._last:
                self._last = last
                _LAST.pack_into(self._memory, 0, last)


class LedgerReader:
    """The other side, also after the worker's death.

    Raises:
        BrokenFrame: the memory is none of a ledger.
    """

    def __init__(self, memory: memoryview) -> None:
        if memory.nbytes < ledger_size(1) or (memory.nbytes - _LAST.size) % _PLACE:
            raise BrokenFrame(f"a ledger of {memory.nbytes} bytes")
        self._memory = memory

    def __repr__(self) -> str:
        return f"<LedgerReader: up to job {self.last}>"

    @property
    def last(self) -> int:
        """The last job that was begun: those of higher numbers never were."""
        last: int = _LAST.unpack_from(self._memory)[0]
        return last

    def began(self, number: int) -> float | None:
        """Return when job ``number`` began, if that is what a place ran last."""
        for start in range(_LAST.size, self._memory.nbytes, _PLACE):
            first, last = _JOBS.unpack_from(self._memory, start + _SINCE.size)
            if first <= number <= last:
                since: float = _SINCE.unpack_from(self._memory, start)[0]
                return since
        return None
