"""The channel between the supervisor and a child: messages with their lengths, and descriptors."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Generic, TypeVar

import anyio
import msgspec

MAX_FRAME = 1024 * 1024
"""Most bytes of one message: nothing but settings comes near it."""
MAX_OUTBOX = 4 * MAX_FRAME
"""Most bytes that wait for a peer that does not read."""

_PREFIX = 4

M = TypeVar("M")


class BrokenChannel(Exception):
    """The other end is gone, or does not speak this protocol."""


class Oversize(BrokenChannel):
    """A message of ours is too large to be sent; the channel is as good as it was."""


class Lacking(Exception):
    """Descriptors were sent, and did not arrive."""


def frame(message: msgspec.Struct) -> bytes:
    """Encode ``message`` with its length in front.

    Raises:
        Oversize: it has more than ``MAX_FRAME`` bytes.
    """
    body = msgspec.json.encode(message)
    if len(body) > MAX_FRAME:
        kind = type(message).__name__
        raise Oversize(f"a {kind} of {len(body)} bytes is over the limit of {MAX_FRAME}")
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
        self._outbox: deque[tuple[bytearray, tuple[int, ...]]] = deque()
        self._queued = 0
        self._received: deque[Sequence[int]] = deque()  # those of each message that had any
        self._posted = anyio.Event()
        self._sending = anyio.Lock()

    def post(self, message: msgspec.Struct, descriptors: tuple[int, ...] = ()) -> None:
        """Queue ``message`` for ``deliver`` or ``flush``, without waiting.

        ``descriptors`` travel with it; copies of them, so that the caller may close its own.

        Raises:
            Oversize: ``message`` is too large, and is not sent.
            BrokenChannel: the other end does not read.
        """
        if self._queued > MAX_OUTBOX:
            raise BrokenChannel("the other end does not read")
        data = frame(message)
        self._queued += len(data)
        if descriptors or not self._outbox or self._outbox[-1][1]:
            self._outbox.append((bytearray(data), tuple(map(os.dup, descriptors))))
        else:
            self._outbox[-1][0].extend(data)
        self._posted.set()

    def descriptors(self, count: int) -> Sequence[int]:
        """Return the descriptors that came with the message just read; the caller owns them.

        Raises:
            Lacking: this process may not open so many files more.
        """
        found = self._received.popleft()
        if len(found) < count:
            _close(found)
            raise Lacking(f"{len(found)} descriptors of {count} came: too many files are open")
        return found

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
                data, descriptors = self._outbox[0]
                try:
                    sent = socket.send_fds(self._sock, [data], descriptors)
                except BlockingIOError:
                    await anyio.wait_writable(self._sock)
                    continue
                except OSError as exc:
                    raise BrokenChannel("the other end is gone") from exc
                _close(descriptors)
                self._queued -= sent
                del data[:sent]
                if data:
                    self._outbox[0] = (data, ())
                else:
                    self._outbox.popleft()

    async def __aiter__(self) -> AsyncIterator[M]:
        while True:
            await anyio.wait_readable(self._sock)
            try:
                data, descriptors, flags, _ = socket.recv_fds(
                    self._sock, 65536, 16, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                continue
            except OSError:
                return
            if descriptors or flags & socket.MSG_CTRUNC:
                self._received.append(descriptors)
            if not data:
                return
            for message in self._framer.feed(data):
                yield message

    def close(self) -> None:
        """Close the socket, and every descriptor that is on its way."""
        for _, descriptors in self._outbox:
            _close(descriptors)
        self._outbox.clear()
        for received in self._received:
            _close(received)
        self._sock.close()


def _close(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        os.close(fd)
