"""A worker's side of one link: its jobs, in turn with those of the other links."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from atomserve.backends.links import Link
from atomserve.backends.replies import RemoteReply
from atomserve.backends.shared import Pool
from atomserve.context import Context, RawHeaders
from atomserve.engine.backend import Slot
from atomserve.engine.jobs import Job, Payload
from atomserve.engine.loops import EndOfTurn, call_later
from atomserve.engine.options import Options
from atomserve.engine.streams import Inbox
from atomserve.transport.arenas import Place
from atomserve.transport.frames import (
    BatchEnd,
    BrokenFrame,
    Cancel,
    Earn,
    Free,
    Item,
    ItemsEnd,
    Ledger,
    Release,
    Run,
    Took,
    ToWorker,
    Window,
)
from atomserve.transport.ledgers import LedgerReader, LedgerWriter, ledger_size

AHEAD = 32
"""Short jobs that an API process may send before the first of them has ended."""
ANSWERS = 256 * 1024 * 1024
"""Bytes of large answers that one API process may leave unread."""


class Desk:
    """Hands the jobs of all links to one slot, the links taking turns.

    ``whole`` is for wrappers that take batches: jobs that came together run together.
    """

    ahead = AHEAD

    def __init__(
        self,
        model: str,
        options: Options,
        on_over: Callable[[], None],
        on_closed: Callable[[], None],
        on_hung: Callable[[], None],
        *,
        whole: bool = False,
    ) -> None:
        self.model = model
        self.options = options
        self.whole = whole
        self.callers: list[Caller] = []
        self.slot: Slot
        self.turn = EndOfTurn(self._fill)
        self._on_over = on_over
        self._on_closed = on_closed
        self._on_hung = on_hung
        self._window = options.capacity

    def begin(self, slot: Slot) -> None:
        """Use ``slot``, which has loaded."""
        self.slot = slot

    async def link(self, sock: socket.socket, side: socket.socket) -> None:
        """Serve an API process over a new link."""
        caller = Caller(self, side)
        self.callers.append(caller)
        await caller.open(sock, self._window)

    def over(self) -> None:
        """A job has ended."""
        self._on_over()

    def closed(self, caller: Caller) -> None:
        """An API process is gone, or wants nothing more of this worker."""
        self.callers.remove(caller)
        self._on_closed()

    def hung(self) -> None:
        """A job does not end, and no API process is left that would say so."""
        self._on_hung()

    def resize(self, jobs: int) -> None:
        """Let each API process send so many jobs ahead."""
        if jobs != self._window:
            self._window = jobs
            for caller in self.callers:
                caller.tell(Window(jobs))

    def _fill(self) -> None:
        room = self.slot.room + self.slot.ahead
        batches: list[list[Job]] = []
        while len(batches) < room:
            waiting = [caller for caller in self.callers if caller.waiting]
            if not waiting:
                break
            batches += [caller.waiting.popleft() for caller in waiting[: room - len(batches)]]
        if not batches:
            return
        # Whoever was first this time is last the next.
        self.callers.append(self.callers.pop(0))
        if self.whole:
            for batch in batches:
                self.slot.run(batch)
        else:
            self.slot.run([job for batch in batches for job in batch])


class Caller:
    """One API process, as a worker sees it."""

    def __init__(self, desk: Desk, side: socket.socket) -> None:
        self.waiting: deque[list[Job]] = deque()
        """Batches, of a single job where the wrapper takes no batches."""
        self._forming: list[Job] = []
        self._desk = desk
        self._jobs: dict[int, Job] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._pool = Pool(ANSWERS, self._unshare)
        self._arena = self._pool.arena
        self._ledger_block = self._pool.keep(ledger_size(desk.options.capacity))
        self._ledger = LedgerWriter(self._ledger_block.view)
        self._link = Link(
            ToWorker, side, arena=self._arena, on_frame=self._handle, on_lost=self._lost
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            Run: self._run,
            BatchEnd: self._batch_end,
            Cancel: self._cancel,
            Earn: self._earn,
            Item: self._item,
            ItemsEnd: self._items_end,
            Free: self._free,
        }

    def __repr__(self) -> str:
        return f"<Caller: {len(self._jobs)} jobs, {len(self.waiting)} waiting>"

    async def open(self, sock: socket.socket, window: int) -> None:
        """Begin to serve."""
        await self._link.open(sock)
        self._link.send(Ledger(self._link.place(self._ledger_block)))
        self._link.send(Window(window))

    @property
    def answer_bytes(self) -> int:
        """Bytes of large answers that are not read yet."""
        return self._pool.used

    def tell(self, frame: Any) -> None:
        """Send ``frame``."""
        self._link.send(frame)

    def _unshare(self, segment: int) -> None:
        self._link.unshare(segment)

    def _handle(self, frame: Any) -> None:
        self._handlers[type(frame)](frame)

    def _run(self, frame: Run) -> None:
        context = Context(
            model=self._desk.model,
            request_id=frame.request_id,
            headers=RawHeaders(frame.headers),
            deadline=frame.deadline,
            tenant=frame.tenant,
        )
        body = self._body(frame.body)
        payload = Payload(
            form=frame.form,
            body=body,
            media_type=frame.media_type,
            query=frame.query,
            answer=frame.answer,
            answer_type=frame.answer_type,
        )
        reply = RemoteReply(
            frame.job,
            frame.takes,
            self._link,
            arena=self._arena,
            ledger=self._ledger,
            on_over=self._over,
        )
        if isinstance(frame.body, Place):
            reply.request = frame.body, body
        items = None
        if frame.takes == "session":
            items = self._inboxes[frame.job] = Inbox(lambda: self._link.send(Took(frame.job, 1)))
        job = Job(payload, context, reply, takes=frame.takes, items=items)
        self._jobs[frame.job] = job
        self._forming.append(job)
        if not self._desk.whole:
            self._batch_end()

    def _batch_end(self, _: BatchEnd | None = None) -> None:
        batch, self._forming = self._forming, []
        if not batch:
            return
        if len(batch) > 1:
            span = _reply(batch[0]).number, _reply(batch[-1]).number
            for job in batch:
                _reply(job).batch = span
        self.waiting.append(batch)
        self._desk.turn.ask()

    def _body(self, body: Any) -> Any:
        if type(body) is bytes:
            return body
        return self._link.look(body, self._released).data

    def _released(self, place: Any) -> None:
        self._link.send(Release(place))

    def _cancel(self, frame: Cancel) -> None:
        job = self._jobs.get(frame.job)
        if job is None:
            return
        _reply(job).cancelled = True
        job.walk_away()
        if job.holder is None:  # It still waits here, and nobody else will end it.
            self._withdraw(job)
            job.reply.end()

    def _withdraw(self, job: Job) -> None:
        for batch in (*self.waiting, self._forming):
            if job in batch:
                batch.remove(job)
        if not all(self.waiting):
            self.waiting.remove([])

    def _earn(self, frame: Earn) -> None:
        if (job := self._jobs.get(frame.job)) is not None:
            for _ in range(frame.items):
                job.consumed()

    def _item(self, frame: Item) -> None:
        body = self._body(frame.body)  # Also after the session's end: it goes back with its view.
        if (inbox := self._inboxes.get(frame.job)) is not None:
            inbox.put_nowait(Payload(form=frame.form, body=body))

    def _items_end(self, frame: ItemsEnd) -> None:
        if (inbox := self._inboxes.get(frame.job)) is not None:
            inbox.close()

    def _free(self, frame: Free) -> None:
        try:
            block = self._arena.find(frame.place)
        except ValueError as exc:
            raise BrokenFrame(str(exc)) from exc
        self._pool.give_back(block)

    def _over(self, number: int) -> None:
        del self._jobs[number]
        self._inboxes.pop(number, None)
        self._desk.over()

    def _lost(self) -> None:
        self.waiting.clear()
        self._forming = []
        for job in list(self._jobs.values()):
            _reply(job).cancelled = True
            job.walk_away()
        if self._jobs:
            options, ledger = self._desk.options, LedgerReader(self._ledger_block.view)
            call_later(options.timeout + options.grace, self._check_orphans, ledger)
        # Nobody reads answers any more; before a garbage collector comes by.
        del self._ledger, self._ledger_block
        self._arena.close()
        self._desk.closed(self)

    def _check_orphans(self, ledger: LedgerReader) -> None:
        if any(ledger.began(number) is not None for number in self._jobs):
            self._desk.hung()


def _reply(job: Job) -> RemoteReply:
    assert isinstance(job.reply, RemoteReply)
    return job.reply
