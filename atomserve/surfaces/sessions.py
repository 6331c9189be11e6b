"""Sessions over a WebSocket: NDJSON envelopes in text frames, msgpack ones in binary frames."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
from starlette.types import Message, Receive, Scope, Send

from atomserve.context import RawHeaders
from atomserve.engine.calls import Session
from atomserve.engine.jobs import Answer, AnswerForm, Payload
from atomserve.errors import (
    Abandoned,
    AtomError,
    BadRequest,
    Busy,
    DeadlineExceeded,
    Draining,
    Invalid,
    MethodNotAllowed,
    NotReady,
    Overloaded,
    TooLarge,
    problem,
)
from atomserve.guard.client import Client, ClientGone
from atomserve.surfaces.origins import same_origin
from atomserve.surfaces.requests import Entry

CLOSE_END, CLOSE_POLICY, CLOSE_TOO_BIG, CLOSE_FAILED = 1000, 1008, 1009, 1011
CLOSE_RESTART, CLOSE_TRY_LATER = 1012, 1013
"""https://www.iana.org/assignments/websocket, "Close Code Number Registry"."""


class Envelope(msgspec.Struct):
    """One frame of a client: an item, or the end of its items."""

    data: msgspec.Raw = msgspec.Raw(b"")
    end: bool = False


_json = msgspec.json.Decoder(Envelope)
_msgpack = msgspec.msgpack.Decoder(Envelope)


class SessionEndpoint:
    """``/v1/models/{name}/session``: one model's WebSocket, a plain ASGI app.

    Frames may have ``largest`` bytes; a client that takes nothing for ``stall`` seconds is dropped.
    """

    def __init__(
        self, entry: Entry, *, origins: tuple[str, ...], largest: int, stall: float
    ) -> None:
        self._entry = entry
        self._origins = origins
        self._largest = largest
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one session until either side ends it."""
        entry = self._entry
        client, model = entry.client(scope), entry.model
        if scope["type"] != "websocket":
            if scope["method"] != "GET":
                raise MethodNotAllowed(f"{entry.route} takes WebSockets only", allow=("GET",))
            raise BadRequest(f"{entry.route} takes WebSockets only")
        await receive()  # websocket.connect
        if not same_origin(RawHeaders(scope["headers"]), self._origins):
            return await send({"type": "websocket.close", "code": CLOSE_POLICY})
        frames = _Frames(client, send, self._stall)
        try:
            signature = model.check(client.tenant)
        except AtomError as exc:
            # Accepted first: pages are shown a close code, but no status of a refusal.
            await send({"type": "websocket.accept"})
            return await frames.fail(exc)
        if signature.takes != "session":
            raise BadRequest(f"model {model.name!r} takes no sessions: POST to /predict")
        await send({"type": "websocket.accept"})
        first = await _receive(receive)
        if first is None:
            return None
        frames.binary = first.get("bytes") is not None
        form: AnswerForm = "msgpack" if frames.binary else "json"
        try:
            session = entry.session(Payload(answer=form), scope["headers"], client)
        except AtomError as exc:
            return await frames.fail(exc)
        async with session:
            await _Talk(receive, frames, largest=self._largest).run(session, first)
        return None


class _Frames:
    """Writes what a session's client is told, all in text or all in binary frames.

    Raises `ClientGone` when the client takes nothing for ``stall`` seconds.
    """

    def __init__(self, client: Client, send: Send, stall: float) -> None:
        self.binary = False
        self._client = client
        self._send = send
        self._stall = stall

    async def answer(self, answer: Answer) -> None:
        if self.binary:
            await self._frame(b"".join((b"\x81\xa4data", answer.body)))  # {"data": answer}
        else:
            await self._frame(b"".join((b'{"data":', answer.body, b"}")))

    async def end(self) -> None:
        await self._document({"end": True})
        await self._write({"type": "websocket.close", "code": CLOSE_END})

    async def fail(self, error: AtomError) -> None:
        self._client.code = error.code
        await self._document({"error": problem(error)})
        code = _close_code(error)
        await self._write({"type": "websocket.close", "code": code, "reason": error.code})

    def gone(self) -> None:
        """Take note that nobody is there to be told anything."""
        self._client.code = Abandoned.code

    async def _document(self, document: dict[str, Any]) -> None:
        encode = msgspec.msgpack.encode if self.binary else msgspec.json.encode
        await self._frame(encode(document))

    async def _frame(self, body: bytes) -> None:
        if self.binary:
            await self._write({"type": "websocket.send", "bytes": body})
        else:
            await self._write({"type": "websocket.send", "text": body.decode()})

    async def _write(self, message: Message) -> None:
        try:
            with anyio.fail_after(self._stall):
                await self._send(message)
        except TimeoutError:
            self.gone()
            raise ClientGone("the client does not read") from None


class _Talk:
    """Both directions of one session at once."""

    def __init__(self, receive: Receive, frames: _Frames, *, largest: int) -> None:
        self._receive = receive
        self._frames = frames
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
                if item is None:
                    session.finish()
                    break
                await session.send(item)
            except AtomError as exc:
                self._fault = exc
                return session.abandon()
            message = await _receive(self._receive)
        # Whoever has no more to say may still leave before the answers end.
        while message is not None:
            message = await _receive(self._receive)
        return session.abandon()

    def _item(self, message: Message) -> Payload | None:
        body = message.get("bytes")
        binary = self._frames.binary
        if (body is not None) != binary:
            raise BadRequest("a session's frames are all text or all binary")
        raw: Any = body if binary else message["text"]
        if len(raw) > self._largest:
            raise TooLarge(f"a frame may have {self._largest} bytes")
        try:
            envelope = (_msgpack if binary else _json).decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise BadRequest(f"not an envelope: {exc}") from exc
        if envelope.end:
            return None
        data = bytes(envelope.data)
        if not data:
            raise BadRequest('an envelope has "data" or "end"')
        return Payload(form="msgpack" if binary else "json", body=data)

    async def _speak(self, session: Session) -> None:
        try:
            async for answer in session:
                await self._frames.answer(answer)
        except AtomError as exc:
            fault = self._fault or exc
            if isinstance(fault, Abandoned):
                return self._frames.gone()
            return await self._frames.fail(fault)
        await self._frames.end()
        return None


async def _receive(receive: Receive) -> Message | None:
    message = await receive()
    return message if message["type"] == "websocket.receive" else None


def _close_code(error: AtomError) -> int:
    if isinstance(error, Draining):
        return CLOSE_RESTART
    if isinstance(error, Overloaded | Busy | NotReady | DeadlineExceeded):
        return CLOSE_TRY_LATER
    if isinstance(error, TooLarge):
        return CLOSE_TOO_BIG
    return CLOSE_POLICY if isinstance(error, BadRequest | Invalid) else CLOSE_FAILED
