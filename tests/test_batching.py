"""When a batch goes: throughput and latency of the real decisions in virtual time."""

from __future__ import annotations

import random

import pytest
from simulator import Fixed, World, batching_world, linear

from atomserve.engine.batching import Batching, Bounds, Service

STEP = linear(0.005, 0.0002)
IDEAL = 32 / STEP(32)
"""What one slot can do, batch after full batch: 2807 a second."""


def closed(batching: Batching, clients: int, seconds: float = 1.5) -> tuple[float, World]:
    """Return answers a second of clients that each ask again, 0.3 ms after their answer."""
    world = batching_world(batching, STEP)
    world.clients(clients, random.Random(clients))
    world.run(0.5)
    before = world.good
    world.run(0.5 + seconds)
    return (world.good - before) / seconds, world


def at_load(batching: Batching, load: float, requests: int = 6000) -> World:
    world = batching_world(batching, STEP)
    world.poisson(load * IDEAL, random.Random(3))
    return world.run(requests / (load * IDEAL))


def test_64_clients_get_97_percent_of_what_full_batches_would_give() -> None:
    rate, world = closed(Batching(Bounds()), 64)
    assert rate >= 0.97 * IDEAL
    assert not world.refused


@pytest.mark.parametrize("clients", [1, 2, 8, 24, 32, 40, 48, 63])
def test_no_fixed_window_serves_clients_much_better(clients: int) -> None:
    rate, _ = closed(Batching(Bounds()), clients)
    sweep = {(min(clients, 32), 0.005), (32, 0.0), (32, 0.002)}
    best = max(closed(Fixed(size, delay), clients)[0] for size, delay in sweep)
    assert rate >= 0.95 * best


def test_a_lone_client_waits_for_nobody() -> None:
    _, world = closed(Batching(Bounds()), 1)
    assert max(world.latencies) == pytest.approx(0.0052)


def test_a_client_who_left_is_not_waited_for_for_long() -> None:
    world = batching_world(Batching(Bounds()), STEP)
    world.clients(2, random.Random(1))
    world.run(0.5)
    world = batching_world(world.lane.batching or Batching(Bounds()), STEP)  # with what it learnt
    world.clients(1, random.Random(1))
    world.run(1.0)
    assert world.latencies[-1] == pytest.approx(0.0052)


def test_nothing_waits_longer_than_the_delay_and_two_batches() -> None:
    world = batching_world(Batching(Bounds()), STEP)
    world.clients(8, random.Random(8))
    world.run(2.0)
    assert max(world.latencies) <= 0.005 + 2 * STEP(8)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("goal", [0.03, 0.05])
def test_the_goal_is_met_and_no_fixed_setting_is_better(load: float, goal: float) -> None:
    mine = at_load(Batching(Bounds(target=goal)), load).percentile(0.99, 500)
    sweep = [(size, delay) for size in (8, 32) for delay in (0.0, 0.002)]
    best = min(at_load(Fixed(size, delay), load).percentile(0.99, 500) for size, delay in sweep)
    assert mine <= goal
    # The same arrivals: what differs is one batch in hundreds that went earlier or later.
    assert mine <= best * 1.03


@pytest.mark.parametrize("slots", [2, 3])
def test_several_slots_share_the_work(slots: int) -> None:
    batching = Batching(Bounds(parallel=slots))
    world = batching_world(batching, STEP, slots=slots)
    world.clients(64 * slots, random.Random(2))
    world.run(0.5)
    before = world.good
    world.run(1.5)
    assert world.good - before >= 0.95 * slots * IDEAL


def test_service_times_are_learnt_from_batches_of_different_sizes() -> None:
    dice = random.Random(4)
    service = Service()
    for _ in range(200):
        size = dice.randint(1, 32)
        service.took(size, STEP(size) * dice.uniform(0.9, 1.1))
    assert service.fixed == pytest.approx(0.005, rel=0.15)
    assert service.each == pytest.approx(0.0002, rel=0.15)
    assert 1.0 < service.tail < 1.2


def test_one_size_alone_keeps_the_slope() -> None:
    service = Service()
    for size in (1, 8, 16, 32) * 5:
        service.took(size, STEP(size))
    for _ in range(500):
        service.took(32, STEP(32))
    assert service.each == pytest.approx(0.0002, rel=0.05)


def test_a_goal_bounds_the_size_by_what_fits_into_half_of_it() -> None:
    batching = Batching(Bounds(target=0.02))
    for size in (1, 8, 16, 32) * 5:
        batching.service.took(size, STEP(size))
    assert batching.size == 24  # 5 ms + 24 * 0.2 ms < 10 ms
    assert batching.delay <= 0.005
