"""Request bodies in shared memory, where every worker of their model can read them."""

from __future__ import annotations

from collections.abc import Callable

from atomserve.backends.links import INLINE
from atomserve.engine.loops import Timer, call_later
from atomserve.errors import ArenaFull
from atomserve.transport.arenas import Arena, Block, Place
from atomserve.transport.frames import BrokenFrame
from atomserve.transport.mappings import leased

WARM = 64 * 1024 * 1024
"""Bytes of shared memory that an idle model keeps: fresh pages are what makes a body slow."""
IDLE = 10.0
"""Seconds without a large body after which the rest goes back."""


class Pool:
    """An arena whose blocks are given back on the loop, and whose memory when it is idle."""

    def __init__(self, bound: int, on_drop: Callable[[int], None], *, idle: float = IDLE) -> None:
        self.arena = Arena(bound, on_drop)
        self._idle = idle
        self._kept = 0
        self._trim: Timer | None = None

    def __repr__(self) -> str:
        return f"<Pool: {self.arena}>"

    @property
    def used(self) -> int:
        """Bytes in blocks that will be given back."""
        return self.arena.used - self._kept

    def keep(self, size: int) -> Block:
        """Return a block that is never given back."""
        before = self.arena.used
        block = self.take(size)
        self._kept += self.arena.used - before
        return block

    def take(self, size: int) -> Block:
        """Return a block.

        Raises:
            ArenaFull: too many are in use.
        """
        block = self.arena.take(max(size, 1))
        if block is None:
            raise ArenaFull(retry_after=1.0)
        return block

    def give_back(self, block: Block) -> None:
        """Free ``block``; memory that stays unused for a while goes back to the system."""
        block.free()
        if self._trim is None and not self.used and self.arena.mapped > WARM:
            self._trim = call_later(self._idle, self._give_pages_back)

    def _give_pages_back(self) -> None:
        self._trim = None
        if not self.used:
            self.arena.trim(WARM)


class SharedBody:
    """A request body in the model's arena, held by its job and by each worker that reads it."""

    __slots__ = ("_holders", "_pool", "block")

    def __init__(self, pool: Pool, block: Block, holders: int = 1) -> None:
        self._pool = pool
        self.block = block
        self._holders = holders

    def __len__(self) -> int:
        return self.block.size

    @property
    def data(self) -> memoryview:
        """The bytes, of no use after the last `release`."""
        return self.block.view.toreadonly()

    def hold(self) -> None:
        """One more reader."""
        self._holders += 1

    def part(self, place: Place, free: Callable[[Place], None]) -> memoryview:
        """Return the bytes at ``place``, held until ``free`` was called.

        Raises:
            BrokenFrame: they are not all in this body.
        """
        block = self.block
        start, stop = place.offset - block.offset, place.offset + place.size - block.offset
        if place.segment != block.segment.number or not 0 <= start <= stop <= block.size:
            raise BrokenFrame(f"{place} is not within {block}")
        self.hold()
        return leased(block.segment.memory, place, free).data

    def release(self) -> None:
        """One reader less; the last one gives the block back."""
        self._holders -= 1
        if not self._holders:
            self._pool.give_back(self.block)


class SharedSink:
    """Takes a body's pieces into shared memory while they arrive."""

    def __init__(self, pool: Pool, declared: int | None) -> None:
        self._pool = pool
        self._block = pool.take(declared or 4 * INLINE)
        self._size = 0

    def write(self, piece: bytes | bytearray) -> None:
        """Take the next piece; raises ArenaFull when there is no room for it."""
        end = self._size + len(piece)
        if end > self._block.size:
            self._grow(end)
        self._block.write(self._size, piece)
        self._size = end

    def _grow(self, least: int) -> None:
        have, bound = self._block.size, self._pool.arena.bound
        doubled = 2 * have
        # Where the next doubling would not fit beside what it copies, this step has to be the last.
        last = bound - self._block.segment.size if doubled + 2 * doubled > bound else doubled
        for size in sorted({max(least, wanted) for wanted in (last, doubled, 0)}, reverse=True):
            if self._block.resize(size) or self._move(size):
                return
        raise ArenaFull(retry_after=1.0)

    def _move(self, size: int) -> bool:
        block = self._pool.arena.take(size)
        if block is None:
            return False
        block.write(0, self._block.view[: self._size])
        self._pool.give_back(self._block)
        self._block = block
        return True

    def close(self) -> SharedBody:
        """Return the body, cut to its size."""
        self._block.resize(self._size)
        return SharedBody(self._pool, self._block)

    def discard(self) -> None:
        """Give the memory back."""
        self._pool.give_back(self._block)
