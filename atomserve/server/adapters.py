"""The HTTP servers that an application can run on, behind one signature."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Sequence
from typing import Any, Protocol

import anyio
import hypercorn.asyncio

from atomserve.control import BACKLOG
from atomserve.errors import ConfigError
from atomserve.hosting.lifespan import ASGIApp
from atomserve.server import connections
from atomserve.settings import Settings

GRACE = 30.0
"""Seconds beyond ``drain_timeout`` after which Hypercorn itself would cancel what is in flight."""


class Adapter(Protocol):
    """Serves ``app`` on listening sockets until ``stop`` is set and connections have ended.

    Sets ``serving`` when connections are accepted. Stops listening at once when ``stop`` is set.
    """

    async def __call__(
        self,
        app: ASGIApp,
        settings: Settings,
        listeners: Sequence[int],
        *,
        serving: anyio.Event,
        stop: anyio.Event,
    ) -> None: ...


async def serve_hypercorn(
    app: ASGIApp,
    settings: Settings,
    listeners: Sequence[int],
    *,
    serving: anyio.Event,
    stop: anyio.Event,
) -> None:
    """Serve HTTP/1.1 and HTTP/2 (by prior knowledge, or by ALPN with TLS) on Hypercorn.

    Give it a task of its own: on some versions of Python a cancellation count stays on the task.
    """

    async def stopped() -> None:
        for fd in listeners:  # Hypercorn lets whatever a plugin starts inherit them
            os.set_inheritable(fd, False)
        serving.set()  # it asks for its trigger once it listens
        await stop.wait()

    connections.install()
    await hypercorn.asyncio.serve(
        app,
        hypercorn_config(settings, listeners),
        shutdown_trigger=stopped,
        mode="asgi",
    )


def hypercorn_config(settings: Settings, listeners: Sequence[int]) -> connections.Config:
    """Say what Hypercorn must not leave at its defaults. Raises ``ConfigError`` for a bad key."""
    config = connections.Config()
    config.bind = [f"fd://{fd}" for fd in listeners]
    config.backlog = BACKLOG
    config.include_server_header = False
    # Its access log writes raw control characters of the path; the guard keeps the records.
    config.accesslog = None
    errors = logging.getLogger("hypercorn.error")
    errors.setLevel(logging.WARNING)
    config.errorlog = errors
    # A request cap would cut HTTP/2 streams in flight.
    config.keep_alive_max_requests = 2**31
    config.keep_alive_timeout = settings.keep_alive
    config.header_timeout = settings.header_timeout
    # read_timeout stays unset: it would also end connections whose request is being worked on.
    # We abort what is in flight ourselves, with 503; Hypercorn's own end would answer 500.
    config.graceful_timeout = settings.drain_timeout + GRACE
    # The guard answers 431 above the limit; far above it, the parsers give up.
    config.h11_max_incomplete_size = max(
        config.h11_max_incomplete_size, 2 * settings.limits.header_bytes
    )
    config.h2_max_header_list_size = max(
        config.h2_max_header_list_size, 2 * settings.limits.header_bytes
    )
    # So with messages: the session answers those over the limit, if they are not far above it.
    config.websocket_max_message_size = 2 * settings.limits.body
    config.h2_max_concurrent_streams = 100
    config.ssl_handshake_timeout = 10.0
    config.alpn_protocols = ["h2", "http/1.1"]
    config.certfile = settings.certfile
    config.keyfile = settings.keyfile or settings.certfile
    try:
        config.create_ssl_context()
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigError(f"certfile: cannot use {settings.certfile}: {exc}") from exc
    return config


def ignore_handshakes(loop: asyncio.AbstractEventLoop) -> None:
    """Keep failed TLS handshakes, which any client can cause, out of the log of errors."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), ssl.SSLError | ConnectionError):
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
