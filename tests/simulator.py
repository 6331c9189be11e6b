"""A lane with slots and clients under virtual time: the real decisions, no clock, no threads."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from atomserve.context import Context
from atomserve.engine.batching import Batching, Bounds
from atomserve.engine.dealing import deal
from atomserve.engine.jobs import USUAL_URGENCY, Answer, Job, Payload
from atomserve.engine.lanes import Lane
from atomserve.errors import Abandoned, AtomError, DeadlineExceeded, Overloaded

TOLD = 0.00001
"""Seconds after a job's end at which those who wait for it go on."""

Service = Callable[[int], float]
"""Seconds that a batch of so many jobs takes."""


class Heard:
    """A reply that keeps what it hears, and tells when it ends."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.job: Job
        self.ended = False
        self.answers = 0
        self.error: AtomError | None = None
        self.then: Callable[[Job], None] | None = None

    def begun(self) -> None: ...

    def prepared(self, answer: Answer) -> Answer:
        return answer

    def answer(self, answer: Answer) -> None:
        self.answers += 1
        self._end()

    def end(self) -> None:
        self._end()

    def fail(self, error: AtomError) -> None:
        if not self.ended:
            self.error = error
            self._end()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self.world.over(self.job)


class SimulatedSlot:
    """Runs ``capacity`` jobs, or batches, at once; takes ``most_ahead`` full batches more."""

    def __init__(
        self, world: World, service: Service, capacity: int = 1, most_ahead: int = 1
    ) -> None:
        self.world = world
        self.service = service
        self.capacity = capacity
        self.most_ahead = most_ahead
        self.running: list[Sequence[Job]] = []
        self.waiting: deque[Sequence[Job]] = deque()
        self.lost = False

    @property
    def room(self) -> int:
        return 0 if self.lost else self.capacity - len(self.running)

    @property
    def busy(self) -> int:
        return len(self.running)

    @property
    def ahead(self) -> int:
        return 0 if self.lost else self.most_ahead - len(self.waiting)

    def run(self, jobs: Sequence[Job]) -> None:
        self.world.handed(jobs)
        for job in jobs:
            job.holder = self
        for part in [jobs] if self.world.batches else [[job] for job in jobs]:
            self.waiting.append(part)
        self._begin()

    def drop(self, job: Job) -> None:
        """What runs, runs on."""

    def _begin(self) -> None:
        while self.waiting and len(self.running) < self.capacity:
            batch = self.waiting.popleft()
            live = [job for job in batch if not job.reply.ended]
            self.running.append(batch)
            seconds = self.service(len(live)) if live else 0.0
            self.world.after(seconds, self._done, batch)

    def _done(self, batch: Sequence[Job]) -> None:
        if self.lost:
            return
        self.running.remove(batch)
        self.world.ran += 1
        for job in batch:
            if not job.reply.ended:
                job.reply.answer(Answer(b""))
        self._begin()
        self.world.ask()

    def lose(self) -> None:
        """The worker died and another takes its place: what it had waits again."""
        gone = [job for batch in (*self.running, *self.waiting) for job in batch]
        self.lost = True
        self.world.slots[self.world.slots.index(self)] = SimulatedSlot(
            self.world, self.service, self.capacity, self.most_ahead
        )
        for job in reversed(gone):
            if not job.reply.ended:
                self.world.restored(job)
        self.world.ask()


class World:
    """Virtual time, one lane, its slots; what clients do is scheduled by `after` and `at`."""

    def __init__(
        self,
        lane: Lane,
        service: Service,
        *,
        batching: Batching | None = None,
        slots: int = 1,
        capacity: int = 1,
        ahead: int = 1,
        watch: Any = None,
        lag: float = 0.0,
    ) -> None:
        self.now = 0.0
        self.lag = lag
        """Seconds that the timers of deadlines are late: a loop may be busy."""
        self.lane = lane
        self.batches = batching is not None
        if batching is not None:
            lane.batch(batching)
        self.slots = [
            SimulatedSlot(self, service, capacity, ahead if self.batches else 0)
            for _ in range(slots)
        ]
        self.accepted: list[Job] = []
        self.refused: list[Overloaded] = []
        self.latencies: list[float] = []
        self.good = 0
        self.ran = 0
        self.most_waiting = 0
        self.watch = watch
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = 0
        self._asked = False
        self._timer = 0

    def after(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        self._number += 1
        heappush(self._events, (self.now + seconds, self._number, call, args))

    def ask(self) -> None:
        """Deal at the end of the turn."""
        if not self._asked:
            self._asked = True
            self.after(0.0, self._deal)

    def run(self, until: float = math.inf) -> World:
        while self._events and self._events[0][0] <= until:
            self.now, _, call, args = heappop(self._events)
            call(*args)
        return self

    def offer(
        self,
        *,
        tenant: str = "",
        wait: float | None = None,
        urgency: int = USUAL_URGENCY,
        key: str | None = None,
        cost: float = 1.0,
        leaves: float | None = None,
        then: Callable[[Job], None] | None = None,
    ) -> Job | None:
        """Offer a job whose client waits ``wait`` seconds; None if it is refused."""
        deadline = None if wait is None else self.now + wait
        reply = Heard(self)
        job = Job(Payload(), Context(tenant=tenant, deadline=deadline), reply, urgency=urgency)
        reply.job, job.key, job.cost, job.arrived = job, key, cost, self.now
        try:
            if self.watch is not None:
                self.watch.offered(job)
            self.lane.offer(job, self.now)
        except Overloaded as error:
            self.refused.append(error)
            return None
        reply.then = then
        self.accepted.append(job)
        self.most_waiting = max(self.most_waiting, len(self.lane))
        if self.watch is not None:
            self.watch.accepted(job)
        if wait is not None:
            self.after(wait + self.lag, job.give_up, DeadlineExceeded())
        if leaves is not None:
            self.after(leaves, job.give_up, Abandoned())
        self.ask()
        return job

    def lose(self, slot: int) -> None:
        """Let the worker die that is now in the place of ``slot``."""
        self.slots[slot].lose()

    def restored(self, job: Job) -> None:
        self.lane.restore(job, self.now)
        if self.watch is not None:
            self.watch.restored(job)

    def handed(self, jobs: Sequence[Job]) -> None:
        if self.watch is not None:
            self.watch.handed(jobs, self.now)

    def over(self, job: Job) -> None:
        reply = job.reply
        assert isinstance(reply, Heard)
        if self.watch is not None:
            self.watch.over(job)
        if reply.error is None:
            self.good += 1
            self.latencies.append(self.now - job.arrived)
        # As in the engine: whoever waits goes on in a later turn than the one that deals.
        self.after(TOLD, self._told, job)
        if reply.then is not None:
            reply.then(job)

    def _told(self, job: Job) -> None:
        self.lane.finished(job, self.now)

    def _deal(self) -> None:
        self._asked = False
        self._timer += 1
        if not self.lane:
            return
        slots = sorted(self.slots, key=lambda slot: slot.busy)
        deal(self.lane, slots, self.now, lambda _: None)
        if self.lane.due is not None:
            assert self.lane.due > self.now, "the lane asks to be asked in the past"
            self.after(self.lane.due - self.now, self._due, self._timer)

    def _due(self, timer: int) -> None:
        if timer == self._timer:
            self._deal()

    def clients(self, count: int, dice: random.Random, think: float = 0.0003, **how: Any) -> None:
        """Let ``count`` clients ask again and again, each ``think`` after its answer, about."""

        def pause() -> float:
            return think * dice.uniform(0.5, 1.5)

        def ask(_: Job | None = None) -> None:
            if self.offer(then=lambda _: self.after(pause(), ask), **how) is None:
                self.after(pause(), ask)

        for _ in range(count):
            self.after(pause(), ask)

    def poisson(self, rate: float, dice: random.Random, **how: Any) -> None:
        """Let clients ask ``rate`` times a second, whatever happens to their requests."""

        def arrive() -> None:
            self.offer(**how)
            self.after(dice.expovariate(rate), arrive)

        self.after(dice.expovariate(rate), arrive)

    def percentile(self, part: float, since: int = 0) -> float:
        ordered = sorted(self.latencies[since:])
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Fixed(Batching):
    """What other servers do: a batch goes when it is full, or its window is over."""

    def __init__(self, size: int, delay: float) -> None:
        super().__init__(Bounds(max_size=size, max_delay=delay))

    def wait_until(self, waiting: int, in_hand: int, asked: float, now: float) -> float | None:
        until = asked + self.bounds.max_delay
        return until if until > now else None


def linear(fixed: float, each: float) -> Service:
    return lambda size: fixed + each * size


def batching_world(
    batching: Batching, service: Service, *, queue: int = 4096, slots: int = 1, **how: Any
) -> World:
    return World(Lane("m", queue, slots=slots), service, batching=batching, slots=slots, **how)
