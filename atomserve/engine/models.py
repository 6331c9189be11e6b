"""One wrapper under the name it is served by: its state, its lane, its slots, its jobs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import structlog

from atomserve.context import Context
from atomserve.engine.backend import Backend, Opened, Sink, Slot
from atomserve.engine.batching import Batching, Bounds
from atomserve.engine.cache import Cache
from atomserve.engine.calls import Call, Session, Stream
from atomserve.engine.dealing import deal
from atomserve.engine.flights import Flights
from atomserve.engine.jobs import USUAL_URGENCY, Job, Payload
from atomserve.engine.lanes import Lane
from atomserve.engine.loops import EndOfTurn, Mailbox, Timer, call_later
from atomserve.engine.options import Options
from atomserve.engine.poison import Poison
from atomserve.engine.replies import Many, One
from atomserve.engine.streams import Inbox
from atomserve.engine.suspects import NOBODY, Verdict, judge, judge_each
from atomserve.engine.traits import Traits
from atomserve.errors import AtomError, Draining, NotReady, PluginError, PoisonRequest, WorkerLost
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
        self._flights: Flights | None = None
        self._poison = Poison()
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
                self._opened = opened
                if opened.signature.takes == "batch":
                    self._lane.batch(Batching(_bounds(self.options)))
                self.renew(opened.signature)
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

    def renew(self, signature: Signature) -> None:
        """From now on serve by ``signature``, and by what the backend's options say now."""
        self.signature = signature
        self._traits = Traits(self.options)
        if self._lane.batching is not None:
            self._lane.batching.bounds = _bounds(self.options)
        # With a cache of its own: answers of another version are none of this one.
        self._flights = self._shared(signature)

    def on_room(self) -> None:
        """A slot's room grew, or the slots are not the same any more."""
        self._turn.ask()
        if self.state in ("ready", "restarting"):
            self._become("ready" if self.slots else "restarting")

    def lost(self, begun: Sequence[Job], waiting: Sequence[Job]) -> bool:
        """Let a lost slot's jobs run again where that is safe, else fail them.

        ``begun`` may have run; ``waiting`` did not. Both are in the order of their arrival.
        Returns whether one of the jobs is looked for that the slot was lost by.
        """
        verdict = self._verdict(begun) if begun else NOBODY
        now = time.monotonic()
        for job in (*reversed(waiting), *reversed(verdict.again)):
            if job.reply.ended:
                continue
            if self.state == "failed":
                job.reply.fail(self._unready())
            else:
                self._lane.restore(job, now)
        self._turn.ask()
        for job in verdict.unclear:
            job.reply.fail(WorkerLost(retry_after=1.0))
        for job in verdict.guilty:
            self._shun(job, now)
        return verdict.excused

    def _shun(self, job: Job, now: float) -> None:
        if job.reply.ended:
            return  # Its body may be gone with its client.
        log.error("request.poison", model=self.name, request_id=job.context.request_id)
        job.reply.fail(PoisonRequest())
        try:
            self._poison.add(job.payload, now)
        except Exception:  # The others of its worker must not pay for it.
            log.exception("request.not_remembered", model=self.name)

    def _verdict(self, begun: Sequence[Job]) -> Verdict:
        if not self.options.idempotent or any(job.takes != "call" for job in begun):
            return Verdict(unclear=begun, excused=False)
        if self._lane.batching is None or self.options.capacity > 1:
            return judge_each(begun)
        suspects, ran = self._lane.together(begun)
        if not suspects:
            return Verdict(again=begun, excused=False)
        # The others were answered; the answers were lost on their way.
        among = set(suspects)
        answered = [job for job in begun if job not in among]
        verdict = judge(suspects, ran)
        return msgspec.structs.replace(verdict, again=(*answered, *verdict.again))

    def check(self, tenant: str = "") -> Signature:
        """Say what is served, if a request of ``tenant`` could be taken; asked before its body.

        Raises:
            NotReady: the model is not loaded.
            Draining: the server is shutting down.
            Overloaded: its lane is full, and no request can be answered without a place in it.
        """
        if self.state not in ("ready", "restarting") or self.closed is not None:
            raise self._unready()
        assert self.signature is not None, "a model that was ready has its signature"
        if self._lane.full and self._flights is None:
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
        patience = self._patience(wait)
        context.deadline = time.monotonic() + patience
        if self._flights is not None:
            return self._call_shared(self._flights, payload, context, patience, urgency)
        reply = One()
        job = Job(payload, context, reply, urgency=urgency)
        if self._traits:
            self._traits.mark(job)
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

    def _shared(self, signature: Signature) -> Flights | None:
        """Return what equal requests share, if they may."""
        options = self.options
        if not options.cacheable or signature.streams or signature.takes == "session":
            return None
        return Flights(
            Cache(options.cache_size, options.cache_ttl),
            signature.version,
            longest=options.timeout,
            accept=self._accept_shared,
            hasten=self._lane.hasten,
            forget=self._forget,
        )

    def _call_shared(
        self, flights: Flights, payload: Payload, context: Context, patience: float, urgency: int
    ) -> Call:
        try:
            self.check()
        except AtomError:
            payload.release()
            raise
        return flights.call(payload, context, patience=patience, urgency=urgency)

    def _accept_shared(self, job: Job) -> None:
        if self._traits:
            self._traits.mark(job)
        if self._lane.full:
            self._fill_slots()  # Nobody has looked before its body was read.
        self._accept(job)

    def _patience(self, wait: float | None) -> float:
        return self.options.timeout if wait is None else min(wait, self.options.timeout)

    def _accept(self, job: Job) -> None:
        try:
            self.check(job.context.tenant)
            job.arrived = now = time.monotonic()
            if self._poison and self._poison.holds(job.payload, now):
                raise PoisonRequest
            self._lane.offer(job, now)
        except AtomError:
            job.payload.release()
            raise
        self.jobs.add(job)
        self._turn.ask()

    def _forget(self, job: Job) -> None:
        self.jobs.discard(job)
        self._lane.finished(job, time.monotonic())
        job.payload.release()

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
