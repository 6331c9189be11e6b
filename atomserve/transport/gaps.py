"""Which bytes of an arena are free: the bookkeeping, without the memory.

The gap that was freed last is offered first, and each is filled from its start: writing to pages
that were never touched costs several times the copy.
"""

from __future__ import annotations

from collections import OrderedDict


class Gap:
    """Free bytes between two blocks, or ends, of a segment."""

    __slots__ = ("segment", "start", "stop")

    def __init__(self, segment: int, start: int, stop: int) -> None:
        self.segment = segment
        self.start = start
        self.stop = stop

    def __repr__(self) -> str:
        return f"<Gap {self.segment}:{self.start}-{self.stop}>"

    @property
    def size(self) -> int:
        return self.stop - self.start


class Gaps:
    """All gaps of an arena; two never touch."""

    __slots__ = ("_by_age", "_starts", "_stops")

    def __init__(self) -> None:
        self._by_age: OrderedDict[Gap, None] = OrderedDict()
        self._starts: dict[tuple[int, int], Gap] = {}
        self._stops: dict[tuple[int, int], Gap] = {}

    def __repr__(self) -> str:
        return f"<Gaps: {list(self._by_age)}>"

    def __len__(self) -> int:
        return len(self._by_age)

    def fitting(self, size: int) -> Gap | None:
        """Return the last freed of the gaps that have room for ``size`` bytes."""
        return next((gap for gap in reversed(self._by_age) if gap.size >= size), None)

    def starting(self, segment: int, start: int) -> Gap | None:
        """Return the gap that begins there."""
        return self._starts.get((segment, start))

    def spanning(self, sizes: dict[int, int]) -> list[Gap]:
        """Return the gaps that are whole segments of these ``sizes``, the longest free first."""
        return [gap for gap in self._by_age if gap.size == sizes[gap.segment]]

    def open(self, segment: int, size: int) -> Gap:
        """Add a new segment's gap, as the oldest: what is left of it was never touched."""
        gap = self._add(Gap(segment, 0, size))
        self._by_age.move_to_end(gap, last=False)
        return gap

    def free(self, segment: int, start: int, stop: int) -> None:
        """Add bytes that were in use, and join them with the gaps that they touch."""
        if (before := self._stops.get((segment, start))) is not None:
            start = before.start
            self.remove(before)
        if (after := self._starts.get((segment, stop))) is not None:
            stop = after.stop
            self.remove(after)
        self._add(Gap(segment, start, stop))

    def carve(self, gap: Gap, size: int) -> None:
        """Take ``size`` bytes off the start of ``gap``; the rest keeps its age."""
        del self._starts[gap.segment, gap.start]
        gap.start += size
        if gap.size:
            self._starts[gap.segment, gap.start] = gap
        else:
            del self._stops[gap.segment, gap.stop], self._by_age[gap]

    def remove(self, gap: Gap) -> None:
        """Forget ``gap``."""
        del self._starts[gap.segment, gap.start], self._stops[gap.segment, gap.stop]
        del self._by_age[gap]

    def _add(self, gap: Gap) -> Gap:
        self._by_age[gap] = None
        self._starts[gap.segment, gap.start] = self._stops[gap.segment, gap.stop] = gap
        return gap
