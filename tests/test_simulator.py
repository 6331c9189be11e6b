"""Random schedules of clients and slots: what holds for every one, and that breaking it is seen."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from invariants import Broken, Watch
from simulator import World, linear

from atomserve.engine.batching import Batching, Bounds
from atomserve.engine.jobs import Job
from atomserve.engine.lanes import Lane
from atomserve.engine.queues import Line, Queue

SECONDS = st.sampled_from([0.0, 0.0001, 0.001, 0.004, 0.02])


class Request(NamedTuple):
    """One client: comes ``gap`` after the one before."""

    gap: float
    tenant: str
    urgency: int
    wait: float | None
    leaves: float | None
    key: str | None
    cost: float


class Schedule(NamedTuple):
    """One world and all who come to it."""

    requests: list[Request]
    batch: bool
    slots: int
    capacity: int
    queue: int
    size: int
    budget: float
    delay: float
    target: float | None
    fixed: float
    each: float
    lost: list[float]
    lag: float


requests = st.builds(
    Request,
    SECONDS,
    st.sampled_from(["", "", "a", "b"]),
    st.sampled_from([3, 3, 3, 0, 7]),
    st.sampled_from([None, 1.0, 1.0, 0.001, 0.006, 0.05]),
    st.sampled_from([None, None, None, 0.0, 0.003]),
    st.sampled_from([None, None, None, "x", "y"]),
    st.sampled_from([1.0, 1.0, 0.5, 3.0]),
)
schedules = st.builds(
    Schedule,
    st.lists(requests, min_size=1, max_size=40),
    st.booleans(),
    st.integers(1, 3),
    st.integers(1, 2),
    st.sampled_from([1, 4, 16, 64]),
    st.sampled_from([1, 2, 5, 32]),
    st.sampled_from([math.inf, math.inf, 4.0]),
    st.sampled_from([0.0, 0.001, 0.005]),
    st.sampled_from([None, 0.02]),
    st.sampled_from([0.0, 0.001, 0.005]),
    st.sampled_from([0.0, 0.0002, 0.002]),
    st.lists(st.sampled_from([0.001, 0.005, 0.02]), max_size=2),
    st.sampled_from([0.0, 0.002]),
)


def play(schedule: Schedule, lane: type[Lane] = Lane, batching: type[Batching] = Batching) -> Watch:
    """Run ``schedule`` to its end; raises Broken when an invariant does not hold."""
    bounds = Bounds(
        max_size=schedule.size,
        max_delay=schedule.delay,
        max_cost=schedule.budget,
        target=schedule.target,
        parallel=schedule.slots * schedule.capacity,
    )
    size, budget = (schedule.size, schedule.budget) if schedule.batch else (1 << 30, math.inf)
    watch = Watch(queue=schedule.queue, size=size, budget=budget)
    world = World(
        lane("m", schedule.queue, slots=schedule.slots, capacity=schedule.capacity),
        linear(schedule.fixed, schedule.each),
        batching=batching(bounds) if schedule.batch else None,
        slots=schedule.slots,
        capacity=schedule.capacity,
        watch=watch,
        lag=schedule.lag,
    )
    at = 0.0
    for each in schedule.requests:
        at += each.gap
        how: dict[str, Any] = {"leaves": each.leaves, "cost": each.cost, "urgency": each.urgency}
        # Without batches the engine sets no key.
        how["key"] = each.key if schedule.batch else None
        world.after(
            at, lambda each=each, how=how: world.offer(tenant=each.tenant, wait=each.wait, **how)
        )
    for moment in schedule.lost:
        world.after(moment, world.lose, 0)
    world.run()
    watch.finish()
    return watch


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(schedules)
@pytest.mark.timeout(120)
def test_every_invariant_holds_for_any_schedule(schedule: Schedule) -> None:
    play(schedule)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(schedules)
def test_every_invariant_holds_for_ten_thousand_schedules(schedule: Schedule) -> None:
    play(schedule)


class Loses(Lane):
    def take(self, most: int, now: float) -> list[Job]:
        return super().take(most, now)[:-1]


class Repeats(Lane):
    last: Job | None = None

    def take(self, most: int, now: float) -> list[Job]:
        jobs = super().take(most, now)
        if self.last is not None and jobs and not self.last.reply.ended:
            jobs = [self.last, *jobs]
        if jobs:
            self.last = jobs[-1]
        return jobs


class RunsAll(Lane):
    def _live(self, job: Job, now: float) -> bool:
        return True


class KeepsTheAbandoned(RunsAll):
    def drop(self, job: Job) -> None: ...


class Unbounded(Lane):
    def _shed(self, name: str) -> None: ...


class Unfair(Line):
    oldest_every = 1 << 30


class LastFirst(Line):
    def take(self) -> Job:
        job, _ = self.jobs.popitem()
        self._tidy()
        return job


class UnfairQueue(Queue):
    line = Unfair


class BackwardQueue(Queue):
    line = LastFirst


class Starving(Lane):
    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._queue = UnfairQueue()


class Backward(Lane):
    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._queue = BackwardQueue()


class Mixing(Lane):
    def _gather(self, key: Hashable, now: float) -> list[Job]:
        others = [other for other in self._groups if other != key]
        batch = super()._gather(key, now)
        return batch + (super()._gather(others[0], now)[:1] if others and len(batch) == 1 else [])


class Spending(Lane):
    def _gather(self, key: Hashable, now: float) -> list[Job]:
        return super()._gather(key, now) + super()._gather(key, now)


class Larger(Batching):
    @property
    def size(self) -> int:
        return self.bounds.max_size + 1


CONTROLS: list[tuple[str, type[Lane], type[Batching]]] = [
    ("no job is lost", Loses, Batching),
    ("no job runs twice", Repeats, Batching),
    ("no job runs after its deadline", RunsAll, Batching),
    ("no job runs that nobody waits for", KeepsTheAbandoned, Batching),
    ("the queue is within its bound", Unbounded, Batching),
    ("nobody starves", Starving, Batching),
    ("order is kept", Backward, Batching),
    ("a batch has one key", Mixing, Batching),
    ("a batch is within its budget", Spending, Batching),
    ("a batch has no more jobs than it may", Lane, Larger),
]


@pytest.mark.parametrize(
    ("name", "lane", "batching"), CONTROLS, ids=[name for name, *_ in CONTROLS]
)
def test_a_lane_that_breaks_it_is_caught(
    name: str, lane: type[Lane], batching: type[Batching]
) -> None:
    dice = random.Random(5)
    found: set[str] = set()
    for _ in range(400):
        try:
            play(drawn(dice), lane, batching)
        except Broken as broken:
            found.add(str(broken))
            if name in found:
                return
        except Exception as error:  # noqa: BLE001 - a broken lane may break itself, too
            found.add(repr(error))
    pytest.fail(f"only found: {found}")


def drawn(dice: random.Random) -> Schedule:
    """Return a random schedule that is harder on a lane than most: many come at once."""
    pick: Callable[[Any], Any] = dice.choice
    crowd = [
        Request(
            pick([0.0, 0.0, 0.0, 0.001]),
            pick(["", "a"]),
            pick([3, 0, 0, 0]),
            pick([None, 1.0, 0.006, 0.02]),
            pick([None, None, 0.003]),
            pick([None, "x"]),
            pick([1.0, 3.0]),
        )
        for _ in range(120)
    ]
    return Schedule(
        crowd,
        pick([True, False]),
        pick([1, 2]),
        1,
        pick([4, 128]),
        pick([2, 5]),
        pick([4.0, math.inf]),
        pick([0.0, 0.005]),
        None,
        0.001,
        pick([0.0, 0.002]),
        [],
        0.002,
    )
