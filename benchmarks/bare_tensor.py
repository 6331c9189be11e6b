"""A bare ASGI app on the same Hypercorn: bodies go into blocks that it keeps, and back in pieces.

python -m benchmarks.bare_tensor PORT
"""

from __future__ import annotations

import sys

import anyio
from starlette.types import Receive, Scope, Send

from benchmarks.bare import serve

PIECE = 256 * 1024


class Mirror:
    """Answers every request with its body; a block serves one request at a time."""

    def __init__(self) -> None:
        self._blocks: list[bytearray] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        length = int(dict(scope["headers"]).get(b"content-length", b"0"))
        block = self._block(length)
        with memoryview(block) as view:
            await self._read(receive, view)
            headers = [(b"content-type", b"application/x-npy")]
            headers.append((b"content-length", b"%d" % length))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for start in range(0, length, PIECE):
                piece = bytes(view[start : min(start + PIECE, length)])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._blocks.append(block)

    def _block(self, length: int) -> bytearray:
        for block in self._blocks:
            if len(block) >= length:
                self._blocks.remove(block)
                return block
        return bytearray(length)

    async def _read(self, receive: Receive, view: memoryview) -> None:
        offset, more = 0, True
        while more:
            message = await receive()
            piece = message.get("body", b"")
            view[offset : offset + len(piece)] = piece
            offset += len(piece)
            more = message.get("more_body", False)


if __name__ == "__main__":
    anyio.run(serve, Mirror(), int(sys.argv[1]), backend_options={"use_uvloop": True})
