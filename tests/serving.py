"""Our Hypercorn around an ASGI application, on a free loopback port, inside the test's loop."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import hypercorn.asyncio
from starlette.types import ASGIApp

from atomserve.server.connections import Config, install


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """Serve ``app`` and yield its port; what is still running at the end has 0.2 s."""
    install()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.graceful_timeout = 0.2
    # Hypercorn holds the socket of a kept connection for as long after its client has closed it.
    config.keep_alive_timeout = 1
    stop = anyio.Event()

    ended = anyio.Event()

    async def run() -> None:
        await hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait, mode="asgi")
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        try:
            yield port
        finally:
            stop.set()
            with anyio.move_on_after(3, shield=True):  # it ends badly when it is cancelled
                await ended.wait()
