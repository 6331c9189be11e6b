"""Bounded ways between the event loop and a slot's thread, one for each direction."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from atomserve.engine.jobs import Payload

CREDIT_ITEMS = 8
CREDIT_BYTES = 1024 * 1024


def _nothing() -> None:
    pass


class Unread:
    """The sizes of what was sent and not read yet; one item always fits."""

    __slots__ = ("_sizes",)

    def __init__(self) -> None:
        self._sizes: deque[int] = deque()

    def full(self, size: int) -> bool:
        """Say whether ``size`` bytes more have to wait."""
        if not self._sizes:
            return False
        return len(self._sizes) >= CREDIT_ITEMS or sum(self._sizes) + size > CREDIT_BYTES

    def add(self, size: int) -> None:
        self._sizes.append(size)

    def read(self) -> None:
        """The oldest was read."""
        if self._sizes:
            self._sizes.popleft()


class Credit:
    """Lets a thread send only so much ahead of its reader: 8 items or 1 MiB, whichever is first."""

    __slots__ = ("_closed", "_turn", "_unread")

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._unread = Unread()
        self._closed = False

    def spend(self, size: int) -> bool:
        """Wait, in the thread, until ``size`` bytes more may be sent; False: nobody reads."""
        with self._turn:
            while self._unread.full(size) and not self._closed:
                self._turn.wait()
            self._unread.add(size)
            return not self._closed

    def earn(self) -> None:
        """The reader took the oldest item."""
        with self._turn:
            self._unread.read()
            self._turn.notify()

    def close(self) -> None:
        """Nobody reads any more."""
        with self._turn:
            self._closed = True
            self._turn.notify()


class LoopCredit:
    """Lets a coroutine send only so much ahead, as `Credit` does a thread; on its loop."""

    __slots__ = ("_room", "_unread")

    def __init__(self) -> None:
        self._unread = Unread()
        self._room: asyncio.Future[None] | None = None

    async def spend(self, size: int) -> None:
        """Wait until ``size`` bytes more may be sent."""
        while self._unread.full(size):
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self._unread.add(size)

    def earn(self) -> None:
        """The reader took the oldest item."""
        self._unread.read()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


class Inbox:
    """What a session's client sends, on the loop: held back until a slot attaches itself.

    A `put` waits while 8 items or 1 MiB are unread by the wrapper.
    """

    __slots__ = ("_deliver", "_early", "_room", "_unread", "closed", "on_taken")

    def __init__(self, on_taken: Callable[[], None] = _nothing) -> None:
        self._early: deque[Payload | None] = deque()
        self._deliver: Callable[[Payload | None], None] = self._early.append
        self._unread = Unread()
        self._room: asyncio.Future[None] | None = None
        self.on_taken = on_taken
        self.closed = False

    def attach(self, deliver: Callable[[Payload | None], None]) -> None:
        """From now on call ``deliver`` with each item, at last with None."""
        self._deliver = deliver
        while self._early:
            deliver(self._early.popleft())

    async def put(self, item: Payload) -> None:
        """Hand over ``item``; after the end it is dropped."""
        size = len(item.body)
        while not self.closed and self._unread.full(size):
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self.put_nowait(item)

    def put_nowait(self, item: Payload) -> None:
        """Hand over ``item`` without waiting, where somebody else keeps the bound."""
        if not self.closed:
            self._unread.add(len(item.body))
            self._deliver(item)

    def close(self) -> None:
        """No more will come: the reader ends after what is there."""
        if not self.closed:
            self.closed = True
            self._deliver(None)
            self._wake()

    def taken(self) -> None:
        """The wrapper has read one more item."""
        self._unread.read()
        self.on_taken()
        self._wake()

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
