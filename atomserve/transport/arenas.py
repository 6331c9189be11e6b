"""Shared memory without a name, as its writer sees it: sealed segments, divided into blocks.

A segment is a `memfd`. Its owner maps it and then seals it: whoever else gets the descriptor can
map it for reading and can neither write to it nor truncate it. The kernel frees it with the last
process that has it open. `atomserve.transport.mappings` is the reader's side.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from atomserve.errors import ConfigError
from atomserve.transport.gaps import Gap, Gaps

ALIGNMENT = 64
SEGMENT_SIZE = 16 * 1024 * 1024
"""Least bytes of a segment, as long as the bound leaves that much."""

_SEAL_FUTURE_WRITE = 0x10
"""``F_SEAL_FUTURE_WRITE`` of linux/fcntl.h, which Python names from 3.13 on."""
_NO_SEALS = 'worker processes need Linux 5.1 (sealed memory files): set executor = "thread" here'


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where the bytes of a block lie, in words that cross a process."""

    segment: int
    offset: int
    size: int


class Segment:
    """One memory file, mapped for writing here and sealed for everyone else.

    Raises:
        ConfigError: this system has no such files.
    """

    __slots__ = ("fd", "memory", "number", "size")

    def __init__(self, number: int, size: int) -> None:
        if not hasattr(os, "memfd_create"):
            raise ConfigError(_NO_SEALS)
        self.number = number
        self.size = size
        self.fd = os.memfd_create("atomserve", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            # No view of it is released by hand: it is unmapped with the last one that is left.
            self.memory = memoryview(mmap.mmap(self.fd, size))
            _seal(self.fd)
        except BaseException:
            os.close(self.fd)
            raise


def _seal(fd: int) -> None:
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | _SEAL_FUTURE_WRITE)
    except OSError as exc:
        raise ConfigError(_NO_SEALS) from exc


class Block:
    """Some bytes of an arena that are its holder's until `free`."""

    __slots__ = ("_arena", "freed", "offset", "segment", "size")

    def __init__(self, arena: Arena, segment: Segment, offset: int, size: int) -> None:
        self._arena = arena
        self.segment = segment
        self.offset = offset
        self.size = size
        self.freed = False

    def __repr__(self) -> str:
        state = "freed" if self.freed else "live"
        return f"<Block of {self.size} bytes at {self.segment.number}:{self.offset}: {state}>"

    @property
    def place(self) -> Place:
        return Place(self.segment.number, self.offset, self.size)

    @property
    def view(self) -> memoryview:
        """The bytes, writable; of no use after `free`, when somebody else may write them."""
        if self.freed:
            raise ValueError(f"{self} has been given back")
        return self.segment.memory[self.offset : self.offset + self.size]

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` to ``offset``.

        Raises:
            ValueError: it does not fit, or the block has been freed.
        """
        if self.freed:
            raise ValueError(f"{self} has been given back")
        if offset < 0 or offset + len(data) > self.size:
            raise ValueError(f"{len(data)} bytes at {offset} do not fit into {self}")
        start = self.offset + offset
        self.segment.memory[start : start + len(data)] = data

    def resize(self, size: int) -> bool:
        """Cut the block, or let it grow in its place; False, and no change: there is no room."""
        return self._arena._resize(self, size)

    def free(self) -> None:
        """Give the bytes back; once. Not from a finalizer: it takes the arena's lock.

        Raises:
            ValueError: the block has been freed before.
        """
        self._arena._free(self)


class Arena:
    """Segments of at most ``bound`` bytes in all, and the blocks in them; for any thread.

    ``on_drop`` is called with the number of each segment that is gone, so that readers can let go
    of it, too; it must not call the arena. Numbers are never used again.
    """

    def __init__(self, bound: int, on_drop: Callable[[int], None] = lambda _: None) -> None:
        self.bound = bound
        self.used = 0
        """Bytes in live blocks, with what alignment costs."""
        self.mapped = 0
        """Bytes in segments."""
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._segments: dict[int, Segment] = {}
        self._opened = 0
        self._blocks: dict[tuple[int, int], Block] = {}
        self._gaps = Gaps()

    def __repr__(self) -> str:
        return (
            f"<Arena: {self.used} bytes in {len(self._blocks)} blocks, "
            f"{self.mapped} of {self.bound} mapped>"
        )

    @property
    def segments(self) -> Mapping[int, Segment]:
        """Each segment by its number; a reader needs its ``fd`` and its ``size``."""
        return MappingProxyType(self._segments)

    def take(self, size: int) -> Block | None:
        """Return a block of ``size`` bytes; None: too many are in use."""
        need = _rounded(size, ALIGNMENT)
        with self._lock:
            gap = self._gaps.fitting(need) or self._open_segment(need)
            if gap is None:
                return None
            block = Block(self, self._segments[gap.segment], gap.start, size)
            self._blocks[gap.segment, gap.start] = block
            self._carve(gap, need)
            return block

    def find(self, place: Place) -> Block:
        """Return the live block at ``place``.

        Raises:
            ValueError: there is none.
        """
        block = self._blocks.get((place.segment, place.offset))
        if block is None or block.size != place.size:
            raise ValueError(f"there is no live block at {place}")
        return block

    def trim(self, keep: int = 0) -> None:
        """Drop segments without blocks, the longest unused first, until ``keep`` bytes are left."""
        with self._lock:
            unused = self._unused()
            left = sum(gap.size for gap in unused)
            for gap in unused:
                if left <= keep:
                    return
                left -= gap.size
                self._drop(gap)

    def close(self) -> None:
        """Let all segments go; live blocks may still be used and freed, new ones are refused."""
        with self._lock:
            for segment in self._segments.values():
                os.close(segment.fd)
            self._segments.clear()
            self._blocks.clear()
            self._gaps = Gaps()
            self.bound = self.mapped = self.used = 0

    def _resize(self, block: Block, size: int) -> bool:
        need = _rounded(size, ALIGNMENT)
        number = block.segment.number
        with self._lock:
            if block.freed:
                raise ValueError(f"{block} has been given back")
            have = _rounded(block.size, ALIGNMENT)
            if need > have:
                gap = self._gaps.starting(number, block.offset + have)
                if gap is None or gap.size < need - have:
                    return False
                self._carve(gap, need - have)
            elif need < have and number in self._segments:
                self._give_back(number, block.offset + need, block.offset + have)
            block.size = size
        return True

    def _free(self, block: Block) -> None:
        number = block.segment.number
        with self._lock:
            if block.freed:
                raise ValueError(f"{block} has been given back before")
            block.freed = True
            # None after `close`.
            if self._blocks.pop((number, block.offset), None) is not None:
                stop = block.offset + _rounded(block.size, ALIGNMENT)
                self._give_back(number, block.offset, stop)

    def _carve(self, gap: Gap, size: int) -> None:
        self.used += size
        self._gaps.carve(gap, size)

    def _give_back(self, segment: int, start: int, stop: int) -> None:
        self.used -= stop - start
        self._gaps.free(segment, start, stop)

    def _unused(self) -> list[Gap]:
        return self._gaps.spanning({number: s.size for number, s in self._segments.items()})

    def _open_segment(self, need: int) -> Gap | None:
        least = _rounded(need, mmap.PAGESIZE)
        unused = self._unused()
        if self.bound - self.mapped + sum(gap.size for gap in unused) < least:
            return None
        for gap in unused:
            if self.bound - self.mapped >= least:
                break
            self._drop(gap)
        room = (self.bound - self.mapped) // mmap.PAGESIZE * mmap.PAGESIZE
        segment = Segment(self._opened, min(max(least, SEGMENT_SIZE), room))
        self._opened += 1
        self._segments[segment.number] = segment
        self.mapped += segment.size
        return self._gaps.open(segment.number, segment.size)

    def _drop(self, gap: Gap) -> None:
        self._gaps.remove(gap)
        os.close(self._segments.pop(gap.segment).fd)
        self.mapped -= gap.size
        self._on_drop(gap.segment)


def _rounded(size: int, unit: int) -> int:
    return -(-max(size, 1) // unit) * unit
