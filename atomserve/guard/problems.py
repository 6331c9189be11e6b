"""An error as an HTTP answer: RFC 9457 problem details with the headers that belong to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import msgspec
from starlette.types import Send

from atomserve.errors import AtomError, Overloaded, problem

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]
"""Status, headers and body."""
Refusal = Callable[[AtomError], Answer]

MEDIA_TYPE = "application/problem+json"


def headers_of(error: AtomError) -> Headers:
    """Return the header fields that belong to ``error``, in whatever form it is told."""
    headers = list(error.headers)
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % _whole(error.retry_after)))
    if isinstance(error, Overloaded) and error.limit is not None:
        name = error.policy
        left = f'"{name}";r={error.remaining}'
        if error.reset is not None:
            left += f";t={_whole(error.reset)}"
        headers.append((b"ratelimit-policy", f'"{name}";q={error.limit}'.encode()))
        headers.append((b"ratelimit", left.encode()))
    return headers


def _whole(seconds: float) -> int:
    """Round up: who comes back sooner comes too soon."""
    return max(1, math.ceil(seconds))


def problem_response(error: AtomError) -> Answer:
    """Return the status, the headers and the body that tell a client of ``error``."""
    document = problem(error)
    try:
        body = msgspec.json.encode(document)
    except UnicodeEncodeError:  # the text quotes a lone surrogate; escaped, it is still valid JSON
        body = json.dumps(document).encode()
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        *headers_of(error),
    ]
    return error.status, headers, body


async def send_refusal(send: Send, answer: Answer, *, kind: str = "http.response") -> None:
    """Answer with an error; ``kind="websocket.http.response"`` refuses a WebSocket's handshake."""
    status, headers, body = answer
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body, "more_body": False})
