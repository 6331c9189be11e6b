"""Which parts of a failing batch are run again, until only the guilty fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


def budget(size: int) -> int:
    """Return how often the wrapper may be called at most for a batch of ``size``.

    One guilty request needs 2 * ceil(log2 size) + 1 calls, two of them at most twice that; a
    wrapper that always fails would otherwise be called 2 * size - 1 times.
    """
    return 4 * (size - 1).bit_length() + 3


class Parts(Generic[T]):
    """The parts of a batch that are still to be run: all of it, then halves of what failed."""

    def __init__(self, items: Sequence[T], *, bisect: bool) -> None:
        self._waiting = deque([items])
        self._left = budget(len(items)) if bisect else 1

    def __repr__(self) -> str:
        return f"<Parts: {len(self._waiting)} to run, {self._left} calls left>"

    def take(self) -> Sequence[T] | None:
        """Return the part to run next; None is the end."""
        return self._waiting.popleft() if self._waiting else None

    def ran(self) -> None:
        """The wrapper was called once."""
        self._left -= 1

    def split(self, part: Sequence[T]) -> bool:
        """Let the halves of ``part``, which failed, be run; False if it fails as it is."""
        # Whatever waits is sure to be run: nobody fails by what happened to others.
        if len(part) < 2 or self._left < len(self._waiting) + 2:
            return False
        half = len(part) // 2
        self._waiting += (part[:half], part[half:])
        return True
