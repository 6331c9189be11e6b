"""Overload: what is refused, with which Retry-After, and who is protected from whom."""

from __future__ import annotations

import random
from typing import Any

import pytest
from simulator import World, batching_world, linear

from atomserve.engine.batching import Batching, Bounds
from atomserve.engine.lanes import Lane
from atomserve.engine.limits import AdaptiveLimit, Pace
from atomserve.engine.quotas import REMEMBERED, Quotas, per_second
from atomserve.errors import Overloaded, QuotaExceeded
from atomserve.settings import TenantSettings

STEP = linear(0.005, 0.0002)
IDEAL = 32 / STEP(32)


def single(*, size: int = 32, service: float = 0.01, slots: int = 1, **how: Any) -> World:
    """Return a world whose slots run one job at a time."""
    return World(Lane("m", size, slots=slots, **how), lambda _: service, slots=slots)


def test_at_four_times_the_load_the_slots_stay_busy_and_the_queue_bounded() -> None:
    world = single(slots=2)
    world.poisson(4 * 200, random.Random(1), wait=60.0)
    world.run(10.0)
    assert world.good >= 0.9 * 200 * 10
    assert world.most_waiting == 32
    assert world.percentile(0.99) <= 1.2 * (32 + 2) / 200
    assert all(error.retry_after and error.retry_after > 0 for error in world.refused)


def test_at_four_times_the_load_batches_stay_full() -> None:
    world = batching_world(Batching(Bounds()), STEP, queue=128)
    world.poisson(4 * IDEAL, random.Random(1), wait=60.0)
    world.run(3.0)
    assert world.good >= 0.9 * IDEAL * 3
    assert world.most_waiting == 128


def test_retry_after_follows_the_service_times() -> None:
    waits = []
    for service in (0.01, 0.1):
        world = single(service=service)
        world.poisson(400, random.Random(1), wait=600.0)
        world.run(300 * service)
        waits.append(world.refused[-1].retry_after)
    assert waits == [pytest.approx(0.32, rel=0.1), pytest.approx(3.2, rel=0.1)]


def test_what_would_wait_beyond_its_deadline_is_refused_at_once() -> None:
    world = single(size=1000)
    world.poisson(400, random.Random(1), wait=0.1)
    world.run(5.0)
    late = [job for job in world.accepted if job.reply.ended and job.taken is None]
    assert world.refused
    assert world.good >= 0.9 * 100 * 5
    assert len(late) <= 0.05 * len(world.accepted)
    error = world.refused[-1]
    assert 0 < (error.retry_after or 0) < 0.1
    assert (error.limit, error.reset) == (1000, error.retry_after)
    assert error.remaining > 900, "there are places, but none in time"


def test_an_urgent_request_is_not_refused_for_those_it_overtakes() -> None:
    world = single(size=1000)
    world.poisson(400, random.Random(1), wait=1.0)
    world.run(3.0)
    assert world.offer(wait=0.1, urgency=0) is not None
    assert world.offer(wait=0.1) is None


def test_the_limit_falls_under_lateness_and_recovers_when_it_is_over() -> None:
    world = single(size=100, patience=0.2)
    world.poisson(400, random.Random(1), wait=60.0)
    world.run(20.0)
    limit = world.lane.limit
    assert 1 <= limit.places < 40  # 20 wait 0.2 s
    assert max(world.latencies[-500:]) <= 0.4
    calm = single(size=100, patience=0.2)
    calm.lane = world.lane
    for job in list(world.lane._queue):
        job.give_up(Overloaded())
    calm.now = world.now
    calm.poisson(50, random.Random(1), wait=60.0)
    calm.run(world.now + 100.0)
    assert limit.places > 90


def test_the_limit_falls_once_in_a_round_trip_and_never_below_the_slots() -> None:
    limit = AdaptiveLimit(floor=4, ceiling=100)
    limit.late(1.0, 0.5, 50)
    limit.late(1.2, 0.5, 50)
    assert limit.places == 45
    limit.late(1.6, 0.5, 50)
    assert limit.places == 40.5
    for n in range(100):
        limit.late(2.0 + n, 0.5, 50)
    assert limit.places == 4
    for _ in range(10_000):
        limit.good()
    assert limit.places == float("inf")


def test_the_limit_doubles_while_answers_come_easily() -> None:
    limit = AdaptiveLimit(floor=1, ceiling=1000)
    for n in range(100):
        limit.late(float(n), 0.5, 20)
    assert limit.places == 1
    for _ in range(100):
        limit.good(easy=True)
    assert limit.places > 50
    limit.late(200.0, 0.5, 40)
    for _ in range(30):
        limit.good()
    assert limit.places < 38  # Not easily: by one in 36.


def test_a_burst_is_let_in_soon_after_a_slow_phase() -> None:
    service = [1.2]
    world = World(Lane("m", 100, patience=1.0), lambda _: service[0])
    for _ in range(8):
        world.offer()
    world.run(30.0)
    assert world.lane.limit.places < 10
    service[0] = 0.01
    for n in range(70):
        world.after(0.1 * n, world.offer)
    world.run(60.0)
    refused = len(world.refused)
    for _ in range(30):
        world.offer()
    assert len(world.refused) == refused


def test_pace_is_that_of_slots_which_are_all_busy() -> None:
    pace = Pace(4)
    pace.took(0.4)
    assert (pace.seconds, pace.own) == (pytest.approx(0.1), pytest.approx(0.4))
    for _ in range(500):
        pace.followed(0.05)
    assert pace.wait(10) == pytest.approx(0.5)
    assert pace.until_answer(10) == pytest.approx(0.5 + 0.05 + 0.2)


def shares(world: World, seconds: float = 8.0) -> dict[str, float]:
    """Return each tenant's part of the answers."""
    world.run(seconds)
    good = [job.context.tenant for job in world.accepted if job.reply.answers]  # type: ignore[attr-defined]
    return {tenant: good.count(tenant) / len(good) for tenant in set(good)}


def test_a_greedy_tenant_cannot_push_another_below_its_share() -> None:
    world = single()
    world.poisson(2000, random.Random(1), tenant="greedy")
    world.poisson(20, random.Random(2), tenant="modest")
    world.run(10.0)
    asked = sum(job.context.tenant == "modest" for job in world.accepted)
    served = sum(job.context.tenant == "modest" for job in world.accepted if job.reply.answers)  # type: ignore[attr-defined]
    assert asked == pytest.approx(20 * 10, rel=0.2)
    assert served >= 0.97 * asked


def test_two_greedy_tenants_share_evenly() -> None:
    world = single()
    world.poisson(2000, random.Random(1), tenant="a")
    world.poisson(400, random.Random(2), tenant="b")
    assert shares(world)["b"] == pytest.approx(0.5, abs=0.02)


def test_weights_decide_who_gets_how_much() -> None:
    tenants = {"a": TenantSettings(weight=3.0)}
    world = single(tenants=tenants)
    world.poisson(400, random.Random(1), tenant="a")
    world.poisson(400, random.Random(2), tenant="b")
    assert shares(world)["a"] == pytest.approx(0.75, abs=0.02)


def test_costs_count_in_the_turns() -> None:
    world = single()
    world.poisson(400, random.Random(1), tenant="large", cost=4.0)
    world.poisson(400, random.Random(2), tenant="small")
    assert shares(world)["small"] == pytest.approx(0.8, abs=0.03)


def test_a_cost_beyond_all_measure_costs_only_who_claims_it() -> None:
    world = single()
    world.poisson(400, random.Random(1), tenant="greedy")
    world.poisson(20, random.Random(2), tenant="light")
    world.poisson(20, random.Random(3), tenant="evil", cost=1e18)
    world.run(5.0)
    light = [job for job in world.accepted if job.context.tenant == "light"]
    assert sum(bool(job.reply.answers) for job in light) >= 0.95 * len(light) > 0  # type: ignore[attr-defined]


def test_a_tenant_holds_no_more_places_than_its_share() -> None:
    world = single(tenants={"a": TenantSettings(share=0.25)})
    world.poisson(2000, random.Random(1), tenant="a")
    world.run(2.0)
    assert world.most_waiting == 8
    assert {type(error) for error in world.refused} == {QuotaExceeded}


def test_a_rate_is_kept_and_the_refusal_says_when_to_come_again() -> None:
    world = single(service=0.0001, tenants={"a": TenantSettings(rate="10/s")})
    world.poisson(100, random.Random(1), tenant="a")
    world.poisson(100, random.Random(2), tenant="b")
    world.run(20.0)
    served = [job.context.tenant for job in world.accepted]
    assert served.count("a") == pytest.approx(210, abs=2)
    assert served.count("b") > 1800
    assert all(0 < (error.retry_after or 0) <= 0.1 for error in world.refused)


def test_who_comes_when_told_is_let_in() -> None:
    quotas = Quotas({"*": TenantSettings(rate="2/s")})
    bucket = quotas.bucket("x", 0.0)
    assert bucket is not None
    for _ in range(2):
        assert bucket.wait(0.0) == 0
        bucket.spend()
    assert bucket.wait(0.0) == pytest.approx(0.5)
    assert bucket.wait(0.5) == 0


def test_only_so_many_tenants_are_remembered() -> None:
    quotas = Quotas({"*": TenantSettings(rate="1/s")})
    for n in range(REMEMBERED + 100):
        quotas.bucket(str(n), 0.0)
    assert len(quotas) == REMEMBERED


@pytest.mark.parametrize(
    ("written", "rate"), [("100/s", 100), ("60/m", 1), ("7200/h", 2), ("86400/d", 1)]
)
def test_rates_are_read(written: str, rate: float) -> None:
    assert per_second(written) == pytest.approx(rate)
