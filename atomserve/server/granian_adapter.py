"""Granian behind the signature of every server: ours are its sockets, its start and its end."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import resource
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import structlog

from atomserve.control import BACKLOG
from atomserve.errors import MissingExtra
from atomserve.hosting.lifespan import ASGIApp
from atomserve.server.granian_messages import Translated
from atomserve.settings import Settings

TESTED = ("2.8",)
"""Series whose private ``SocketHolder``, which takes a socket that is open, is known to fit."""

PING_PATIENCE = 10
"""Seconds that a silent HTTP/2 client gets to answer a ping."""

HANDOVER = 0.05
"""Seconds for the supervisor to close its copies of the listening sockets first: connections that
come between its end and ours would wait for nobody."""

LAST_REQUESTS = 0.2
"""Seconds that clients which have just connected get to ask: Granian cuts them when it ends."""

SPARE_FILES = 256
"""Descriptors that connections leave to everything else: without any, Granian would try to accept
in a loop that takes a whole processor."""

log = structlog.get_logger("atomserve.server")


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
    for fd in listeners:  # what a plugin starts must not inherit them
        os.set_inheritable(fd, False)
    translated = Translated(app)
    servers = [_server(translated, settings, fd) for fd in listeners]

    async def end() -> None:
        await stop.wait()
        await anyio.sleep(HANDOVER)
        for server in servers:
            server.stop_listening()
        await anyio.sleep(LAST_REQUESTS)
        # Granian ends when its requests have; to WebSockets it would not give that time.
        await translated.no_sockets()
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


def _server(app: Translated, settings: Settings, fd: int) -> Any:
    """Build a server on the listening socket ``fd``, which becomes its own."""
    try:
        from granian.constants import HTTPModes, Interfaces, SSLProtocols
        from granian.http import HTTP1Settings, HTTP2Settings
        from granian.net import SocketHolder
        from granian.server.embed import Server
    except ImportError as exc:
        raise MissingExtra("server granian needs: pip install 'atomserve[granian]'") from exc
    warn_of(importlib.metadata.version("granian"))

    class Embedded(Server):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.begun = anyio.Event()

        def _init_shared_socket(self) -> None:
            sock = socket.socket(fileno=fd)
            unix = sock.family == socket.AF_UNIX
            if not unix:
                _bound_silence(sock, settings.limits.send_stall)
            self._shd = SocketHolder(sock.detach(), unix, BACKLOG)

        def startup(self, *arguments: Any) -> None:
            super().startup(*arguments)
            self.begun.set()

        def stop_listening(self) -> None:
            # Granian itself would stop listening only by ending. Its descriptor, which it still
            # owns, becomes that of a socket that nobody knows.
            with socket.socket(socket.AF_UNIX) as unknown:
                unknown.bind("")
                unknown.listen()
                unknown.setblocking(False)
                os.dup2(unknown.fileno(), fd, inheritable=False)

    logging.getLogger("_granian").setLevel(logging.ERROR)
    headers = 2 * settings.limits.header_bytes
    patience = int(1000 * settings.keep_alive)
    return Embedded(
        target=app,
        interface=Interfaces.ASGINL,
        http=HTTPModes.auto,
        websockets=True,
        backlog=BACKLOG,
        backpressure=_most_connections(),
        http1_settings=HTTP1Settings(
            # One timer for a request's headers and for the silence before them.
            header_read_timeout=max(int(1000 * settings.header_timeout), patience),
            max_buffer_size=max(headers, 64 * 1024),
        ),
        http2_settings=HTTP2Settings(
            keep_alive_interval=max(patience, 1),
            keep_alive_timeout=PING_PATIENCE,
            max_concurrent_streams=100,
            max_headers_size=headers,
        ),
        log_enabled=False,
        ssl_cert=settings.certfile and Path(settings.certfile),
        ssl_key=Path(settings.keyfile or settings.certfile) if settings.certfile else None,
        ssl_protocol_min=SSLProtocols.tls12,
    )


def warn_of(version: str) -> None:
    """Log a warning if nobody has tested this version of Granian."""
    if not version.startswith(tuple(f"{series}." for series in TESTED)):
        log.warning("server.untested", server="granian", version=version, tested=TESTED)


def _bound_silence(sock: socket.socket, stall: float) -> None:
    """Let the kernel end connections whose client takes nothing for ``stall`` seconds, or has gone.

    The guard sees nothing of what Granian has been given to send.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * stall))


def _most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1_000_000 if soft == resource.RLIM_INFINITY else soft
    return max(most - SPARE_FILES, most // 2, 1)
