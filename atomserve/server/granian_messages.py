"""What an application says and hears, as Granian says and hears it."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from atomserve.hosting.lifespan import ASGIApp

_SERVER = (b"server", b"atomserve")
"""Granian puts its own name where the application gives none; it cannot be kept from both."""

_NO_STATUS, _PROTOCOL_ERROR = 1005, 1002
"""https://www.iana.org/assignments/websocket, "Close Code Number Registry"."""


class Translated:
    """``app`` as Granian can call it; knows how many WebSockets are open."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._sockets = 0
        self._none = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            exchange = _Exchange(receive, send)
            return await self._app(scope, exchange.receive, exchange.send)
        each = _WebSocket(receive, send)
        self._sockets += 1
        try:
            await self._app(scope, each.receive, each.send)
        finally:
            self._sockets -= 1
            if not self._sockets:
                self._none.set()
                self._none = anyio.Event()

    async def no_sockets(self) -> None:
        """Return when no WebSocket is open."""
        while self._sockets:
            await self._none.wait()


PIECE = 256 * 1024
"""Most bytes that Granian is given at once: what it has, it takes for sent, and keeps for ever."""


class _Exchange:
    """Gives Granian bytes, since other buffers take it nine times as long, and few at once."""

    __slots__ = ("_receive", "_send")

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive = receive
        self._send = send

    async def receive(self) -> Any:
        return await self._receive()  # what that gives is no coroutine

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if all(name.lower() != b"server" for name, _ in headers):
                headers.append(_SERVER)
            message = {**message, "headers": headers}
        elif body := message.get("body"):
            if len(body) > PIECE:
                whole = memoryview(body)
                for start in range(0, len(whole), PIECE):
                    piece = bytes(whole[start : start + PIECE])
                    await self._send({**message, "body": piece, "more_body": True})
                message = {**message, "body": b""}
            elif not isinstance(body, bytes):
                message = {**message, "body": bytes(body)}
        await self._send(message)


class _WebSocket:
    """Ends a pending receive before it closes: Granian would wait for the client's next word.

    It also closes with a code when Granian has found a client's frames wrong, and left it.
    """

    __slots__ = ("_accepted", "_closed", "_pending", "_receive", "_send")

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive = receive
        self._send = send
        self._pending: asyncio.Task[Any] | None = None
        self._accepted = self._closed = False

    async def receive(self) -> Any:
        if self._closed:  # who asks now would keep the close waiting
            return _left()
        self._pending = asyncio.create_task(self._next())
        try:
            message = await self._pending
        except asyncio.CancelledError:
            if not self._closed:
                raise
            return _left()
        if message["type"] == "websocket.disconnect" and message.get("code") == _NO_STATUS:
            await self._blame()
        return message

    async def _next(self) -> Any:
        return await self._receive()

    async def _blame(self) -> None:
        """Say what was wrong, to whoever hears it: one that has closed or left does not."""
        if self._accepted and not self._closed:
            self._closed = True
            await self._send({"type": "websocket.close", "code": _PROTOCOL_ERROR})

    async def send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "websocket.close":
            if self._closed:
                return
            self._closed = True
            if self._pending is not None:
                self._pending.cancel()
        elif kind == "websocket.accept":
            self._accepted = True
        await self._send(message)


def _left() -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": 1000}
