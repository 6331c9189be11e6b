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
from atomserve.errors import ArenaFull
from atomserve.transport.arenas import Place
from atomserve.transport.frames import (
    Answered,
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


class Given:
    """What a worker was given to run at once: one job, or the jobs of a batch."""

    __slots__ = ("left", "since", "wanted")

    def __init__(self, jobs: int, since: float) -> None:
        self.left = jobs
        """Jobs that have not ended."""
        self.wanted = jobs
        """Those of them that somebody waits for."""
        self.since = since
        """When the worker could begin."""


class ProcessSlot:
    """One worker; knows its jobs by number, and takes as many as the worker's window lets it."""

    def __init__(
        self, backend: ProcessBackend, host: Host, slot: int, pid: int, side: socket.socket
    ) -> None:
        self.slot = slot
        self.pid = pid
        self.retiring = False
        self._backend = backend
        self._host = host
        self._window = backend.options.capacity
        self._next = 1
        self._jobs: dict[int, Job] = {}
        self._numbers: dict[Job, int] = {}
        self._leases: dict[tuple[int, int], SharedBody] = {}
        self._bodies: dict[int, SharedBody] = {}
        self._graces: dict[int, Timer] = {}
        self._given: dict[int, Given] = {}
        self._unwanted: set[int] = set()
        self._whole = backend.signature.takes == "batch"
        self._batches: list[Given] = []
        self._ledger: LedgerReader | None = None
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
        return f"<ProcessSlot {self.slot}: pid {self.pid}, {len(self._jobs)} of {self._window}>"

    @property
    def room(self) -> int:
        # Without its ledger nobody could say what a lost worker had begun.
        if self.retiring or self._ledger is None:
            return 0
        taken = len(self._batches) if self._whole else len(self._jobs)
        return max(0, self._window - taken)

    @property
    def ahead(self) -> int:
        if not self._whole or self.retiring or self._ledger is None:
            return 0
        return min(1, max(0, self._window + 1 - len(self._batches)))

    @property
    def busy(self) -> int:
        """Jobs that the worker has."""
        return len(self._jobs)

    async def open(self, sock: socket.socket) -> None:
        """Begin to use the worker."""
        await self._link.open(sock)

    def run(self, jobs: Sequence[Job]) -> None:
        now = time.monotonic()
        # All bodies first: the last frame must say that it is the last of its batch.
        ready = [(job, body) for job in jobs if (body := self._placed(job)) is not None]
        last = len(ready) - 1
        given = Given(len(ready), now)
        if self._whole and ready:
            self._batches.append(given)
        for place, (job, body) in enumerate(ready):
            number = self._next
            self._next += 1
            self._jobs[number] = job
            self._numbers[job] = number
            self._given[number] = given if self._whole else Given(1, now)
            more = self._whole and place < last
            self._link.send(self._frame(number, job, body, more=more))
            if job.takes != "call":
                self._attach(number, job)

    def _placed(self, job: Job) -> bytes | Place | None:
        job.holder = self
        try:
            return self._body(job.payload)
        except ArenaFull as exc:
            job.reply.fail(exc)
            self._host.on_room()
            return None

    def drop(self, job: Job) -> None:
        """Tell the worker that nobody waits; one that does not come back in time is hung."""
        number = self._numbers.get(job)
        if number is None or number in self._unwanted:
            return
        given = self._given[number]
        self._unwanted.add(number)
        given.wanted -= 1
        self._link.send(Cancel(number))
        # What the worker has not begun it will not: nothing to kill it for.
        if self._backend.options.cancel == "kill" and number <= self._begun():
            if not given.wanted:
                self._backend.tell_hung(self.slot, self.pid, "cancelled")
            return
        # By the model's own timeout: a client that waits less, or leaves a stream, must not make a
        # worker hung that does what it may.
        options = self._backend.options
        since = given.since if job.takes == "call" else time.monotonic()
        left = max(0.0, since + options.timeout - time.monotonic())
        self._graces[number] = call_later(left + options.grace, self._hung, number)

    def retire(self) -> None:
        """Take no more jobs, and end the link with the last of them."""
        self.retiring = True
        if not self._jobs:
            self._link.close()

    def cut(self) -> None:
        """End the link at once."""
        self._link.abort()

    def unshare(self, segment: int) -> None:
        """A segment of the model's arena is gone."""
        self._link.unshare(segment)

    def _hung(self, number: int) -> None:
        options = self._backend.options
        # A batch that was sent ahead may have begun long after it was given.
        left = self._given[number].since + options.timeout + options.grace - time.monotonic()
        if self._whole and left > 0:
            self._graces[number] = call_later(left, self._hung, number)
        else:
            self._backend.tell_hung(self.slot, self.pid, "hung")

    def _begun(self) -> int:
        """Return the number of the last job that the worker began."""
        return 0 if self._ledger is None else self._ledger.last

    def _frame(self, number: int, job: Job, body: bytes | Place, *, more: bool) -> Run:
        payload, context = job.payload, job.context
        if isinstance(body, Place):
            self._bodies[number] = self._leases[body.segment, body.offset]
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
            more=more,
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
        self._leases[body.block.segment.number, body.block.offset] = body
        return self._link.place(body.block)

    def _attach(self, number: int, job: Job) -> None:
        def deliver(item: Payload | None) -> None:
            if item is None:
                self._link.send(ItemsEnd(number))
            else:
                self._link.send(Item(number, item.form, self._body(item)))

        job.consumed = lambda: self._link.send(Earn(number, 1))
        if job.items is not None:
            job.items.attach(deliver)

    def _handle(self, frame: Any) -> None:
        self._handlers[type(frame)](frame)

    def _answered(self, frame: Answered) -> None:
        job = self._jobs[frame.job]
        if job.reply.ended:
            if isinstance(frame.body, Place) and not frame.within:
                self._free(frame.body)
        else:
            job.reply.answer(Answer(self._answer(frame), frame.media_type, frame.head))
        if frame.last:
            self._job_over(frame.job)

    def _answer(self, frame: Answered) -> bytes | memoryview:
        if not isinstance(frame.body, Place):
            return frame.body
        if not frame.within:
            return self._link.look(frame.body, self._free).data
        body, post = self._bodies[frame.job], self._host.mailbox.post
        return body.part(frame.body, lambda _: post(body.release))

    def _free(self, place: Place) -> None:
        self._link.send(Free(place))

    def _ended(self, frame: Ended) -> None:
        self._jobs[frame.job].reply.end()
        self._job_over(frame.job)

    def _failed(self, frame: Failed) -> None:
        self._jobs[frame.job].reply.fail(error_of(frame))
        self._job_over(frame.job)

    def _done(self, frame: Done) -> None:
        self._job_over(frame.job)

    def _took(self, frame: Took) -> None:
        items = self._jobs[frame.job].items
        if items is not None:
            for _ in range(frame.items):
                items.taken()

    def _release(self, frame: Release) -> None:
        self._leases.pop((frame.place.segment, frame.place.offset)).release()

    def _resize(self, frame: Window) -> None:
        self._window = max(1, min(frame.jobs, 4096))
        self._host.on_room()

    def _keep_ledger(self, frame: Ledger) -> None:
        self._ledger = LedgerReader(self._link.look(frame.place, lambda _: None).data)
        self._host.on_room()

    def _job_over(self, number: int) -> None:
        job = self._jobs.pop(number)
        del self._numbers[job]
        self._bodies.pop(number, None)
        self._end(number, self._given.pop(number))
        if (timer := self._graces.pop(number, None)) is not None:
            timer.cancel()
        if self.retiring and not self._jobs:
            self._link.close()
        self._backend.job_over()
        self._host.on_room()

    def _end(self, number: int, given: Given) -> None:
        given.left -= 1
        if number in self._unwanted:
            self._unwanted.discard(number)
        else:
            given.wanted -= 1
        if self._whole and not given.left:
            self._batches.remove(given)
            if len(self._batches) >= self._window:
                self._batches[self._window - 1].since = time.monotonic()

    def _lost(self) -> None:
        for timer in self._graces.values():
            timer.cancel()
        last = self._begun()
        self._ledger = None  # its memory, before a garbage collector comes by
        jobs, self._jobs = self._jobs, {}
        self._numbers.clear()
        self._given.clear()
        self._unwanted.clear()
        self._batches.clear()
        self._bodies.clear()
        for body in self._leases.values():
            body.release()
        self._leases.clear()
        self._backend.remove(self)
        begun = [job for number, job in jobs.items() if number <= last]
        waiting = [job for number, job in jobs.items() if number > last]
        self._host.lost(begun, waiting)
