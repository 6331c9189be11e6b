"""One end of the link between an API process and a worker: frames, and places in shared memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import msgspec
import structlog

from atomserve.engine.loops import EndOfTurn, Mailbox
from atomserve.errors import ArenaFull
from atomserve.transport.arenas import Arena, Block, Place
from atomserve.transport.descriptors import receive_descriptors, send_descriptors
from atomserve.transport.frames import BrokenFrame, Decoder, Share, Unshare, encode, encode_into
from atomserve.transport.mappings import Bytes, Mapping, OnFree

log = structlog.get_logger("atomserve.links")

INLINE = 64 * 1024
"""Bytes up to which a body travels in its frame; a larger one through an arena."""
SHARED = 1024 * 1024 * 1024
"""Bytes of the other end's arena that are mapped at most."""


class Link(asyncio.Protocol):
    """Sends frames, all of a loop turn in one write, and calls ``on_frame`` with each received.

    ``on_lost`` is called once, when the other end is gone or speaks nonsense. The ``arena`` holds
    what this end writes, and is not this link's to close.
    """

    def __init__(
        self,
        kinds: Any,
        side: socket.socket,
        *,
        arena: Arena,
        on_frame: Callable[[Any], None],
        on_lost: Callable[[], None],
    ) -> None:
        side.setblocking(False)
        self._side = side
        self._arena = arena
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._decoder: Decoder[Any] = Decoder(kinds)
        self._announced: set[int] = set()
        self._mapping = Mapping(SHARED)
        self._out = bytearray()
        self._turn = EndOfTurn(self._flush)
        self._mailbox = Mailbox()
        self._transport: asyncio.Transport | None = None

    async def open(self, sock: socket.socket) -> None:
        """Begin to speak over ``sock``, which is this link's from now on."""
        sock.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=sock)

    def send(self, frame: msgspec.Struct) -> None:
        """Send ``frame`` at the end of this loop turn; after the end of the link it is dropped.

        Raises:
            BrokenFrame: it cannot be sent.
        """
        if self._transport is not None:
            encode_into(self._out, frame)
            self._turn.ask()

    def place(self, block: Block) -> Place:
        """Return ``block`` as the other end may read it: its segment is sent ahead once.

        Raises:
            ArenaFull: the other end cannot be shown more memory now.
        """
        segment = block.segment
        if segment.number not in self._announced:
            share = encode(Share(segment.number, segment.size))
            try:
                send_descriptors(self._side, share, [segment.fd])
            except OSError as exc:
                raise ArenaFull(retry_after=1.0) from exc
            self._announced.add(segment.number)
        return block.place

    def unshare(self, segment: int) -> None:
        """Tell the other end that a segment of our arena is gone."""
        if segment in self._announced:
            self._announced.discard(segment)
            self.send(Unshare(segment))

    def look(self, place: Place, on_free: OnFree) -> Bytes:
        """Return the other end's bytes at ``place``; ``on_free`` is called on the loop, once.

        Raises:
            BrokenFrame: there are none.
        """
        post = self._mailbox.post
        try:
            self._learn(place.segment)
            return self._mapping.root(place, lambda freed: post(on_free, freed))
        except (ValueError, LookupError, OSError) as exc:
            raise BrokenFrame(f"no bytes at {place}: {exc}") from exc

    def _learn(self, segment: int) -> None:
        """Map what the other end has shared until ``segment`` is there."""
        while segment not in self._mapping:
            payload, descriptors = receive_descriptors(self._side, 1)
            (share,) = Decoder[Share](Share).feed(payload)
            self._mapping.add(share.segment, descriptors[0], share.size)

    def _forget(self, segment: int) -> None:
        try:
            self._learn(segment)  # It may go before anybody has looked at it.
            self._mapping.drop(segment)
        except (ValueError, LookupError, OSError) as exc:
            raise BrokenFrame(f"no segment {segment}: {exc}") from exc

    def close(self) -> None:
        """End the link, once what was sent has left."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """End the link at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                if type(frame) is Unshare:
                    self._forget(frame.segment)
                else:
                    self._on_frame(frame)
        except BrokenFrame as exc:
            log.error("link.nonsense", error=repr(exc))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._side.close()
        self._mapping.close()
        self._on_lost()

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            out, self._out = self._out, bytearray()
            self._transport.write(out)
