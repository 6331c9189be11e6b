"""One session of a stream wrapper: created, written to, heard, and destroyed exactly once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from queue import Empty
from typing import Any, NamedTuple, Protocol

from atomserve.codecs.athena.nodes import BEGIN, CONTINUE, END, Node
from atomserve.codecs.athena.service import Said, Told
from atomserve.compat.aiges.answers import size_of
from atomserve.compat.aiges.asked import Asked, data_list
from atomserve.compat.aiges.calls import LOOK, Calls
from atomserve.compat.aiges.routing import ROUTES
from atomserve.context import current_context
from atomserve.engine.jobs import Payload
from atomserve.errors import PluginFailed
from atomserve.surfaces.athena.talks import UNTOLD

QUICKEST, SLOWEST = 0.001, 0.05
"""Seconds between two reads of a wrapper's results: the longer there are none, the more."""
MOST_UNREAD, MOST_HELD = 1 << 16, 64 << 20
"""Results, and their bytes, that may wait for a client that reads more slowly than the wrapper
writes, or for a write that speaks a long text before it returns; the last may be of any size."""


class Mail(Protocol):
    """What a session's client and its wrapper say, in one queue."""

    def get(self, *, timeout: float | None = None) -> Any:
        """Return what comes next: an item, what was `put`, None; or raise `queue.Empty`."""

    def put(self, thing: Any, /) -> None:
        """Add what the wrapper says."""


class _Result(NamedTuple):
    """What the wrapper called back, and how many bytes that is."""

    response: Any
    size: int


class _Unread:
    """What was called back and not told yet; any thread adds to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results = self._bytes = 0
        self.overrun = False

    def add(self, size: int) -> bool:
        """Count a result of ``size`` bytes in; say whether there is room for it."""
        with self._lock:
            if self._results >= MOST_UNREAD or self._bytes >= MOST_HELD:
                return False
            self._results += 1
            self._bytes += size
            return True

    def take(self, size: int) -> None:
        """Count a result out."""
        with self._lock:
            self._results -= 1
            self._bytes -= size


class Conversation:
    """A session, in the thread that serves it; whatever ends it, `told` is closed.

    Results come by callback, or are read where the wrapper can be: the first one that is called
    back ends the reading.
    """

    def __init__(self, calls: Calls, inlet: Mail, read: Callable[[Payload], Said]) -> None:
        self._calls = calls
        self._inlet = inlet
        self._read = read
        self._reading = calls.reads
        self._pause = QUICKEST
        self._next_read = 0.0
        self._unread = _Unread()
        self._written = 0
        self._inputs: dict[str, int] = {}
        self._heard_all = False
        self._sid = ""
        self._handle = ""

    def told(self, begun: Callable[[Said], Asked]) -> Generator[Told]:
        """Yield all that the wrapper says, at first that there is a session.

        Raises:
            AtomError: the wrapper refused or failed, or an item is at fault.
        """
        first = self._inlet.get()
        if first is None:
            return
        said = self._read(first)
        asked = begun(said)
        calls, self._sid = self._calls, asked.sid
        route = ROUTES.open(
            self._deliver,
            asked.sid,
            nameless=True,
            metric=calls.metric(asked.sid),
            trace=calls.trace(asked.sid),
        )
        try:
            self._handle = self._created(asked)
            try:
                route.named(self._handle)
                yield Told(opened=True)
                yield from self._exchange(said)
            finally:
                calls.quietly("destroy", calls.bound.destroy, self._handle, sid=self._sid)
        finally:
            route.close()

    def _deliver(self, response: Any) -> bool:
        """Take a result, in whatever thread the wrapper calls back."""
        size = size_of(response)
        if not self._unread.add(size):
            if not self._unread.overrun:
                self._unread.overrun = True
                self._inlet.put(PluginFailed("results come faster than the client reads them"))
            return False
        self._inlet.put(_Result(response, size))
        return True

    def _created(self, asked: Asked) -> str:
        calls, create = self._calls, self._calls.bound.create
        sid = asked.sid
        made = calls.value("create", create, asked.params, sid=sid, tag=sid, patch=asked.patch)
        if made.error_code:
            raise calls.refusal("create", made.error_code)
        return made.handle

    def _exchange(self, said: Said) -> Generator[Told]:
        self._write(said.request.nodes, last=said.last)
        while True:
            thing = self._next()
            if isinstance(thing, Payload):
                item = self._read(thing)
                self._write(item.request.nodes, last=item.last)
            elif isinstance(thing, _Result):
                nodes, last = self._calls.result(thing.response, "callback")
                self._unread.take(thing.size)
                self._reading = False
                if nodes:
                    yield Told(nodes)
                if last:
                    return
            elif isinstance(thing, PluginFailed):
                raise thing
            elif _abandoned():
                return
            elif thing is None:
                self._finish()
            nodes, last = self._results()
            if nodes:
                yield Told(nodes)
            if last:
                return

    def _next(self) -> Any:
        """Return what comes next, or `Empty` when it is time to look elsewhere."""
        wait = LOOK
        if self._reading:
            wait = max(0.0, min(self._next_read - time.monotonic(), LOOK))
        try:
            return self._inlet.get(timeout=wait)
        except Empty:
            return Empty

    def _write(self, nodes: list[Node], *, last: bool) -> None:
        usual = BEGIN if not self._written else CONTINUE
        for node in nodes:
            if node.status == UNTOLD:
                node.status = usual
            self._inputs[node.key] = node.type
        self._written += 1
        self._heard_all = self._heard_all or last
        bound, pieces = self._calls.bound, data_list(nodes)
        self._calls.accepted(bound.writing, bound.write, self._handle, pieces, sid=self._sid)
        self._pause, self._next_read = QUICKEST, 0.0

    def _finish(self) -> None:
        """Tell the wrapper of the end, where no item did."""
        if not self._heard_all:
            ends = [Node(key, b"", kind, END) for key, kind in self._inputs.items()]
            self._write(ends, last=True)

    def _results(self) -> tuple[list[Node], bool]:
        """Read what the wrapper has, if it is time to; say whether that is the last."""
        if not self._reading or time.monotonic() < self._next_read:
            return [], False
        response = self._calls.value("read", self._read_once)
        nodes, last = ([], False) if response is None else self._calls.result(response, "read")
        self._pause = QUICKEST if nodes else min(self._pause * 2, SLOWEST)
        self._next_read = time.monotonic() + (0.0 if nodes else self._pause)
        return nodes, last

    def _read_once(self) -> Any:
        try:
            return self._calls.bound.read(self._handle, sid=self._sid)
        except NotImplementedError:  # a method that is there for the look of it
            self._reading = False
            return None


def _abandoned() -> bool:
    context = current_context.get(None)
    return context is not None and context.cancelled
