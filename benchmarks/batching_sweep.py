"""How the lane's batches compare with every fixed size and delay, in virtual time.

python -m benchmarks.batching_sweep [seconds]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from simulator import Fixed, World, batching_world, linear

from atomserve.engine.batching import Batching, Bounds

FIXED, EACH = 0.005, 0.0002
STEP = linear(FIXED, EACH)
IDEAL = 32 / STEP(32)
SIZES = (1, 2, 4, 8, 16, 24, 32)
DELAYS = (0.0, 0.001, 0.002, 0.005, 0.01)
CLIENTS = (1, 2, 8, 24, 32, 40, 48, 63, 64)
LOADS = (0.1, 0.25, 0.5, 0.75, 0.9)
GOALS = (0.03, 0.05)
THINK = 0.0003
"""Seconds that a client takes to ask again."""


def closed(batching: Batching, clients: int, seconds: float) -> float:
    """Return answers a second."""
    world = batching_world(batching, STEP)
    world.clients(clients, random.Random(clients), THINK)
    world.run(0.5)
    before = world.good
    world.run(0.5 + seconds)
    return (world.good - before) / seconds


def at_load(batching: Batching, load: float, seconds: float) -> World:
    world = batching_world(batching, STEP, queue=1024)
    world.poisson(load * IDEAL, random.Random(3))
    return world.run(seconds)


def main(seconds: float) -> None:
    print(f"batch of n: {FIXED * 1e3:g} ms + {EACH * 1e3:g} ms * n; full batches: {IDEAL:.0f}/s")
    print("\nclients  answers/s  best fixed  (size, delay)    ratio")
    for clients in CLIENTS:
        mine = closed(Batching(Bounds()), clients, seconds)
        best = max(
            (closed(Fixed(size, delay), clients, seconds), size, delay)
            for size in SIZES
            for delay in DELAYS
        )
        setting = f"({best[1]}, {best[2] * 1e3:g} ms)"
        print(f"{clients:7}  {mine:9.0f}  {best[0]:10.0f}  {setting:15}  {mine / best[0]:.3f}")
    print("\nload  goal   p99      best fixed  (size, delay)    ratio")
    for load in LOADS:
        best = min(
            (at_load(Fixed(size, delay), load, seconds).percentile(0.99), size, delay)
            for size in SIZES
            for delay in DELAYS
            if size / STEP(size) > load * IDEAL
        )
        for goal in GOALS:
            mine = at_load(Batching(Bounds(target=goal)), load, seconds).percentile(0.99)
            setting = f"({best[1]}, {best[2] * 1e3:g} ms)"
            print(
                f"{load:4.0%}  {goal * 1e3:2.0f} ms  {mine * 1e3:4.1f} ms  {best[0] * 1e3:7.1f} ms"
                f"  {setting:15}  {mine / best[0]:.3f}"
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 4.0)
