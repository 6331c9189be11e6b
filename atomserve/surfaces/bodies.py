"""Read a request's body into one piece, and write an answer's in bounded ones."""

from __future__ import annotations

from starlette.types import Receive, Send

from atomserve.errors import Abandoned, BadRequest

PIECE = 256 * 1024
"""Bytes of an answer handed to the server at once."""


async def read_body(receive: Receive, declared: int | None) -> bytes | bytearray:
    """Read the whole body; ``declared`` is its Content-Length, if there is one.

    Raises:
        Abandoned: the client left before the end.
        AtomError: whatever the guard says of the body.
    """
    first, more = await _piece(receive)
    if not more or len(first) == declared:
        # One more message follows from servers that end every body with an empty one.
        while more:
            _, more = await _piece(receive)
        return first
    body = bytearray(first)
    while more:
        piece, more = await _piece(receive)
        body += piece
    if declared is not None and len(body) != declared:
        raise BadRequest(f"the body has {len(body)} bytes and Content-Length says {declared}")
    return body


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] != "http.request":
        raise Abandoned
    return message.get("body", b""), message.get("more_body", False)


async def send_answer(send: Send, body: bytes | memoryview, media_type: str) -> None:
    """Send a complete answer with status 200."""
    size = len(body) if isinstance(body, bytes) else body.nbytes
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(size).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if size > PIECE:
        view = memoryview(body).cast("B")
        for start in range(0, size - PIECE, PIECE):
            piece = bytes(view[start : start + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        body = bytes(view[(size - 1) // PIECE * PIECE :])
    await send({"type": "http.response.body", "body": body, "more_body": False})
