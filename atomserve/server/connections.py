"""Hypercorn's connections, with the header timeout and the refusals that it lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import time
from typing import Any

import h11
import hypercorn.asyncio.run
import hypercorn.config
import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
from h11._receivebuffer import ReceiveBuffer
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol
from hypercorn.protocol.ws_stream import FrameTooLargeError, WSStream
from hypercorn.typing import AppWrapper
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason

from atomserve.server.idling import Context, Idle

CONTINUE = 100
PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""The part of HTTP/2's connection preface that reads like a request."""

PIECE = 256 * 1024
"""Most bytes of a body that are taken from a connection at once."""

ENOUGH = 64 * 1024
"""Bytes to send that do not wait for the end of the loop's turn."""


class Config(hypercorn.config.Config):
    """Hypercorn's configuration, with one more field."""

    header_timeout: float = 10.0
    """Seconds from the start of a connection until its first request's headers are there."""

    _dated = 0
    _date: list[tuple[bytes, bytes]]

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """Return what each answer has: the date, written once a second."""
        now = int(time())
        if now != self._dated:
            self._dated, self._date = now, super().response_headers(protocol)
        return self._date.copy()


def install() -> None:
    """Make Hypercorn use the connections of this module."""
    hypercorn.asyncio.run.TCPServer = Connection  # type: ignore[attr-defined,assignment]
    hypercorn.asyncio.run.WorkerContext = Context  # type: ignore[attr-defined]
    hypercorn.protocol.H11Protocol = Http1  # type: ignore[attr-defined,assignment]
    hypercorn.protocol.H2Protocol = Http2  # type: ignore[attr-defined]
    hypercorn.protocol.h11.WSStream = WebSocket  # type: ignore[attr-defined]
    hypercorn.protocol.h2.WSStream = WebSocket  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Begun(Updated):
    """The connection has become HTTP/2, and nothing was asked yet."""


class Connection(TCPServer):
    """Waits less for the first request of a connection than for the next one, and for no other.

    Hypercorn keeps the socket of a client that has left for as long as one that might ask again.
    What one turn of the loop has to say leaves in one write: an answer's head with its body.
    """

    config: Config
    context: Context

    idle_task: Idle  # type: ignore[assignment]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.idle_task = Idle(self.context.terminated, self._patience, self._leave)
        self._asked = False
        self._left = False
        self._said: list[bytes] = []
        self._size = 0

    def _patience(self) -> float:
        return self.config.keep_alive_timeout if self._asked else self.config.header_timeout

    def _leave(self) -> None:
        self._task_group.spawn(self._initiate_server_close)

    async def _read_data(self) -> None:
        # In larger pieces than Hypercorn's, since each costs a walk through all layers, and without
        # its wait_for: read_timeout is never set (hypercorn_config tells why).
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(PIECE)
            except OSError:
                break
            await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())
        self._left = True
        await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._say(event.data)
            return
        if isinstance(event, Updated):
            self._asked = not isinstance(event, Begun) and (self._asked or not event.idle)
            if self._left and event.idle:
                return
        await super().protocol_send(event)

    async def _say(self, data: bytes) -> None:
        if not data:
            return
        self._said.append(data)
        self._size += len(data)
        try:
            if self._size >= ENOUGH:
                self._flush()
            elif len(self._said) == 1:
                self.loop.call_soon(self._flush)
            await self.writer.drain()
        except (ConnectionError, RuntimeError):
            await self.protocol.handle(Closed())

    def _flush(self) -> None:
        if not self._said:
            return
        said, self._said, self._size = self._said, [], 0
        if not self.writer.is_closing():
            self.writer.writelines(said)

    async def _initiate_server_close(self) -> None:
        self._flush()
        await super()._initiate_server_close()

    async def _close(self) -> None:
        self._flush()
        self.idle_task.close()
        await super()._close()


class Received(ReceiveBuffer):
    """Gives all that it holds away as it is, where h11 would copy it twice."""

    def maybe_extract_at_most(self, count: int) -> bytearray | None:
        if len(self._data) > count:
            return super().maybe_extract_at_most(count)
        found, self._data = self._data, bytearray()
        self._next_line_search = self._multiple_lines_search = 0
        return found or None


class Http1(H11Protocol):
    """Passes bodies on with two copies less, and asks for one only when the app wants to read it.

    Hypercorn asks for whatever a client announces with ``Expect: 100-continue``, even what is
    then refused by its head. An upgrade to HTTP/2 is ignored.
    """

    _wanted = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert isinstance(self.connection, h11.Connection)
        self.connection._receive_buffer = Received()

    async def _check_protocol(self, event: h11.Request) -> None:
        # HTTP/2 by prior knowledge only: an upgrade would be answered in HTTP/2 whatever its
        # settings say, and RFC 9113 knows it no more.
        if event.method == b"PRI" and event.target == b"*" and event.http_version == b"2.0":
            raise H2ProtocolAssumedError(PREFACE + self.connection.trailing_data[0])

    async def _create_stream(self, request: h11.Request) -> None:
        app = self.app
        if self.connection.they_are_waiting_for_100_continue:
            self.app = partial(self._serve_on_demand, app)
        try:
            await super()._create_stream(request)
        finally:
            self.app = app

    async def _serve_on_demand(
        self, app: AppWrapper, scope: Any, receive: Callable[[], Any], *rest: Any
    ) -> None:
        async def receive_wanted() -> Any:
            # No more once the client sends, or has been answered.
            if self.connection.they_are_waiting_for_100_continue:
                self._wanted = True
                await self._send_h11_event(
                    h11.InformationalResponse(status_code=CONTINUE, headers=[])
                )
                self._wanted = False
            return await receive()

        await app(scope, receive_wanted, *rest)

    async def _send_h11_event(self, event: Any) -> None:
        if self._wanted or getattr(event, "status_code", 0) != CONTINUE:
            await super()._send_h11_event(event)


class Http2(H2Protocol):
    """Counts as idle from its start.

    Hypercorn takes the preface for a request, and then waits for the first stream for ever.
    """

    async def initiate(self, *upgrade: Any) -> None:
        await super().initiate(*upgrade)
        if not upgrade:
            await self.send(Begun(idle=True))


class WebSocket(WSStream):
    """Tells a client that breaks the protocol so, and leaves it.

    Hypercorn leaves it without a word, or, when a message is too large, says so and goes on; a
    client whose handshake it refuses, it keeps.
    """

    async def handle(self, event: StreamEvent) -> None:
        await super().handle(event)
        if self.closed and self.app_put is None and isinstance(event, Request):
            # Not from here: HTTP/2 counts the stream as begun when this returns.
            self.task_group.spawn(self.send, StreamClosed(stream_id=self.stream_id))

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                try:
                    self.buffer.extend(event)
                except FrameTooLargeError:
                    return await self._leave(CloseConnection(CloseReason.MESSAGE_TOO_BIG))
                if event.message_finished and self.app_put is not None:
                    await self.app_put(self.buffer.to_message())
                    self.buffer.clear()
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                # The client's own, or what wsproto has found wrong with its frames.
                await self._leave(event.response())
        return None

    async def _leave(self, last: CloseConnection) -> None:
        await self._send_wsproto_event(last)
        await self.send(StreamClosed(stream_id=self.stream_id))
