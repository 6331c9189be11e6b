"""Until when a source may take its time, on the clock of `time.monotonic`."""

from __future__ import annotations

import time

from atomserve.context import current_context
from atomserve.errors import SourceTimeout


def until_of(timeout: float) -> float:
    """Return the end of ``timeout`` seconds, or of the request worked on if that is sooner."""
    end = time.monotonic() + timeout
    context = current_context.get(None)
    if context is None or context.deadline is None:
        return end
    return min(end, context.deadline)


def left(until: float) -> float:
    """Return the seconds until then.

    Raises:
        SourceTimeout: there are none.
    """
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise SourceTimeout()
    return seconds
