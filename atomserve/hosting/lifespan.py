"""An application's ASGI lifespan, run beside its HTTP server instead of by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class LifespanFailed(Exception):
    """The application could not start, or ended although nobody asked it to."""


class Lifespan:
    """Starts ``app``, gives its state to every request, and shuts it down.

    An HTTP server that runs the lifespan itself goes on serving when that dies, and skips its end
    when the server is cancelled. Here ``run`` raises when the application dies.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self.started = anyio.Event()
        self._stopping = anyio.Event()
        self._ended = anyio.Event()
        self.failure = ""
        """What the application says of a failure, a traceback perhaps."""

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping.is_set()

    async def run(self) -> None:
        """Set ``started`` when the application has started; return when it was shut down.

        Raises what the application raises, and ``LifespanFailed`` when it just stops.
        """
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        finally:
            self._ended.set()
        if self.failure or not self.stopping:
            raise LifespanFailed(self.failure or "the application ended by itself")

    async def shut_down(self) -> None:
        """Tell the application to end, and return when it has."""
        self._stopping.set()
        await self._ended.wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve as the application that the HTTP server sees: one whose lifespan is empty."""
        if scope["type"] == "lifespan":
            await _pass_over(receive, send)
        else:
            scope["state"] = dict(self._state)
            await self._app(scope, receive, send)

    async def _receive(self) -> dict[str, str]:
        if not self.started.is_set():
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Any) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self.started.set()
            case "lifespan.startup.failed" | "lifespan.shutdown.failed":
                # The application raises the cause next; its text is a traceback, for the log.
                self.failure = message.get("message", "") or message["type"]


def without_lifespan(app: ASGIApp) -> ASGIApp:
    """Return ``app``, which is started elsewhere, as an HTTP server may see it."""

    async def seen(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _pass_over(receive, send)
        else:
            await app(scope, receive, send)

    return seen


async def _pass_over(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
