"""When a connection on which nothing is asked for ends: no task of its own waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hypercorn.asyncio.worker_context import EventWrapper, WorkerContext


class Stopping(EventWrapper):
    """The server stops: told to each connection that is idle then."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: set[Idle] = set()

    async def set(self) -> None:
        await super().set()
        for each in tuple(self.idle):
            each.leave()


class Context(WorkerContext):
    """What the connections of a server share."""

    terminated: Stopping

    def __init__(self, max_requests: int | None) -> None:
        super().__init__(max_requests)
        self.terminated = Stopping()


class Idle:
    """Calls ``end`` once a connection was idle for ``patience()`` seconds, or the server stops.

    Stands in for Hypercorn's task, of which each request ends one and starts another: 40 us.
    """

    def __init__(
        self, stopping: Stopping, patience: Callable[[], float], end: Callable[[], None]
    ) -> None:
        self._stopping = stopping
        self._patience = patience
        self._end = end
        self._loop = asyncio.get_running_loop()
        self._until: float | None = None
        """When it has been idle for too long, on the loop's clock; None while it is busy."""
        self._timer: asyncio.TimerHandle | None = None

    async def restart(self, *_: Any) -> None:
        """Begin to be idle."""
        self._until = self._loop.time() + self._patience()
        self._stopping.idle.add(self)
        if self._stopping.is_set():
            self.leave()
        elif self._timer is None or self._timer.when() > self._until:
            self._set_timer(self._until)

    async def stop(self) -> None:
        """Be busy."""
        self._until = None
        self._stopping.idle.discard(self)

    def close(self) -> None:
        """Forget the connection, which has ended."""
        self._stopping.idle.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self) -> None:
        """End the connection."""
        self._stopping.idle.discard(self)
        self._end()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        # Requests come and go without touching the timer: it looks how long the last one is ago.
        self._timer = None
        if self._until is None:
            return
        if self._until <= self._loop.time():
            self.leave()
        else:
            self._set_timer(self._until)
