"""Write a stream's answers as Server-Sent Events or as NDJSON lines."""

from __future__ import annotations

from typing import Protocol

import anyio
import msgspec
from starlette.types import Send

from atomserve.engine.calls import Stream
from atomserve.engine.jobs import Answer
from atomserve.errors import AtomError, Draining, problem

RETRY = 1000
"""Milliseconds after which an EventSource should come back after a drain."""


class Format(Protocol):
    """How the parts of a stream are written."""

    media_type: bytes

    def item(self, number: int, answer: Answer) -> bytes: ...

    def error(self, error: AtomError) -> bytes: ...

    end: bytes
    alive: bytes


class ServerSentEvents:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    media_type = b"text/event-stream; charset=utf-8"
    end = b"event: end\ndata:\n\n"
    alive = b":\n\n"

    def item(self, number: int, answer: Answer) -> bytes:
        # JSON has no raw line breaks, so an answer is always one data line.
        return b"".join((b"id: %d\ndata: " % number, answer.body, b"\n\n"))

    def error(self, error: AtomError) -> bytes:
        document = msgspec.json.encode(problem(error))
        if isinstance(error, Draining):
            return b"event: shutdown\nretry: %d\ndata: %b\n\n" % (RETRY, document)
        return b"event: error\ndata: %b\n\n" % document


class Lines:
    """One JSON object a line: ``{"data": ...}``, then ``{"end": true}`` or ``{"error": ...}``."""

    media_type = b"application/x-ndjson"
    end = b'{"end":true}\n'
    alive = b""

    def item(self, number: int, answer: Answer) -> bytes:
        return b"".join((b'{"data":', answer.body, b"}\n"))

    def error(self, error: AtomError) -> bytes:
        return b'{"error":%b}\n' % msgspec.json.encode(problem(error))


FORMATS: dict[str, Format] = {"sse": ServerSentEvents(), "ndjson": Lines()}


async def send_events(send: Send, stream: Stream, form: Format, *, silence: float) -> None:
    """Send the whole stream, with a comment after each ``silence`` seconds of nothing.

    What goes wrong before the first answer is raised, so that it becomes an ordinary response;
    what goes wrong later becomes the last event.
    """
    async with stream:
        first = await _next(stream, silence)
        await _start(send, form)
        number, answer = 0, first
        while answer is not END:
            if answer is SILENCE:
                await _body(send, form.alive)
            else:
                await _body(send, form.item(number, answer))
                number += 1
            try:
                answer = await _next(stream, silence)
            except AtomError as exc:
                return await _body(send, form.error(exc), more=False)
        await _body(send, form.end, more=False)
    return None


END = Answer(b"end")
SILENCE = Answer(b"silence")


async def _next(stream: Stream, patience: float) -> Answer:
    with anyio.move_on_after(patience):
        return await anext(stream, END)
    return SILENCE


async def _start(send: Send, form: Format) -> None:
    headers = [
        (b"content-type", form.media_type),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _body(send: Send, body: bytes, *, more: bool = True) -> None:
    if body or not more:
        await send({"type": "http.response.body", "body": body, "more_body": more})
