"""Where the answers of a worker's jobs go: back over the link that the jobs came from."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from atomserve.backends.links import INLINE, Link
from atomserve.engine.jobs import Answer, Takes
from atomserve.errors import ArenaFull, AtomError, BadAnswer, PluginFailed
from atomserve.transport.arenas import Arena, Block, Place
from atomserve.transport.frames import Answered, Done, Ended, Failed, failure_of
from atomserve.transport.ledgers import LedgerWriter
from atomserve.transport.mappings import offset_within

log = structlog.get_logger("atomserve.backends")


class Part:
    """Some bytes of a request's body, which the other end has: they need not travel back."""

    __slots__ = ("head", "place", "view")

    def __init__(self, place: Place, view: memoryview, head: bytes) -> None:
        self.place = place
        self.view = view  # Kept until the answer has left, and with it the request's body.
        self.head = head


class RemoteReply:
    """The reply of one job; ``on_over`` is called when the slot is free of it.

    Every job sends exactly one end: its only answer, `Ended`, `Failed`, or `Done` if it was
    cancelled.
    """

    __slots__ = (
        "_arena",
        "_ledger",
        "_link",
        "_on_over",
        "_takes",
        "batch",
        "cancelled",
        "number",
        "over",
        "request",
    )

    def __init__(
        self,
        number: int,
        takes: Takes,
        link: Link,
        *,
        arena: Arena,
        ledger: LedgerWriter,
        on_over: Callable[[int], None],
    ) -> None:
        self.number = number
        self._takes = takes
        self._link = link
        self._arena = arena
        self._ledger = ledger
        self._on_over = on_over
        self.request: tuple[Place, memoryview] | None = None
        """Where the job's body lies, if it lies in the other end's memory."""
        self.batch = (number, number)
        """The first and the last job of those that run with this one."""
        self.cancelled = False
        self.over = False

    @property
    def ended(self) -> bool:
        return self.over or self.cancelled

    def begun(self, place: int) -> None:
        """Write down, where it outlives this process, what is not untouched any more."""
        self._ledger.begin(place, *self.batch, time.monotonic())

    def prepared(self, answer: Answer) -> Answer:
        """Copy a large answer into the arena, if the other end has it not; a small one to bytes."""
        size = len(answer.head) + len(answer.body)
        if size <= INLINE:
            if type(answer.body) is bytes and not answer.head:
                return answer
            return Answer(b"".join((answer.head, answer.body)), answer.media_type)
        if self._takes == "call" and (part := self._part(answer)) is not None:
            return Answer(part, answer.media_type)
        if size > self._arena.bound:
            bound = self._arena.bound
            raise BadAnswer(f"the model answered {size} bytes; at most {bound} can be sent")
        block = self._arena.take(size)
        if block is None:
            raise ArenaFull(retry_after=1.0)
        if answer.head:
            block.write(0, answer.head)
        block.write(len(answer.head), answer.body)
        body: Any = block
        return Answer(body, answer.media_type)

    def _part(self, answer: Answer) -> Any:
        if self.request is None or not isinstance(answer.body, memoryview):
            return None
        place, whole = self.request
        offset = offset_within(answer.body, whole)
        if offset is None:
            return None
        part = Place(place.segment, place.offset + offset, answer.body.nbytes)
        return Part(part, answer.body, answer.head)

    def answer(self, answer: Answer) -> None:
        body: Any = answer.body
        if self.ended:
            if isinstance(body, Block):
                body.free()
            if self._takes == "call":
                self._finish(Done(self.number))
            return
        last = self._takes == "call"
        try:
            self._link.send(self._frame(answer, last=last))
        except AtomError as exc:
            if isinstance(body, Block):
                body.free()
            log.error("answer.unsent", error=repr(exc))
            unsent = BadAnswer("the model's answer cannot be sent")
            return self.fail(exc if isinstance(exc, ArenaFull) else unsent)
        if last:
            self._finish()
        return None

    def _frame(self, answer: Answer, *, last: bool) -> Answered:
        body: Any = answer.body
        if isinstance(body, Part):
            place, head = body.place, body.head
            return Answered(self.number, place, answer.media_type, last, within=True, head=head)
        if isinstance(body, Block):
            body = self._link.place(body)
        return Answered(self.number, body, answer.media_type, last)

    def end(self) -> None:
        self._finish(Done(self.number) if self.cancelled else Ended(self.number))

    def fail(self, error: AtomError) -> None:
        self._finish(Done(self.number) if self.cancelled else self._failure(error))

    def _failure(self, error: AtomError) -> Failed:
        try:
            return failure_of(self.number, error)
        except Exception as exc:  # A plugin's own error may not even have words.
            log.error("error.wordless", exc_info=exc)
            return failure_of(self.number, PluginFailed())

    def _finish(self, frame: Done | Ended | Failed | None = None) -> None:
        """Be over, having sent the end or sending it now."""
        if not self.over:
            self.over = True
            if frame is not None:
                self._link.send(frame)
            self._on_over(self.number)
