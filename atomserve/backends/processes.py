"""Slots that are worker processes, as an API process sees them; the supervisor owns the workers."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import structlog

from atomserve.backends.links import INLINE, Link
from atomserve.engine.backend import Host
from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.loops import Timer, call_later
from atomserve.engine.options import Options
from atomserve.errors import ArenaFull, PluginError
from atomserve.signature import Signature
from atomserve.transport.arenas import Arena, Block, Place
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
from atomserve.transport.mappings import Bytes, leased

log = structlog.get_logger("atomserve.processes")

REQUESTS = 512 * 1024 * 1024
"""Bytes of large request bodies of one model that may lie in shared memory at once."""
WARM = 64 * 1024 * 1024
"""Bytes of shared memory that an idle model keeps: fresh pages are what makes a body slow."""
IDLE = 10.0
"""Seconds without a large body after which the rest goes back."""

_NUMBER = struct.Struct("<q")

TellHung = Callable[[int, int, str], None]
"""Told slot, pid and reason (``hung`` or ``cancelled``) of a worker that must be replaced."""


class SharedBody:
    """A request body in the model's arena, held by its job and by each worker that reads it."""

    __slots__ = ("_backend", "_holders", "block")

    def __init__(self, backend: ProcessBackend, block: Block, holders: int = 1) -> None:
        self._backend = backend
        self.block = block
        self._holders = holders

    def __len__(self) -> int:
        return self.block.size

    def hold(self) -> None:
        """One more reader."""
        self._holders += 1

    def part(self, place: Place, free: Callable[[Place], None]) -> memoryview:
        """Return the bytes at ``place``, held until ``free`` was called.

        Raises:
            ValueError: they are not all in this body.
        """
        block = self.block
        start, stop = place.offset - block.offset, place.offset + place.size - block.offset
        if place.segment != block.segment.number or not 0 <= start <= stop <= block.size:
            raise ValueError(f"{place} is not within {block}")
        self.hold()
        return leased(block.segment.memory, place, free).data

    def release(self) -> None:
        """One reader less; the last one gives the block back."""
        self._holders -= 1
        if not self._holders:
            self._backend.give_back(self.block)


class SharedSink:
    """Takes a body's pieces into shared memory while they arrive."""

    def __init__(self, backend: ProcessBackend, declared: int | None) -> None:
        self._backend = backend
        self._block = backend.take(declared or 4 * INLINE)
        self._size = 0

    def write(self, piece: bytes | bytearray) -> None:
        """Take the next piece; raises ArenaFull when there is no room for it."""
        end = self._size + len(piece)
        if end > self._block.size and not self._block.resize(max(end, 2 * self._block.size)):
            self._move(max(end, 2 * self._block.size))
        self._block.write(self._size, piece)
        self._size = end

    def _move(self, size: int) -> None:
        block = self._backend.take(size)
        block.write(0, self._block.view[: self._size])
        self._backend.give_back(self._block)
        self._block = block

    def close(self) -> SharedBody:
        """Return the body, cut to its size."""
        self._block.resize(self._size)
        return SharedBody(self._backend, self._block)

    def discard(self) -> None:
        """Give the memory back."""
        self._backend.give_back(self._block)


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
        self._ledger: Bytes | None = None
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
        return 0 if self._ledger is None else int(_NUMBER.unpack_from(self._ledger.data)[0])

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
            sink = SharedSink(self._backend, len(body))
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
            self._over(frame.job)

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
        self._over(frame.job)

    def _failed(self, frame: Failed) -> None:
        self._jobs[frame.job].reply.fail(error_of(frame))
        self._over(frame.job)

    def _done(self, frame: Done) -> None:
        self._over(frame.job)

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
        self._ledger = self._link.look(frame.place, lambda _: None)
        self._host.on_room()

    def _over(self, number: int) -> None:
        job = self._jobs.pop(number)
        del self._numbers[job]
        self._bodies.pop(number, None)
        self._end(number, self._given.pop(number))
        if (timer := self._graces.pop(number, None)) is not None:
            timer.cancel()
        if self.retiring and not self._jobs:
            self._link.close()
        self._backend.over()
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


class ProcessBackend:
    """The workers of one model, as the supervisor links them."""

    def __init__(self, signature: Signature, options: Options, tell_hung: TellHung) -> None:
        self.signature = signature
        self.options = options
        self.tell_hung = tell_hung
        self.slots: list[ProcessSlot] = []
        self.arena = Arena(REQUESTS, self._unshare)
        self._hosted = anyio.Event()
        self._settled = anyio.Event()
        self._quiet: anyio.Event | None = None
        self._over = anyio.Event()
        self._detail = ""
        self._host: Host
        self._trim: Timer | None = None

    @asynccontextmanager
    async def open(self, host: Host) -> AsyncIterator[ProcessBackend]:
        """Wait until the supervisor says that every slot has loaded; it ends them, too."""
        self._host = host
        self._hosted.set()
        await self._settled.wait()
        if self._over.is_set():
            raise PluginError(self._detail)
        try:
            yield self
        finally:
            # What was cut off gets its grace to close; whoever still works then is stuck.
            self._quiet = anyio.Event()
            self.over()
            with anyio.move_on_after(self.options.grace, shield=True):
                await self._quiet.wait()
            for slot in self.slots:
                if slot.busy:
                    self.tell_hung(slot.slot, slot.pid, "cancelled")

    def over(self) -> None:
        """A job has ended."""
        if self._quiet is not None and not any(slot.busy for slot in self.slots):
            self._quiet.set()

    async def failure(self) -> str:
        """Wait until the supervisor gives the model up."""
        await self._over.wait()
        return self._detail

    async def link(self, slot: int, pid: int, frames: socket.socket, side: socket.socket) -> None:
        """Use a worker that has loaded."""
        await self._hosted.wait()
        worker = ProcessSlot(self, self._host, slot, pid, side)
        await worker.open(frames)
        self.slots.append(worker)
        self._host.on_room()

    def unlink(self, pid: int) -> None:
        """Let a worker finish what it has, and then go."""
        for slot in self.slots:
            if slot.pid == pid:
                slot.retire()

    def cut(self, pid: int) -> None:
        """A worker has ended, even if something that it started holds its link open."""
        for slot in self.slots:
            if slot.pid == pid:
                slot.cut()

    def become(self, state: str, detail: str) -> None:
        """The supervisor says how the model is doing; failed is for good."""
        if state == "failed":
            self._detail = detail
            self._over.set()
        if state in ("ready", "failed"):
            self._settled.set()

    def remove(self, slot: ProcessSlot) -> None:
        """A worker is gone."""
        if slot in self.slots:
            self.slots.remove(slot)
            self._host.on_room()

    def sink(self, declared: int | None) -> SharedSink:
        """Begin a large body; raises ArenaFull."""
        return SharedSink(self, declared)

    def take(self, size: int) -> Block:
        """Return a block of shared memory; raises ArenaFull."""
        block = self.arena.take(max(size, 1))
        if block is None:
            raise ArenaFull(retry_after=1.0)
        return block

    def give_back(self, block: Block) -> None:
        """Free ``block``; memory that stays unused for a while goes back to the system."""
        block.free()
        if self._trim is None and not self.arena.used and self.arena.mapped > WARM:
            self._trim = call_later(IDLE, self._give_pages_back)

    def _give_pages_back(self) -> None:
        self._trim = None
        if not self.arena.used:
            self.arena.trim(WARM)

    def _unshare(self, segment: int) -> None:
        for slot in self.slots:
            slot.unshare(segment)
