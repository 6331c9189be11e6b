"""What the system says of a running process: its memory, its processor time, its descriptors."""

from __future__ import annotations

import os

import msgspec

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Vitals(msgspec.Struct, frozen=True):
    """``descriptors`` is None where the system does not let us look."""

    cpu: float
    """Seconds of processor time, of all its threads."""
    resident: int
    """Bytes of memory."""
    descriptors: int | None


def vitals(pid: int) -> Vitals | None:
    """Look at process ``pid``; None if it has ended, or where there is no ``/proc``."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name in front may hold anything, but no later field holds a parenthesis.
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return None
    cpu = (int(fields[11]) + int(fields[12])) * _TICK
    return Vitals(cpu, int(fields[21]) * _PAGE, _descriptors(pid))


def resident(pid: int) -> int | None:
    """Return the bytes of memory of process ``pid``; None as `vitals` does."""
    found = vitals(pid)
    return None if found is None else found.resident


def own_memory(pid: int) -> int | None:
    """Return the bytes of memory that end with process ``pid``; None as `vitals` does.

    Shared memory is left out: what a worker reads of its clients' bodies belongs to others.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            lines = dict(line.split(b":", 1) for line in status if line.startswith(b"Rss"))
    except OSError:
        return None
    return sum(int(lines.get(kind, b"0 kB").split()[0]) * 1024 for kind in (b"RssAnon", b"RssFile"))


def _descriptors(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None
