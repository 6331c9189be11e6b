"""Sessions over a WebSocket: NDJSON envelopes in text frames, msgpack ones in binary frames."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
from starlette.types import Message, Receive, Scope, Send

from atomserve.context import Context, RawHeaders
from atomserve.engine.calls import Session
from atomserve.engine.jobs import Answer, AnswerForm, Payload
from atomserve.engine.models import Model
from atomserve.errors import (
    Abandoned,
    AtomError,
    BadRequest,
    Draining,
    Invalid,
    NotReady,
    Overloaded,
    TooLarge,
    problem,
)
from atomserve.guard.client import client_of
from atomserve.surfaces.origins import same_origin

CLOSE_END, CLOSE_POLICY, CLOSE_TOO_BIG, CLOSE_FAILED = 1000, 1008, 1009, 1011
CLOSE_RESTART, CLOSE_TRY_LATER = 1012, 1013
"""https://www.iana.org/assignments/websocket, "Close Code Number Registry"."""

STALL = 30.0
"""Seconds after which a reader that takes nothing is dropped."""


class Envelope(msgspec.Struct):
    """One frame of a client: an item, or the end of its items."""

    data: msgspec.Raw = msgspec.Raw(b"")
    end: bool = False


_json = msgspec.json.Decoder(Envelope)
_msgpack = msgspec.msgpack.Decoder(Envelope)


class SessionEndpoint:
    """``/v1/models/{name}/session``: one model's WebSocket, a plain ASGI app."""

    def __init__(self, model: Model, route: str, *, origins: tuple[str, ...], largest: int) -> None:
        self._model = model
        self._route = route
        self._origins = origins
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one session until either side ends it."""
        client = client_of(scope)
        client.model, client.route = self._model.name, self._route
        if scope["type"] != "websocket":
            raise BadRequest(f"{self._route} takes WebSockets only")
        headers = RawHeaders(scope["headers"])
        await receive()  # websocket.connect
        if not same_origin(headers, self._origins):
            return await send({"type": "websocket.close", "code": CLOSE_POLICY})
        context = Context(model=self._model.name, request_id=client.request_id, headers=headers)
        try:
            self._model.check()
        except AtomError as exc:
            await send({"type": "websocket.accept"})
            return await _close(send, exc, binary=False)
        await send({"type": "websocket.accept"})
        first = await _receive(receive)
        if first is None:
            return None
        binary = first.get("bytes") is not None
        talk = _Talk(receive, send, binary=binary, largest=self._largest)
        try:
            form: AnswerForm = "msgpack" if binary else "json"
            session = self._model.session(Payload(answer=form), context)
        except AtomError as exc:
            return await _close(send, exc, binary=binary)
        client.on_gone(session.abandon)
        async with session:
            await talk.run(session, first)
        return None


class _Talk:
    """Both directions of one session at once."""

    def __init__(self, receive: Receive, send: Send, *, binary: bool, largest: int) -> None:
        self._receive = receive
        self._send = send
        self._binary = binary
        self._largest = largest
        self._fault: AtomError | None = None

    async def run(self, session: Session, first: Message) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, session, first)
            await self._speak(session)
            tasks.cancel_scope.cancel()

    async def _listen(self, session: Session, message: Message | None) -> None:
        while message is not None:
            try:
                item = self._item(message)
            except AtomError as exc:
                self._fault = exc
                return session.abandon()
            if item is None:
                return session.finish()
            await session.send(item)
            message = await _receive(self._receive)
        return session.abandon()

    def _item(self, message: Message) -> Payload | None:
        body = message.get("bytes")
        if (body is not None) != self._binary:
            raise BadRequest("a session's frames are all text or all binary")
        raw: Any = body if self._binary else message["text"]
        if len(raw) > self._largest:
            raise TooLarge(f"a frame may have {self._largest} bytes")
        try:
            envelope = (_msgpack if self._binary else _json).decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise BadRequest(f"not an envelope: {exc}") from exc
        if envelope.end:
            return None
        data = bytes(envelope.data)
        if not data:
            raise BadRequest('an envelope has "data" or "end"')
        return Payload(form="msgpack" if self._binary else "json", body=data)

    async def _speak(self, session: Session) -> None:
        try:
            async for answer in session:
                await self._write(self._envelope(answer))
        except AtomError as exc:
            fault = self._fault or exc
            if not (isinstance(fault, Abandoned) and self._fault is None):
                await _close(self._send, fault, binary=self._binary)
            return
        await self._write(_encode({"end": True}, self._binary))
        await self._send({"type": "websocket.close", "code": CLOSE_END})

    def _envelope(self, answer: Answer) -> bytes:
        if self._binary:
            return b"".join((b"\x81\xa4data", answer.body))  # {"data": answer}, a map of one
        return b"".join((b'{"data":', answer.body, b"}"))

    async def _write(self, frame: bytes) -> None:
        with anyio.fail_after(STALL):
            await self._send(_frame(frame, self._binary))


async def _receive(receive: Receive) -> Message | None:
    message = await receive()
    return message if message["type"] == "websocket.receive" else None


async def _close(send: Send, error: AtomError, *, binary: bool) -> None:
    await send(_frame(_encode({"error": problem(error)}, binary), binary))
    await send({"type": "websocket.close", "code": _close_code(error), "reason": error.code})


def _close_code(error: AtomError) -> int:
    if isinstance(error, Draining):
        return CLOSE_RESTART
    if isinstance(error, Overloaded | NotReady):
        return CLOSE_TRY_LATER
    if isinstance(error, TooLarge):
        return CLOSE_TOO_BIG
    return CLOSE_POLICY if isinstance(error, BadRequest | Invalid) else CLOSE_FAILED


def _encode(document: dict[str, Any], binary: bool) -> bytes:
    return msgspec.msgpack.encode(document) if binary else msgspec.json.encode(document)


def _frame(body: bytes, binary: bool) -> Message:
    if binary:
        return {"type": "websocket.send", "bytes": body}
    return {"type": "websocket.send", "text": body.decode()}
