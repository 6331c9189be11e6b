"""A bare Starlette endpoint on the same Hypercorn with the same settings, to be held against ours.

python -m benchmarks.bare PORT
"""

from __future__ import annotations

import socket
import sys

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from atomserve.server.adapters import serve_hypercorn
from atomserve.settings import Settings


async def predict(request: Request) -> JSONResponse:
    document = await request.json()
    return JSONResponse(document["x"])


app = Starlette(routes=[Route("/v1/models/echo_tiny/predict", predict, methods=["POST"])])


async def serve(app: ASGIApp, port: int) -> None:
    """Serve ``app`` as atomserve would."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await serve_hypercorn(
            app, Settings(), [listener.fileno()], serving=anyio.Event(), stop=anyio.Event()
        )


if __name__ == "__main__":
    anyio.run(serve, app, int(sys.argv[1]), backend_options={"use_uvloop": True})
