"""Requests that were found to kill their worker, remembered for a while by their digests."""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED = 600.0
"""Seconds for which a request is refused that was found guilty."""
MOST = 1024
"""Guilty requests that one model remembers."""


class Poison:
    """The digests of guilty requests; the oldest make room for new ones."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def __repr__(self) -> str:
        return f"<Poison: {len(self)} requests>"

    def add(self, digest: bytes, now: float) -> None:
        """Remember ``digest`` from ``now`` on."""
        self._until[digest] = now + REMEMBERED
        self._until.move_to_end(digest)
        if len(self._until) > MOST:
            self._until.popitem(last=False)

    def holds(self, digest: bytes, now: float) -> bool:
        """Say whether ``digest`` is remembered at ``now``."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        return digest in self._until
