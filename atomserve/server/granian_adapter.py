"""Granian behind the signature of every server: ours are its sockets, its start and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from atomserve.control import BACKLOG
from atomserve.errors import MissingExtra
from atomserve.hosting.lifespan import ASGIApp
from atomserve.settings import Settings

TESTED = ("2.7", "2.8")
"""Series whose private ``SocketHolder``, which takes a socket that is open, is known to fit."""

BACKPRESSURE = 1_000_000
"""Requests that Granian itself lets in at once: how many may, our lanes say."""


async def serve_granian(
    app: ASGIApp,
    settings: Settings,
    listeners: Sequence[int],
    *,
    serving: anyio.Event,
    stop: anyio.Event,
) -> None:
    """Serve HTTP/1.1 and HTTP/2 (by prior knowledge, or by ALPN with TLS) on Granian.

    Raises ``MissingExtra`` without the package.
    """
    servers = [_server(_Plain(app), settings, fd) for fd in listeners]

    async def end() -> None:
        await stop.wait()
        for server in servers:
            server.stop()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end)
        async with anyio.create_task_group() as running:
            for server in servers:
                running.start_soon(server.serve)
            for server in servers:
                await server.begun.wait()
            serving.set()
        tasks.cancel_scope.cancel()


class _Plain:
    """``app`` as Granian can call it: what it gives to receive with is no coroutine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            each = _WebSocket(receive, send)
            receive, send = each.receive, each.send
        else:
            receive = partial(_awaited, receive)
        await self._app(scope, receive, send)


class _WebSocket:
    """Ends a pending receive before it closes: Granian would wait for the client's next word."""

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive = receive
        self._send = send
        self._pending: asyncio.Task[Any] | None = None
        self._closed = False

    async def receive(self) -> Any:
        self._pending = asyncio.create_task(_awaited(self._receive))
        try:
            return await self._pending
        except asyncio.CancelledError:
            if not self._closed:
                raise
            return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            self._closed = True
            if self._pending is not None:
                self._pending.cancel()
        await self._send(message)


async def _awaited(receive: Any) -> Any:
    return await receive()


def _server(app: ASGIApp, settings: Settings, fd: int) -> Any:
    try:
        from granian.constants import HTTPModes, Interfaces, SSLProtocols
        from granian.http import HTTP1Settings, HTTP2Settings
        from granian.net import SocketHolder
        from granian.server.embed import Server
    except ImportError as exc:
        raise MissingExtra("server granian needs: pip install 'atomserve[granian]'") from exc

    class Embedded(Server):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.begun = anyio.Event()

        def _init_shared_socket(self) -> None:
            with socket.socket(fileno=os.dup(fd)) as sock:
                unix = sock.family == socket.AF_UNIX
                self._shd = SocketHolder(sock.detach(), unix, BACKLOG)

        def startup(self, *arguments: Any) -> None:
            super().startup(*arguments)
            self.begun.set()

    logging.getLogger("_granian").setLevel(logging.ERROR)
    headers = 2 * settings.limits.header_bytes
    return Embedded(
        target=app,
        interface=Interfaces.ASGINL,
        http=HTTPModes.auto,
        websockets=True,
        backlog=BACKLOG,
        backpressure=BACKPRESSURE,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(1000 * settings.header_timeout),
            max_buffer_size=max(headers, 64 * 1024),
        ),
        http2_settings=HTTP2Settings(max_concurrent_streams=100, max_headers_size=headers),
        log_enabled=False,
        ssl_cert=settings.certfile and Path(settings.certfile),
        ssl_key=settings.keyfile and Path(settings.keyfile),
        ssl_protocol_min=SSLProtocols.tls12,
    )
