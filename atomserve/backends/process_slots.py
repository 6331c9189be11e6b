"""A slot that is a worker process, as an API process sees it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from atomserve.backends.links import INLINE, Link
from atomserve.backends.shared import SharedBody, SharedSink
from atomserve.engine.backend import Host
from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.loops import Timer, call_later
from atomserve.errors import ArenaFull, AtomError, HeadersTooLarge
from atomserve.transport.arenas import Place
from atomserve.transport.frames import (
    Answered,
    BatchEnd,
    BrokenFrame,
    Cancel,
    Done,
    Earn,
    Ended,
    Failed,
    Free,
    FromWorker,
    Item,
    ItemsEnd,
    Ledger,
    Release,
    Run,
    Took,
    Window,
    error_of,
)
from atomserve.transport.ledgers import LedgerReader

if TYPE_CHECKING:
    from atomserve.backends.processes import ProcessBackend

GREETING = 5.0
"""Seconds that a worker has at least to show its ledger: until then it is given no job."""


class Sent:
    """A job that the worker has; ``batch`` are those of its batch that have not ended."""

    __slots__ = ("batch", "body", "given_up", "job", "timer")

    def __init__(self, job: Job, body: SharedBody | None, batch: list[Sent]) -> None:
        self.job = job
        self.body = body
        self.batch = batch
        self.given_up: float | None = None
        """Since when nobody waits for it."""
        self.timer: Timer | None = None


class ProcessSlot:
    """One worker; knows its jobs by number, and takes as many as the worker's window lets it."""

    def __init__(
        self, backend: ProcessBackend, host: Host, slot: int, pid: int, side: socket.socket
    ) -> None:
        self.slot = slot
        self.pid = pid
        self.retiring = False
        self.explained = False
        """The supervisor has said why the link ends."""
        self._backend = backend
        self._host = host
        self._window = backend.options.capacity
        self._next = 1
        self._sent: dict[int, Sent] = {}
        self._numbers: dict[Job, int] = {}
        self._leases: dict[tuple[int, int], SharedBody] = {}
        self._whole = backend.signature.takes == "batch"
        self._batches = 0
        self._ledger: LedgerReader | None = None
        self._greeting: Timer
        self._link = Link(
            FromWorker, side, arena=backend.arena, on_frame=self._handle, on_lost=self._lost
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            Answered: self._answered,
            Ended: self._ended,
            Failed: self._failed,
            Done: self._done,
            Took: self._took,
            Release: self._release,
            Window: self._resize,
            Ledger: self._keep_ledger,
        }

    def __repr__(self) -> str:
        return f"<ProcessSlot {self.slot}: pid {self.pid}, {self._batches} of {self._window}>"

    @property
    def room(self) -> int:
        # Without its ledger nobody could say what a lost worker had begun.
        if self.retiring or self._ledger is None:
            return 0
        return max(0, self._window - self._batches)

    @property
    def ahead(self) -> int:
        if not self._whole or self.retiring or self._ledger is None:
            return 0
        return min(1, max(0, self._window + 1 - self._batches))

    @property
    def busy(self) -> int:
        """Jobs that the worker has."""
        return len(self._sent)

    async def open(self, sock: socket.socket) -> None:
        """Begin to use the worker."""
        options = self._backend.options
        patience = max(GREETING, options.timeout + options.grace)
        self._greeting = call_later(patience, self._tell_hung)
        try:
            await self._link.open(sock)
        except OSError:
            self._greeting.cancel()
            raise

    def _tell_hung(self) -> None:
        self._backend.tell_hung(self.slot, self.pid, "hung")

    def run(self, jobs: Sequence[Job]) -> None:
        batch: list[Sent] = []
        for job in jobs:
            if not self._whole:
                batch = []
            job.holder = self
            try:
                self._give(job, batch)
            except AtomError as exc:
                job.give_up(exc)
                self._host.on_room()
        if self._whole and batch:
            self._link.send(BatchEnd())

    def _give(self, job: Job, batch: list[Sent]) -> None:
        """Send ``job``; raises what it fails with if that is not possible."""
        number, body = self._next, self._body(job.payload)
        self._next += 1
        shared = self._leases[body.segment, body.offset] if isinstance(body, Place) else None
        try:
            self._link.send(self._frame(number, job, body))
        except BrokenFrame as exc:
            if isinstance(body, Place):
                self._release(Release(body))
            raise HeadersTooLarge("the headers are too large for a worker") from exc
        if not batch:
            self._batches += 1
        batch.append(Sent(job, shared, batch))
        self._sent[number] = batch[-1]
        self._numbers[job] = number
        if job.takes != "call":
            self._attach(number, job)

    def drop(self, job: Job) -> None:
        """Tell the worker that nobody waits; one that does not come back in time is hung."""
        number = self._numbers.get(job)
        if number is None or (sent := self._sent[number]).given_up is not None:
            return
        sent.given_up = time.monotonic()
        self._link.send(Cancel(number))
        options = self._backend.options
        # What the worker has not begun it will not: nothing to kill it for.
        if options.cancel == "kill" and self._began(number) is not None:
            if all(each.given_up is not None for each in sent.batch):
                self._backend.tell_hung(self.slot, self.pid, "cancelled")
            return
        left = max(options.grace, self._left(number, sent))
        sent.timer = call_later(left, self._look_again, number)

    def retire(self) -> None:
        """Take no more jobs, and end the link with the last of them."""
        self.retiring = self.explained = True
        if not self._sent:
            self._link.close()

    def cut(self) -> None:
        """End the link at once."""
        self.explained = True
        self._link.abort()

    def unshare(self, segment: int) -> None:
        """A segment of the model's arena is gone."""
        self._link.unshare(segment)

    def _left(self, number: int, sent: Sent) -> float:
        """Return for how many seconds the worker may still work on what nobody waits for.

        By the model's own timeout: a client that waits less, or leaves a stream, must not make a
        worker hung that does what it may. What has not begun has to be told off as soon.
        """
        options = self._backend.options
        since = self._began(number) if sent.job.takes == "call" else None
        if since is None:
            since = sent.given_up or 0.0
        return since + options.timeout + options.grace - time.monotonic()

    def _look_again(self, number: int) -> None:
        sent = self._sent[number]
        if (left := self._left(number, sent)) > 0:  # It began later than it was sent.
            sent.timer = call_later(left, self._look_again, number)
        else:
            self._tell_hung()

    def _began(self, number: int) -> float | None:
        """Return when the worker began a job that it has."""
        return None if self._ledger is None else self._ledger.began(number)

    def _frame(self, number: int, job: Job, body: bytes | Place) -> Run:
        payload, context = job.payload, job.context
        return Run(
            job=number,
            takes=job.takes,
            form=payload.form,
            answer=payload.answer,
            body=body,
            deadline=context.deadline,
            media_type=payload.media_type,
            query=payload.query,
            answer_type=payload.answer_type,
            request_id=context.request_id,
            tenant=context.tenant,
            headers=list(context.headers.raw),
        )

    def _body(self, payload: Payload) -> bytes | Place:
        body = payload.body
        if type(body) is bytes and len(body) <= INLINE:
            return body
        if isinstance(body, SharedBody):
            body.hold()
        elif len(body) <= INLINE:
            return bytes(body)
        else:
            sink = SharedSink(self._backend.pool, len(body))
            sink.write(body)
            body = sink.close()
        try:
            place = self._link.place(body.block)
        except ArenaFull:
            body.release()
            raise
        self._leases[place.segment, place.offset] = body
        return place

    def _attach(self, number: int, job: Job) -> None:
        def deliver(item: Payload | None) -> None:
            if number not in self._sent:
                return
            if item is None:
                self._link.send(ItemsEnd(number))
            else:
                self._link.send(Item(number, item.form, self._body(item)))

        job.consumed = lambda: self._link.send(Earn(number, 1))
        if job.items is not None:
            job.items.attach(deliver)

    def _handle(self, frame: Any) -> None:
        self._handlers[type(frame)](frame)

    def _job(self, number: int) -> Sent | None:
        """Return a job that the worker has; None: it is over, and whatever comes is too late.

        Raises:
            BrokenFrame: the worker was never given it.
        """
        sent = self._sent.get(number)
        if sent is None and not 0 < number < self._next:
            raise BrokenFrame(f"there was no job {number}")
        return sent

    def _answered(self, frame: Answered) -> None:
        sent = self._job(frame.job)
        if sent is None or sent.job.reply.ended:
            if isinstance(frame.body, Place) and not frame.within:
                self._free(frame.body)
        else:
            body = self._answer(frame, sent.body)
            sent.job.reply.answer(Answer(body, frame.media_type, frame.head))
        if frame.last:
            self._job_over(frame.job)

    def _answer(self, frame: Answered, body: SharedBody | None) -> bytes | memoryview:
        if not isinstance(frame.body, Place):
            return frame.body
        if not frame.within:
            return self._link.look(frame.body, self._free).data
        if body is None:
            raise BrokenFrame(f"job {frame.job} has no body to answer with")
        post, release = self._host.mailbox.post, body.release
        return body.part(frame.body, lambda _: post(release))

    def _free(self, place: Place) -> None:
        self._link.send(Free(place))

    def _ended(self, frame: Ended) -> None:
        if (sent := self._job(frame.job)) is not None:
            sent.job.reply.end()
        self._job_over(frame.job)

    def _failed(self, frame: Failed) -> None:
        if (sent := self._job(frame.job)) is not None:
            sent.job.reply.fail(error_of(frame))
        self._job_over(frame.job)

    def _done(self, frame: Done) -> None:
        self._job_over(frame.job)

    def _took(self, frame: Took) -> None:
        # A wrapper may read on after its session has ended, in a thread of its own.
        sent = self._job(frame.job)
        if sent is not None and (items := sent.job.items) is not None:
            for _ in range(frame.items):
                items.taken()

    def _release(self, frame: Release) -> None:
        body = self._leases.pop((frame.place.segment, frame.place.offset), None)
        if body is None:
            raise BrokenFrame(f"there was no body at {frame.place}")
        body.release()

    def _resize(self, frame: Window) -> None:
        self._window = max(1, min(frame.jobs, 4096))
        self._host.on_room()

    def _keep_ledger(self, frame: Ledger) -> None:
        self._greeting.cancel()
        self._ledger = LedgerReader(self._link.look(frame.place, lambda _: None).data)
        self._host.on_room()

    def _job_over(self, number: int) -> None:
        if (sent := self._job(number)) is None:
            return
        del self._sent[number]
        del self._numbers[sent.job]
        sent.batch.remove(sent)
        if not sent.batch:
            self._batches -= 1
        if sent.timer is not None:
            sent.timer.cancel()
        if self.retiring and not self._sent:
            self._link.close()
        self._backend.job_over()
        self._host.on_room()

    def _lost(self) -> None:
        self._greeting.cancel()
        last = 0 if self._ledger is None else self._ledger.last
        self._ledger = None  # its memory, before a garbage collector comes by
        jobs, self._sent = self._sent, {}
        self._numbers.clear()
        for sent in jobs.values():
            sent.batch.clear()  # A ring with its job, which no garbage collector shall wait for.
            if sent.timer is not None:
                sent.timer.cancel()
        for body in self._leases.values():
            body.release()
        self._leases.clear()
        self._backend.remove(self)
        begun = [sent.job for number, sent in jobs.items() if number <= last]
        waiting = [sent.job for number, sent in jobs.items() if number > last]
        if self._host.lost(begun, waiting):
            self._backend.excuse(self.slot, self.pid)
