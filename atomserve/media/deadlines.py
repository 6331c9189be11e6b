"""Until when a source may take its time: as long as somebody waits for it."""

from __future__ import annotations

import time
from typing import NamedTuple

from atomserve.context import Context, current_context
from atomserve.errors import SourceTimeout

LOOK = 0.25
"""Seconds after which whoever waits for a source looks whether anybody waits for them."""


class Until(NamedTuple):
    """The end, on the clock of `time.monotonic`, and the request that it is for."""

    end: float
    context: Context | None = None

    def left(self) -> float:
        """Return the seconds until then.

        Raises:
            SourceTimeout: there are none, or nobody waits any more.
        """
        seconds = self.end - time.monotonic()
        if seconds <= 0 or (self.context is not None and self.context.cancelled):
            raise SourceTimeout()
        return seconds

    def look(self) -> float:
        """Return how long to wait before the next look; raises as `left` does."""
        return min(self.left(), LOOK)


def until_of(timeout: float) -> Until:
    """Return the end of ``timeout`` seconds, or of the request worked on if that is sooner."""
    end = time.monotonic() + timeout
    context = current_context.get(None)
    if context is not None and context.deadline is not None:
        end = min(end, context.deadline)
    return Until(end, context)
