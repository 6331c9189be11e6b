"""Read a request's body into one piece, and write an answer's in bounded ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.types import Receive, Send

from atomserve.backends.links import INLINE
from atomserve.engine.backend import Sink
from atomserve.engine.jobs import Answer, Body
from atomserve.errors import Abandoned

PIECE = 256 * 1024
"""Bytes of an answer handed to the server at once."""


async def read_body(
    receive: Receive, declared: int | None, sink: Callable[[int | None], Sink]
) -> bytes | bytearray | Body:
    """Read the whole body; ``declared`` is its Content-Length, ``sink`` takes a large one.

    Raises:
        Abandoned: the client left before the end.
        AtomError: whatever the guard says of the body, or there is no room for it.
    """
    first, more = await _piece(receive)
    if len(first) <= INLINE and (not more or len(first) == declared):
        # One more message follows from servers that end every body with an empty one.
        while more:
            _, more = await _piece(receive)
        return first
    small = bytearray(first)
    while more and len(small) <= INLINE:
        piece, more = await _piece(receive)
        small += piece
    if not more and len(small) <= INLINE:
        return small
    return await _pour(receive, small, more, sink(declared))


async def _pour(receive: Receive, first: bytearray, more: bool, sink: Sink) -> bytearray | Body:
    try:
        sink.write(first)
        while more:
            piece, more = await _piece(receive)
            sink.write(piece)
    except BaseException:
        sink.discard()
        raise
    return sink.close()


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] != "http.request":
        raise Abandoned
    return message.get("body", b""), message.get("more_body", False)


async def send_answer(
    send: Send, answer: Answer, extra: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send a complete answer with status 200 and the ``extra`` header fields."""
    body = answer.body
    size = len(body) if isinstance(body, bytes) else body.nbytes
    headers = [
        (b"content-type", answer.media_type.encode()),
        (b"content-length", str(len(answer.head) + size).encode()),
        *extra,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if answer.head:
        await send({"type": "http.response.body", "body": answer.head, "more_body": True})
    if size > PIECE:
        view = memoryview(body).cast("B")
        for start in range(0, size - PIECE, PIECE):
            piece = bytes(view[start : start + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        body = bytes(view[(size - 1) // PIECE * PIECE :])
    await send({"type": "http.response.body", "body": body, "more_body": False})
