"""An error as an HTTP answer: RFC 9457 problem details with the headers that belong to it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import msgspec
from starlette.types import Send

from atomserve.errors import AtomError, MethodNotAllowed, problem

Headers = list[tuple[bytes, bytes]]

MEDIA_TYPE = "application/problem+json"


class Internal(AtomError):
    """The server failed on this request."""

    code, status = "internal", 500


def problem_response(error: AtomError, *, instance: str = "") -> tuple[int, Headers, bytes]:
    """Return the status, the headers and the body that tell a client of ``error``."""
    document = problem(error, instance=instance)
    try:
        body = msgspec.json.encode(document)
    except UnicodeEncodeError:  # the text quotes a lone surrogate; escaped, it is still valid JSON
        body = json.dumps(document).encode()
    headers: Headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allow).encode()))
    return error.status, headers, body


async def send_problem(
    send: Send,
    error: AtomError,
    *,
    instance: str = "",
    headers: Iterable[tuple[bytes, bytes]] = (),
    kind: str = "http.response",
) -> None:
    """Answer with ``error``; ``kind="websocket.http.response"`` refuses a WebSocket's handshake."""
    status, own, body = problem_response(error, instance=instance)
    start = {"type": f"{kind}.start", "status": status, "headers": [*own, *headers]}
    await send(start)
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
