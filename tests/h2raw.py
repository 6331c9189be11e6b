"""A raw HTTP/2 client (prior knowledge), whose frames go out when the test says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
import h2.config
import h2.connection
import h2.errors
import h2.events
import hyperframe.frame


class Connection(h2.connection.H2Connection):
    """Goes on after a GOAWAY, as its streams do (RFC 9113, 6.8); h2 takes it for the end."""

    def _receive_goaway_frame(
        self, frame: hyperframe.frame.GoAwayFrame
    ) -> tuple[list[hyperframe.frame.Frame], list[h2.events.Event]]:
        if frame.error_code != h2.errors.ErrorCodes.NO_ERROR:
            return super()._receive_goaway_frame(frame)
        event = h2.events.ConnectionTerminated()
        event.error_code = h2.errors.ErrorCodes.NO_ERROR
        event.last_stream_id = frame.last_stream_id
        return [], [event]


@dataclass
class Stream:
    """What has come back on one stream."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None
    answered: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)


class H2:
    def __init__(self, socket: anyio.abc.SocketStream) -> None:
        self.socket = socket
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.connection = Connection(config)
        self.streams: dict[int, Stream] = defaultdict(Stream)
        self.lost = anyio.Event()
        self._writing = anyio.Lock()

    async def flush(self) -> None:
        async with self._writing:
            data = self.connection.data_to_send()
            if data:
                await self.socket.send(data)

    async def request(
        self, path: str = "/", *fields: tuple[str, str], method: str = "GET", end: bool = True
    ) -> int:
        stream = self.connection.get_next_available_stream_id()
        pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "test")]
        self.connection.send_headers(stream, [*pseudo, *fields], end_stream=end)
        await self.flush()
        return stream

    async def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.connection.send_data(stream, data, end_stream=end)
        await self.flush()

    async def answer(self, stream: int) -> Stream:
        await self.streams[stream].ended.wait()
        return self.streams[stream]

    async def listen(self) -> None:
        try:
            while True:
                for event in self.connection.receive_data(await self.socket.receive()):
                    self._note(event)
                await self.flush()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.lost.set()

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            stream = self.streams[event.stream_id]
            stream.headers = dict(event.headers)
            stream.status = int(stream.headers[":status"])
            stream.answered.set()
        elif isinstance(event, h2.events.DataReceived):
            self.streams[event.stream_id].body += event.data
            length = event.flow_controlled_length
            if length:
                self.connection.acknowledge_received_data(length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.streams[event.stream_id].ended.set()
        elif isinstance(event, h2.events.StreamReset):
            self.streams[event.stream_id].reset = event.error_code
            self.streams[event.stream_id].ended.set()
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.lost.set()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[H2]:
    socket = await anyio.connect_tcp("127.0.0.1", port)
    client = H2(socket)
    client.connection.initiate_connection()
    await client.flush()
    async with socket, anyio.create_task_group() as tasks:
        tasks.start_soon(client.listen)
        yield client
        tasks.cancel_scope.cancel()
