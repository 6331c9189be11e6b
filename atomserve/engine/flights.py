"""Equal requests of one model: computed once while they are on their way, then kept for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from atomserve.context import Context
from atomserve.engine.cache import Cache
from atomserve.engine.calls import Call
from atomserve.engine.digests import digest
from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.replies import One
from atomserve.errors import Abandoned, AtomError, DeadlineExceeded, Overloaded

BYPASS, MISS, COLLAPSED = "fwd=bypass", "fwd=miss", "fwd=miss; collapsed"


class Caller:
    """One of those who wait for a job, in the job's place; ``status`` is RFC 9211's."""

    __slots__ = ("_flight", "context", "reply", "status")

    def __init__(
        self, reply: One, status: str, context: Context, flight: Flight | None = None
    ) -> None:
        self.reply = reply
        self.status = status
        self.context = context
        self._flight = flight

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return ((b"cache-status", f"atomserve; {self.status}".encode()),)

    def give_up(self, error: AtomError) -> None:
        """End the wait with ``error``; the others wait on."""
        if not self.reply.ended:
            self.reply.fail(error)
            self.walk_away()

    def walk_away(self) -> None:
        """Wait no longer."""
        if self._flight is not None:
            self._flight.leave(self)


class Flight:
    """A job and all who wait for it; it is abandoned when the last of them leaves.

    The job's deadline is the latest of theirs: whoever joins moves it. A worker knows it as it was
    when the job was sent: of a job that it then refused as expired, those who still have time get
    a second run. So do other tenants' callers of a job that lost its place to another tenant.
    """

    __slots__ = ("callers", "job", "key", "reply", "rerun", "until")

    def __init__(
        self, key: bytes | None, payload: Payload, context: Context, *, urgency: int, until: float
    ) -> None:
        self.key = key
        self.reply = One()
        self.job = Job(payload, context, self.reply, urgency=urgency)
        self.until = until
        """When the last may join: else a job that hangs would never be without callers."""
        self.callers: dict[Caller, None] = {}
        self.rerun = False

    def join(self, reply: One, status: str, context: Context) -> Caller:
        """Let one more wait, until its deadline."""
        own = self.job.context
        own.deadline = max(own.deadline or 0.0, context.deadline or 0.0)
        caller = Caller(reply, status, context, self)
        self.callers[caller] = None
        return caller

    def leave(self, caller: Caller) -> None:
        """``caller`` waits no longer."""
        if caller in self.callers:
            del self.callers[caller]
            if not self.callers:
                self.job.give_up(Abandoned())

    def in_time(self, now: float) -> bool:
        """Say whether somebody has time left for a second run."""
        return bool(self.callers) and not self.rerun and not self.job.expired(now)

    def shed(self, refusal: Overloaded) -> Context | None:
        """Tell ``refusal`` to the callers of the job's tenant; return another's context, if any."""
        refused = self.job.context.tenant
        for caller in [each for each in self.callers if each.context.tenant == refused]:
            del self.callers[caller]
            caller.reply.fail(refusal)
        contexts = [each.context for each in self.callers]
        if not contexts:
            return None
        contexts[0].deadline = max(each.deadline or 0.0 for each in contexts)
        return contexts[0]

    def land(self, outcome: Answer | AtomError, note: str = "") -> None:
        """Tell all callers; ``note`` is what those who did not join late are told beside it."""
        callers, self.callers = self.callers, {}
        for caller in callers:
            if isinstance(outcome, AtomError):
                caller.reply.fail(outcome)
            else:
                if caller.status == MISS:
                    caller.status += note
                caller.reply.answer(outcome)


class Flights:
    """What is on its way for one model, by digest, and what is kept of it.

    ``accept``, ``hasten`` and ``forget`` are the model's: they take a job on, make one that waits
    more urgent, and let go of one that ended.
    """

    def __init__(
        self,
        cache: Cache,
        version: str,
        longest: float,
        *,
        accept: Callable[[Job], None],
        hasten: Callable[[Job, int], None],
        forget: Callable[[Job], None],
    ) -> None:
        self.cache = cache
        self._version = version
        self._longest = longest
        self._accept = accept
        self._hasten = hasten
        self._forget = forget
        self._flights: dict[bytes, Flight] = {}

    def __repr__(self) -> str:
        return f"<Flights: {len(self._flights)} under way, {self.cache}>"

    def call(self, payload: Payload, context: Context, *, patience: float, urgency: int) -> Call:
        """Answer from the cache, wait with others, or accept a job: raises as that does."""
        now = time.monotonic()
        key = digest(payload, self._version)
        reply = One()
        context.deadline = now + patience
        caller = self._known(key, reply, context, now, urgency)
        if caller is None:
            flight = Flight(key, payload, context, urgency=urgency, until=now + self._longest)
            self._start(flight)
            status = BYPASS if key is None else MISS
            caller = flight.join(reply, status, context)
        else:
            payload.release()
        return Call(caller, reply, patience, _nothing)

    def _known(
        self, key: bytes | None, reply: One, context: Context, now: float, urgency: int
    ) -> Caller | None:
        """Return the part in what there is already."""
        if key is None:
            return None
        kept = self.cache.get(key, now)
        if kept is not None:
            reply.answer(kept.answer)
            return Caller(reply, f"hit; ttl={int(kept.until - now)}", context)
        flight = self._flights.get(key)
        # Without callers it was abandoned in this very turn.
        if flight is None or not flight.callers or flight.until <= now:
            return None
        if urgency < flight.job.urgency:
            self._hasten(flight.job, urgency)
        return flight.join(reply, COLLAPSED, context)

    def _start(self, flight: Flight) -> None:
        """Have the flight's job run; raises as accepting it does."""
        self._accept(flight.job)
        if flight.key is not None:
            self._flights[flight.key] = flight
        # Not at once: whoever ends a job need not expect that this makes others begin.
        flight.reply.then(partial(self._ended, flight))

    def _ended(self, flight: Flight, outcome: Answer | AtomError) -> None:
        now = time.monotonic()
        if isinstance(outcome, DeadlineExceeded) and flight.in_time(now):
            flight.rerun = True
            self._run_again(flight, flight.job.context)
        elif isinstance(outcome, Overloaded) and (context := flight.shed(outcome)) is not None:
            self._run_again(flight, context)
        else:
            self._forget(flight.job)
            self._land(flight, outcome, now)

    def _land(self, flight: Flight, outcome: Answer | AtomError, now: float) -> None:
        key, note = flight.key, ""
        if key is not None:
            if self._flights.get(key) is flight:
                del self._flights[key]
            if isinstance(outcome, Answer) and (kept := self.cache.put(key, outcome, now)):
                outcome, note = kept.answer, f"; stored; ttl={int(self.cache.ttl)}"
        flight.land(outcome, note)

    def _run_again(self, flight: Flight, context: Context) -> None:
        old = flight.job
        payload, old.payload = old.payload, Payload()
        if not isinstance(payload.body, bytes | bytearray | memoryview):
            # The slot that refused may not have let go of it, and takes no body twice.
            large, payload.body = payload.body, bytes(payload.body.data)
            large.release()
        self._forget(old)
        flight.reply = One()
        flight.job = Job(payload, context, flight.reply, urgency=old.urgency)
        try:
            self._start(flight)
        except AtomError as exc:
            self._land(flight, exc, time.monotonic())


def _nothing(_: Caller) -> None:
    pass
