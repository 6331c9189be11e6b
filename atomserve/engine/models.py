"""One wrapper under the name it is served by: its state, its lane, its slots, its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import anyio
import structlog

from atomserve.context import Context
from atomserve.engine.backend import Backend, Slot
from atomserve.engine.calls import Call, Session, Stream
from atomserve.engine.jobs import Job, Lane, Payload
from atomserve.engine.loops import EndOfTurn, Mailbox
from atomserve.engine.options import Options
from atomserve.engine.replies import Many, One
from atomserve.engine.streams import Inbox
from atomserve.errors import AtomError, Draining, NotReady, PluginError
from atomserve.signature import Signature

log = structlog.get_logger("atomserve.engine")

State = Literal["loading", "ready", "failed", "stopped"]


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
        self._backend = backend
        self._lane = Lane(name, backend.options.queue_size)
        self._slots: tuple[Slot, ...] = ()
        self._on_change = on_change

    def __repr__(self) -> str:
        return f"<Model {self.name}: {self.state}, {len(self.jobs)} jobs, {self._lane}>"

    @property
    def options(self) -> Options:
        return self._backend.options

    @property
    def waiting(self) -> int:
        return len(self._lane)

    async def serve(self, mailbox: Mailbox) -> None:
        """Open the slots and keep them until cancelled; a failure becomes the model's state."""
        self._mailbox = mailbox
        self._turn = EndOfTurn(self._fill_slots)
        self._become("loading")
        try:
            async with self._backend.open(mailbox, self._turn.ask) as opened:
                self.signature, self._slots = opened.signature, tuple(opened.slots)
                self._become("ready")
                try:
                    await anyio.sleep_forever()
                finally:
                    self._slots = ()
                    self._become("stopped")
        except PluginError as exc:
            log.error("model.failed", model=self.name, error=str(exc))
            self._become("failed", str(exc))

    def check(self) -> Signature:
        """Say what is served, if a request could be taken now; asked before a body is read.

        Raises:
            NotReady: the model is not loaded.
            Draining: the server is shutting down.
            Overloaded: its lane is full.
        """
        if self.signature is None or self.state != "ready" or self.closed is not None:
            raise self._unready()
        if self._lane.full:
            self._fill_slots()  # Slots may have room for what arrived in this very turn.
            if self._lane.full:
                raise self._lane.refusal()
        return self.signature

    def call(self, payload: Payload, context: Context, *, wait: float | None = None) -> Call:
        """Accept a unary job whose client waits for ``wait`` seconds, if it says so.

        Raises:
            AtomError: as `check` does.
        """
        reply = One()
        job = Job(payload, context, reply)
        patience = self._patience(wait)
        context.deadline = time.monotonic() + patience
        self._accept(job)
        return Call(job, reply, patience, self.jobs.discard)

    def stream(self, payload: Payload, context: Context, *, wait: float | None = None) -> Stream:
        """Accept a job with many answers; ``wait`` is for each. Raises as `check` does."""
        reply = Many()
        job = Job(payload, context, reply)
        self._accept(job)
        total = self.options.stream_timeout
        return Stream(job, reply, self._patience(wait), total, self.jobs.discard)

    def session(self, payload: Payload, context: Context) -> Session:
        """Accept a session; ``payload`` says only how its answers are written."""
        reply, inbox = Many(), Inbox(self._mailbox)
        job = Job(payload, context, reply, inbox)
        self._accept(job)
        options = self.options
        return Session(
            job, reply, options.timeout, options.stream_timeout, self.jobs.discard, inbox=inbox
        )

    def close(self, error: AtomError) -> None:
        """Take no job any more, and end all that are there with ``error``."""
        self.closed = error
        for job in list(self.jobs):
            job.give_up(error)

    def _patience(self, wait: float | None) -> float:
        return self.options.timeout if wait is None else min(wait, self.options.timeout)

    def _accept(self, job: Job) -> None:
        self.check()
        self._lane.offer(job)
        self.jobs.add(job)
        self._turn.ask()

    def _fill_slots(self) -> None:
        now = time.monotonic()
        free = [(slot, room) for slot in self._slots if (room := slot.room)]
        for index, (slot, room) in enumerate(free):
            if not self._lane:
                return
            share = -(-len(self._lane) // (len(free) - index))
            if batch := self._lane.take(min(room, share), now):
                slot.run(batch)

    def _unready(self) -> AtomError:
        if self.closed is not None:
            return self.closed
        if self.state == "stopped":
            return Draining()
        why = "is loading" if self.state == "loading" else f"is {self.state}"
        return NotReady(f"model {self.name!r} {why}", retry_after=1.0)

    def _become(self, state: State, detail: str = "") -> None:
        self.state, self.detail = state, detail
        self._on_change(self)
