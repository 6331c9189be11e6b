"""Hypercorn's connections, with the header timeout and the close codes that it lacks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import h11
import hypercorn.asyncio.run
import hypercorn.config
import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
from h11._receivebuffer import ReceiveBuffer
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import FrameTooLargeError, WSStream
from wsproto.events import CloseConnection, Message, Ping
from wsproto.frame_protocol import CloseReason

PIECE = 256 * 1024
"""Most bytes of a body that are taken from a connection at once."""
SMALL = 16 * 1024
"""Bytes that may wait for the end of a loop turn."""


class Config(hypercorn.config.Config):
    """Hypercorn's configuration, with one more field."""

    header_timeout: float = 10.0
    """Seconds from the start of a connection until its first request's headers are there."""


def install() -> None:
    """Make Hypercorn use the connections of this module."""
    hypercorn.asyncio.run.TCPServer = Connection  # type: ignore[attr-defined]
    hypercorn.protocol.H11Protocol = Http1  # type: ignore[attr-defined,assignment]
    hypercorn.protocol.H2Protocol = Http2  # type: ignore[attr-defined]
    hypercorn.protocol.h11.WSStream = WebSocket  # type: ignore[attr-defined]
    hypercorn.protocol.h2.WSStream = WebSocket  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Begun(Updated):
    """The connection has become HTTP/2, and nothing was asked yet."""


class Connection(TCPServer):
    """Waits less for the first request than for the next one, and writes small things together.

    Hypercorn writes the head of an answer and its body apart: two system calls, two packets.
    """

    _asked = False
    _held = b""
    config: Config

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

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            self._asked = not isinstance(event, Begun) and (self._asked or not event.idle)
        elif isinstance(event, RawData):
            if len(self._held) + len(event.data) < SMALL:
                return await self._hold(event.data)
            self._flush()
        await super().protocol_send(event)
        return None

    async def _hold(self, data: bytes) -> None:
        if not data:
            return
        if not self._held:
            self.loop.call_soon(self._flush)
        self._held += data
        try:
            await self.writer.drain()  # what was written before may be too much already
        except (ConnectionError, RuntimeError):
            await self.protocol.handle(Closed())

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            # The end of a connection is noticed by who reads from it.
            with suppress(ConnectionError, RuntimeError):
                self.writer.write(held)

    async def _close(self) -> None:
        self._flush()
        await super()._close()

    async def _initiate_server_close(self) -> None:
        await self.protocol.handle(Closed())
        self._flush()
        self.writer.close()

    async def _idle_timeout(self) -> None:
        if self._asked:
            await super()._idle_timeout()
            return
        with anyio.move_on_after(self.config.header_timeout):
            await super()._idle_timeout()
            return
        # Closing cancels the task that this is.
        await asyncio.shield(self._initiate_server_close())


class Received(ReceiveBuffer):
    """Gives all that it holds away as it is, where h11 would copy it twice."""

    def maybe_extract_at_most(self, count: int) -> bytearray | None:
        if len(self._data) > count:
            return super().maybe_extract_at_most(count)
        found, self._data = self._data, bytearray()
        self._next_line_search = self._multiple_lines_search = 0
        return found or None


class Http1(H11Protocol):
    """Passes bodies on with two copies less."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert isinstance(self.connection, h11.Connection)
        self.connection._receive_buffer = Received()


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

    Hypercorn leaves it without a word, or, when a message is too large, says so and goes on.
    """

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
