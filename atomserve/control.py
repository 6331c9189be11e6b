"""What the supervisor and its children tell each other, and the channel that carries it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import anyio
import msgspec

from atomserve.settings import Settings

MAX_FRAME = 1024 * 1024
"""Most bytes of one message: nothing but settings comes near it."""
BACKLOG = 1024
"""Connections that may wait to be accepted, for each listening socket."""
MAX_OUTBOX = 4 * MAX_FRAME
"""Most bytes that wait for a peer that does not read."""

_PREFIX = 4

M = TypeVar("M")


class BrokenChannel(Exception):
    """The other end is gone, or does not speak this protocol."""


# From the supervisor.


class Configure(msgspec.Struct, frozen=True, tag=True):
    """Always the first message: everything that a child has to know."""

    settings: Settings
    sources: tuple[Any, ...]
    """What to serve; plain data here, for the child's application to convert."""
    index: int
    listeners: tuple[int, ...]
    """File descriptors of the listening sockets, open in the child."""
    parent: int
    """The supervisor's process id."""


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Stop in order: not ready, accept for ``delay``, finish within ``timeout`` seconds, leave."""

    delay: float
    timeout: float


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Leave at once."""


Order = Configure | Drain | Stop


# From a child.


class ModelChanged(msgspec.Struct, frozen=True, tag=True):
    """A model entered a state: loading, ready, failed."""

    model: str
    state: str
    detail: str = ""


class Serving(msgspec.Struct, frozen=True, tag=True):
    """The child accepts connections."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The child wants traffic."""


class NotReady(msgspec.Struct, frozen=True, tag=True):
    """The child wants no traffic."""


class Drained(msgspec.Struct, frozen=True, tag=True):
    """The child has stopped in order; ``aborted`` requests did not finish in time."""

    aborted: int


class Fatal(msgspec.Struct, frozen=True, tag=True):
    """Starting again would not help: the whole instance ends with ``exit_code``."""

    message: str
    exit_code: int


Report = ModelChanged | Serving | Ready | NotReady | Drained | Fatal


def frame(message: msgspec.Struct) -> bytes:
    """Encode ``message`` with its length in front."""
    body = msgspec.json.encode(message)
    if len(body) > MAX_FRAME:
        raise BrokenChannel(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return len(body).to_bytes(_PREFIX, "big") + body


class Framer(Generic[M]):
    """Cuts a stream of bytes into messages of the types in ``kinds``; does no I/O."""

    def __init__(self, kinds: Any) -> None:
        self._decoder: msgspec.json.Decoder[M] = msgspec.json.Decoder(kinds)
        self._buffer = bytearray()

    def __repr__(self) -> str:
        return f"<Framer: {len(self._buffer)} bytes held, {self.missing} missing>"

    @property
    def missing(self) -> int:
        """How many bytes to read at least before there can be another message."""
        return self._end - len(self._buffer)

    @property
    def _end(self) -> int:
        if len(self._buffer) < _PREFIX:
            return _PREFIX
        size = int.from_bytes(self._buffer[:_PREFIX], "big")
        if size > MAX_FRAME:
            raise BrokenChannel(f"a message of {size} bytes is over the limit of {MAX_FRAME}")
        return _PREFIX + size

    def feed(self, data: bytes) -> list[M]:
        """Take ``data`` and return the messages that it completes."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _PREFIX and (end := self._end) <= len(self._buffer):
            messages.append(self._decode(bytes(self._buffer[_PREFIX:end])))
            del self._buffer[:end]
        return messages

    def _decode(self, body: bytes) -> M:
        try:
            return self._decoder.decode(body)
        except msgspec.DecodeError as exc:
            raise BrokenChannel(f"a message that is none: {exc}") from exc


def read_first(sock: socket.socket, kinds: Any) -> Any:
    """Block until ``sock`` has given one message, and read not a byte more than that."""
    framer: Framer[Any] = Framer(kinds)
    while True:
        data = sock.recv(framer.missing)
        if not data:
            raise BrokenChannel("the other end closed before it said anything")
        for message in framer.feed(data):
            return message


class Channel(Generic[M]):
    """One end of the channel, on a socket that it owns; yields the messages of the other end."""

    def __init__(self, sock: socket.socket, kinds: Any) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._framer: Framer[M] = Framer(kinds)
        self._outbox = bytearray()
        self._posted = anyio.Event()
        self._sending = anyio.Lock()

    def post(self, message: msgspec.Struct) -> None:
        """Queue ``message`` for ``deliver`` or ``flush``, without waiting."""
        if len(self._outbox) > MAX_OUTBOX:
            raise BrokenChannel("the other end does not read")
        self._outbox += frame(message)
        self._posted.set()

    async def deliver(self) -> None:
        """Send what is posted, for as long as this runs."""
        while True:
            await self._posted.wait()
            self._posted = anyio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Return when everything posted so far has been sent."""
        async with self._sending:
            while self._outbox:
                try:
                    sent = self._sock.send(self._outbox)
                except BlockingIOError:
                    await anyio.wait_writable(self._sock)
                except OSError as exc:
                    raise BrokenChannel("the other end is gone") from exc
                else:
                    del self._outbox[:sent]

    async def __aiter__(self) -> AsyncIterator[M]:
        while True:
            await anyio.wait_readable(self._sock)
            try:
                data = self._sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            for message in self._framer.feed(data):
                yield message

    def close(self) -> None:
        self._sock.close()
