"""One wrapper under the name it is served by: its state, its lane, its slots, its jobs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

import structlog

from atomserve.context import Context
from atomserve.engine.backend import Backend, Opened, Sink, Slot
from atomserve.engine.batching import Batching, Bounds
from atomserve.engine.calls import Call, Session, Stream
from atomserve.engine.dealing import deal
from atomserve.engine.jobs import USUAL_URGENCY, Job, Payload
from atomserve.engine.lanes import Lane
from atomserve.engine.loops import EndOfTurn, Mailbox, Timer, call_later
from atomserve.engine.options import Options
from atomserve.engine.replies import Many, One
from atomserve.engine.streams import Inbox
from atomserve.engine.traits import Traits
from atomserve.errors import AtomError, Draining, NotReady, PluginError, WorkerLost
from atomserve.signature import Signature

log = structlog.get_logger("atomserve.engine")

State = Literal["loading", "ready", "restarting", "failed", "stopped"]


class Model:
    """Takes jobs for one wrapper and hands them to whichever of its slots has room.

    ``on_change`` is called with the model whenever its state changed.
    """

    def __init__(self, name: str, backend: Backend, on_change: Callable[[Model], None]) -> None:
        self.name = name
        self.state: State = "loading"
        self.detail = ""
        self.signature: Signature | None = None
        self.jobs: set[Job] = set()
        """Accepted and not yet ended."""
        self.closed: AtomError | None = None
        """Why no job is taken any more."""
        self.backend = backend
        self.mailbox: Mailbox
        self.waited: Callable[[float], None] = _unheard
        """Told how long each job waited for a slot, in seconds."""
        self._opened: Opened | None = None
        self._turns = 0
        self._lane = _lane(name, backend.options)
        self._traits = Traits(backend.options)
        self._due: Timer | None = None
        self._on_change = on_change

    def __repr__(self) -> str:
        return f"<Model {self.name}: {self.state}, {len(self.jobs)} jobs, {self._lane}>"

    @property
    def options(self) -> Options:
        return self.backend.options

    @property
    def slots(self) -> Sequence[Slot]:
        return () if self._opened is None else self._opened.slots

    @property
    def waiting(self) -> int:
        return len(self._lane)

    async def serve(self, mailbox: Mailbox) -> None:
        """Open the slots and keep them until cancelled; a failure becomes the model's state."""
        self.mailbox = mailbox
        self._turn = EndOfTurn(self._fill_slots)
        self._become("loading")
        try:
            async with self.backend.open(self) as opened:
                self._opened, self.signature = opened, opened.signature
                if self.signature.takes == "batch":
                    self._lane.batch(Batching(_bounds(self.options)))
                self._become("ready")
                try:
                    raise PluginError(await opened.failure())
                finally:
                    self._opened = None
        except PluginError as exc:
            log.error("model.failed", model=self.name, error=str(exc))
            self._become("failed", str(exc))
            self._lane.clear(self._unready())
        finally:
            if self.state != "failed":
                self._become("stopped")

    def on_room(self) -> None:
        """A slot's room grew, or the slots are not the same any more."""
        self._turn.ask()
        if self.state in ("ready", "restarting"):
            self._become("ready" if self.slots else "restarting")

    def lost(self, begun: Sequence[Job], waiting: Sequence[Job]) -> None:
        """Let a lost slot's jobs run again where that is safe, else fail them.

        ``begun`` may have run; ``waiting`` did not. Both are in the order of their arrival.
        """
        now = time.monotonic()
        again = list(waiting)
        for job in reversed(begun):
            if job.reply.ended:
                continue
            if self.options.idempotent and job.takes == "call" and not job.retried:
                job.retried = True
                again.insert(0, job)
            else:
                job.reply.fail(WorkerLost(retry_after=1.0))
        for job in reversed(again):
            if job.reply.ended:
                continue
            if self.state == "failed":
                job.reply.fail(self._unready())
            else:
                self._lane.restore(job, now)
        self._turn.ask()

    def check(self, tenant: str = "") -> Signature:
        """Say what is served, if a request of ``tenant`` could be taken; asked before its body.

        Raises:
            NotReady: the model is not loaded.
            Draining: the server is shutting down.
            Overloaded: its lane is full.
        """
        if self.state not in ("ready", "restarting") or self.closed is not None:
            raise self._unready()
        assert self.signature is not None, "a model that was ready has its signature"
        if self._lane.full:
            self._fill_slots()  # Slots may have room for what arrived in this very turn.
            if self._lane.refuses(tenant):
                raise self._lane.refusal()
        return self.signature

    def call(
        self,
        payload: Payload,
        context: Context,
        *,
        wait: float | None = None,
        urgency: int = USUAL_URGENCY,
    ) -> Call:
        """Accept a unary job whose client waits for ``wait`` seconds, if it says so.

        Raises:
            AtomError: as `check` does.
        """
        reply = One()
        job = Job(payload, context, reply, urgency=urgency)
        if self._traits:
            self._traits.mark(job)
        patience = self._patience(wait)
        context.deadline = time.monotonic() + patience
        self._accept(job)
        return Call(job, reply, patience, self._forget)

    def stream(
        self,
        payload: Payload,
        context: Context,
        *,
        wait: float | None = None,
        urgency: int = USUAL_URGENCY,
    ) -> Stream:
        """Accept a job with many answers; ``wait`` is for each. Raises as `check` does."""
        reply = Many()
        job = Job(payload, context, reply, takes="stream", urgency=urgency)
        self._accept(job)
        total = self.options.stream_timeout
        return Stream(job, reply, self._patience(wait), total, self._forget)

    def session(
        self, payload: Payload, context: Context, *, urgency: int = USUAL_URGENCY
    ) -> Session:
        """Accept a session; ``payload`` says only how its answers are written."""
        reply, inbox = Many(), Inbox()
        job = Job(payload, context, reply, takes="session", items=inbox, urgency=urgency)
        self._accept(job)
        options = self.options
        return Session(
            job, reply, options.timeout, options.stream_timeout, self._forget, inbox=inbox
        )

    def close(self, error: AtomError) -> None:
        """Take no job any more, and end all that are there with ``error``."""
        self.closed = error
        for job in list(self.jobs):
            job.give_up(error)

    def sink(self, declared: int | None) -> Sink:
        """Begin a large body; raises as `Sink` does."""
        return self.backend.sink(declared)

    def _patience(self, wait: float | None) -> float:
        return self.options.timeout if wait is None else min(wait, self.options.timeout)

    def _accept(self, job: Job) -> None:
        try:
            self.check(job.context.tenant)
            job.arrived = now = time.monotonic()
            self._lane.offer(job, now)
        except AtomError:
            _release(job)
            raise
        self.jobs.add(job)
        self._turn.ask()

    def _forget(self, job: Job) -> None:
        self.jobs.discard(job)
        self._lane.finished(job, time.monotonic())
        _release(job)

    def _fill_slots(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._lane:
            return
        now = time.monotonic()
        deal(self._lane, self._slots_in_turn(), now, self.waited)
        if self._lane.due is not None:
            self._due = call_later(self._lane.due - now, self._fill_slots)

    def _slots_in_turn(self) -> Sequence[Slot]:
        """Return the idle slots first: one that takes jobs ahead has room while it is busy."""
        slots = self.slots
        if len(slots) < 2:
            return slots
        # Other API processes see other jobs: without taking turns all would choose the same one.
        self._turns = (self._turns + 1) % len(slots)
        return sorted((*slots[self._turns :], *slots[: self._turns]), key=_busy)

    def _unready(self) -> AtomError:
        if self.closed is not None:
            return self.closed
        if self.state == "stopped":
            return Draining()
        why = "is loading" if self.state == "loading" else f"is {self.state}"
        return NotReady(f"model {self.name!r} {why}", retry_after=1.0)

    def _become(self, state: State, detail: str = "") -> None:
        if (state, detail) != (self.state, self.detail) or state == "loading":
            self.state, self.detail = state, detail
            self._on_change(self)


def _lane(name: str, options: Options) -> Lane:
    """Return the lane of this process for a model with ``options``."""
    return Lane(
        name,
        options.places,
        slots=options.slots,
        capacity=options.capacity,
        patience=options.target_latency or options.timeout / 2,
        tenants=options.tenants,
        part=1 / options.api_processes,
    )


def _bounds(options: Options) -> Bounds:
    return Bounds(
        max_size=options.max_batch_size,
        max_delay=options.max_batch_delay,
        max_cost=options.max_batch_cost or math.inf,
        target=options.target_latency,
        parallel=options.slots * options.capacity,
    )


def _unheard(_: float) -> None:
    pass


def _busy(slot: Slot) -> int:
    return slot.busy


def _release(job: Job) -> None:
    body = job.payload.body
    if type(body) not in (bytes, bytearray, memoryview):
        body.release()
