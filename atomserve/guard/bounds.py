"""What all requests of a guard share: their limits, and how much of them is used."""

from __future__ import annotations

import anyio.abc

from atomserve.errors import Busy
from atomserve.settings import Limits

_RETRY_BUSY = 1.0


class Bounds:
    """The limits, the bytes of bodies held, and the owner of listening tasks."""

    __slots__ = ("draining", "held", "limits", "tasks")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0
        self.draining = False
        self.tasks: anyio.abc.TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Bounds: {self.held} of {self.limits.bodies_in_flight} bytes held>"

    def hold(self, size: int) -> None:
        """Count ``size`` bytes of a body as held, or raise Busy."""
        if self.held + size > self.limits.bodies_in_flight:
            raise Busy(retry_after=_RETRY_BUSY)
        self.held += size
