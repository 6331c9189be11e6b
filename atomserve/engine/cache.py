"""Good answers that are kept for a while: bounded in bytes, the longest unused goes first.

Pure decisions: nothing here waits, reads a clock or performs I/O.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from atomserve.engine.jobs import Answer

OVERHEAD = 512
"""Bytes that an entry costs beside its answer, about."""
PARTS = 8
"""No answer takes more than this part of a cache: one would drive out all others."""


class Kept(msgspec.Struct, frozen=True):
    """An answer that lies in bytes of its own."""

    answer: Answer
    until: float
    """When it is too old to be given."""
    size: int


class Cache:
    """At most ``size`` bytes of answers by their requests' digests, each for ``ttl`` seconds."""

    def __init__(self, size: int, ttl: float) -> None:
        self.size = size
        self.ttl = ttl
        self.held = 0
        """Bytes that the entries cost, never over ``size``."""
        self._entries: OrderedDict[bytes, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Cache: {len(self)} answers, {self.held} of {self.size} bytes>"

    def get(self, key: bytes, now: float) -> Kept | None:
        """Return what is kept for ``key``, if it is not too old at ``now``."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        if kept.until <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return kept

    def put(self, key: bytes, answer: Answer, now: float) -> Kept | None:
        """Keep a copy of ``answer``, and return it; None: it is too large."""
        size = OVERHEAD + len(answer.head) + len(answer.body) + len(answer.media_type)
        if size > self.size // PARTS:
            return None
        if key in self._entries:
            self._drop(key)
        while self.held + size > self.size:
            self._drop(next(iter(self._entries)))
        kept = self._entries[key] = Kept(answer.copied(), now + self.ttl, size)
        self.held += size
        return kept

    def _drop(self, key: bytes) -> None:
        self.held -= self._entries.pop(key).size
