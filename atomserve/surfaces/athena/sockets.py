"""The WebSockets of Athena: each takes the steps that its `AthenaSession` decides."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import anyio
import anyio.abc
from starlette.types import Message, Receive, Scope, Send

from atomserve.codecs.athena.codes import SESSION_TIMEOUT
from atomserve.codecs.athena.errors import failure, failure_of
from atomserve.codecs.athena.service import Said, Service, pack, read_told
from atomserve.context import RawHeaders
from atomserve.engine.calls import Session
from atomserve.engine.jobs import Payload
from atomserve.errors import Abandoned, AtomError, DeadlineExceeded, TooLarge
from atomserve.guard.client import Client, ClientGone, client_of
from atomserve.surfaces.athena.sessions import AthenaSession
from atomserve.surfaces.athena.signing import Signed, check_app
from atomserve.surfaces.athena.steps import (
    CLOSE_POLICY,
    CLOSE_TOO_BIG,
    Close,
    End,
    Frame,
    Options,
    Step,
)
from atomserve.surfaces.origins import same_origin
from atomserve.surfaces.requests import Entry
from atomserve.surfaces.sessions import CLOSE_RESTART

MULTIPLEX = ["multiplex"]


class Sockets:
    """Serves WebSockets: frames have at most ``largest`` bytes; who stalls is dropped."""

    def __init__(self, *, origins: tuple[str, ...], largest: int, stall: float) -> None:
        self.origins = origins
        self.largest = largest
        self.stall = stall
        self.draining = False
        self._open: set[_Socket] = set()

    def drain(self) -> None:
        """Close each WebSocket as soon as it has no session."""
        self.draining = True
        for socket in self._open:
            socket.drain()

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        entry: Entry,
        service: Service,
        signed: Signed,
    ) -> None:
        """Serve one WebSocket, whose handshake was found right, until either side ends it."""
        if not same_origin(RawHeaders(scope["headers"]), self.origins):
            return await send({"type": "websocket.close", "code": CLOSE_POLICY})
        await send({"type": "websocket.accept"})
        query = parse_qs(scope["query_string"].decode("latin-1"))
        options = Options(
            multiplexed=query.get("stream_mode") == MULTIPLEX,
            text=service.text_in,
            expected=service.expected("base64"),
            header_pass=service.header_pass,
            read_timeout=service.read_timeout,
            session_timeout=service.session_timeout,
            native=not service.compatible,
        )
        machine = AthenaSession(options, monotonic())
        async with anyio.create_task_group() as tasks:
            said = scope["headers"]
            socket = _Socket(self, machine, tasks, entry=entry, signed=signed, headers=said)
            self._open.add(socket)
            try:
                await socket.run(client_of(scope), receive, send)
            finally:
                self._open.discard(socket)
            tasks.cancel_scope.cancel()
        return None


class _Socket:
    """One WebSocket, and the session of the engine for each of its own.

    Whoever has something for the machine holds the lock until all the steps are taken, so that the
    client is told things in the order in which they were decided.
    """

    def __init__(
        self,
        sockets: Sockets,
        machine: AthenaSession,
        tasks: anyio.abc.TaskGroup,
        *,
        entry: Entry,
        signed: Signed,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        self._sockets = sockets
        self._entry = entry
        self._machine = machine
        self._signed = signed
        self._headers = headers
        self._tasks = tasks
        self._lock = anyio.Lock()
        self._sessions: dict[str, Session] = {}
        self._over = anyio.Event()
        self._changed = anyio.Event()
        self._until = float("inf")
        self._client: Client
        self._send: Send

    async def run(self, client: Client, receive: Receive, send: Send) -> None:
        self._client, self._send = client, send
        try:
            self._tasks.start_soon(self._listen, receive)
            self._tasks.start_soon(self._watch)
            await self._over.wait()
        finally:
            for step in self._machine.left():
                self._end(step)
            for sid in list(self._sessions):
                self._drop(sid)

    def drain(self) -> None:
        """Leave as soon as no session is left."""
        self._tasks.start_soon(self._leave)

    async def _leave(self) -> None:
        async with self._lock:
            if not self._sessions:
                await self._take([Close(CLOSE_RESTART, "draining")])

    async def _listen(self, receive: Receive) -> None:
        while (text := await _next(receive)) is not None:
            if len(text) > self._sockets.largest:
                self._client.code = TooLarge.code
                await self._write(_closing(CLOSE_TOO_BIG, "the frame is too large"))
                return self._over.set()
            async with self._lock:
                frames = await self._take(self._machine.feed(text, monotonic()))
            for frame in frames:
                # Not in the lock: this waits for the wrapper, which may wait to be heard.
                await self._say(frame)
        if self._sessions:
            self._client.code = Abandoned.code
        return self._over.set()

    async def _watch(self) -> None:
        """Call the machine when its time has come."""
        while True:
            self._until = self._machine.deadline()
            if (wait := self._until - monotonic()) > 0:
                self._changed = anyio.Event()
                with anyio.move_on_after(wait):
                    await self._changed.wait()
                continue
            async with self._lock:
                await self._take(self._machine.expire(monotonic()))

    async def _take(self, steps: Iterable[Step]) -> list[Frame]:
        """Take ``steps``, and return the frames that are to be said to the wrapper."""
        frames: list[Frame] = []
        waiting = list(steps)
        while waiting:
            step = waiting.pop(0)
            match step:
                case Frame():
                    refused = self._begin(step) if step.seq == 1 else []
                    waiting[:0] = refused
                    if not refused:
                        frames.append(step)
                case End():
                    self._end(step)
                    if self._sockets.draining and not self._sessions:
                        waiting.append(Close(CLOSE_RESTART, "draining"))
                case Close(code, reason):
                    await self._write(_closing(code, reason))
                    self._over.set()
                case _:
                    await self._write({"type": "websocket.send", "text": step.body.decode()})
        if self._machine.deadline() < self._until:
            self._changed.set()
        return frames

    def _begin(self, frame: Frame) -> list[Step]:
        """Begin a session of the engine; returns what is to be done instead."""
        try:
            if self._signed.app_id:
                check_app(self._signed, frame.request.app_id)
            payload = Payload(form="athena", answer="athena")
            session = self._entry.session(payload, self._headers, self._client)
        except AtomError as exc:
            self._client.code = exc.code
            return self._machine.fail(frame.sid, failure_of(exc, "create"), monotonic())
        self._sessions[frame.sid] = session
        self._tasks.start_soon(self._follow, frame.sid, session)
        return []

    async def _say(self, frame: Frame) -> None:
        session = self._sessions.get(frame.sid)
        if session is not None:
            said = Said(frame.sid, frame.request, frame.last)
            try:
                await session.send(Payload(form="athena", body=pack(said)))
            except AtomError as exc:  # there is no room for it
                self._client.code = exc.code
                async with self._lock:
                    steps = self._machine.fail(frame.sid, failure_of(exc), monotonic())
                    await self._take(steps)

    async def _follow(self, sid: str, session: Session) -> None:
        """Tell the client what the wrapper says, until the end of the session."""
        async with session:
            try:
                async for answer in session:
                    told = read_told(answer.body)
                    async with self._lock:
                        if told.opened:
                            steps = self._machine.opened(sid, monotonic())
                        else:
                            steps = self._machine.answer(sid, told.nodes, monotonic())
                        await self._take(steps)
                steps = self._machine.finish(sid, monotonic())
            except AtomError as exc:
                if not isinstance(exc, Abandoned):
                    self._client.code = exc.code
                late = isinstance(exc, DeadlineExceeded)
                what = failure(SESSION_TIMEOUT) if late else failure_of(exc)
                steps = self._machine.fail(sid, what, monotonic())
            async with self._lock:
                await self._take(steps)

    def _end(self, step: Any) -> None:
        if isinstance(step, End):
            self._drop(step.sid)

    def _drop(self, sid: str) -> None:
        session = self._sessions.pop(sid, None)
        if session is not None:
            session.finish()  # whoever waits for room in it goes on
            session.abandon()

    async def _write(self, message: Message) -> None:
        if self._over.is_set():
            return
        try:
            with anyio.fail_after(self._sockets.stall):
                await self._send(message)
        except TimeoutError:
            self._client.code = Abandoned.code
            self._over.set()
            raise ClientGone("the client does not read") from None


def _closing(code: int, reason: str) -> Message:
    return {"type": "websocket.close", "code": code, "reason": reason}


async def _next(receive: Receive) -> str | bytes | None:
    """Return the next frame; None: the client has left."""
    message = await receive()
    if message["type"] != "websocket.receive":
        return None
    text: str | None = message.get("text")
    return message["bytes"] if text is None else text
