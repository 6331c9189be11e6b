"""Batches over HTTP: 64 clients as a share of what the model can do at best, and one client alone.

    python -m benchmarks.batch_rate [--rounds 5] [--seconds 5] [--connections 64]

A batch of n takes 5 ms + 0.2 ms x n (`benchmarks.models.sleeping`), at most 32 requests and 5 ms of
waiting: at best 2,807 requests per second. Alone, a request needs 5.2 ms, and none of the wait.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.load import Load, Subject, atomserve, running, wrk
from benchmarks.models.sleeping import MOST, seconds
from benchmarks.rounds import Claim, arguments, by_turns, judge, report

MODEL = f"{Path(__file__).parent / 'models' / 'sleeping.py'}:Sleeping"
PATH = "/v1/models/sleeping/predict"
BODY = b'{"x":1}'
IDEAL = MOST / seconds(MOST)
ALONE = seconds(1)
OVERHEAD = 0.002


def subject(executor: str) -> Subject:
    return Subject(atomserve(MODEL, "--executor", executor, "--no-access-log"), PATH)


def main() -> None:
    options = arguments(__doc__, rounds=5, seconds=5, connections=64)
    rates = {"ideal": [IDEAL] * options.rounds}
    latencies = {"bound": [1000 * (ALONE + OVERHEAD)] * options.rounds}
    with running(subject("process")) as process, running(subject("thread")) as thread:
        servers = {"process": process, "thread": thread}
        load = partial(wrk, body=BODY, seconds=options.seconds)
        many = by_turns(
            {
                name: partial(load, each, connections=options.connections)
                for name, each in servers.items()
            },
            options.rounds,
        )
        alone = by_turns(
            {name: partial(load, each, connections=1) for name, each in servers.items()},
            options.rounds,
        )
    rates |= {name: [found.rate for found in loads] for name, loads in many.items()}
    latencies |= {name: [1000 / found.rate for found in loads] for name, loads in alone.items()}
    print(f"{options.connections} clients")
    report(rates, "req/s", reference="ideal", notes=tails(many))
    judge(rates, Claim("process", "ideal", least=0.95), Claim("thread", "ideal", least=0.95))
    print("1 client, mean latency")
    report(latencies, "ms", reference="bound", digits=2, notes=tails(alone))
    judge(latencies, Claim("process", "bound", most=1.0), Claim("thread", "bound", most=1.0))


def tails(loads: dict[str, list[Load]]) -> dict[str, str]:
    p99 = {name: median(load.p99 for load in found) for name, found in loads.items()}
    return {name: f"  p99 {1000 * value:.2f} ms" for name, value in p99.items()}


if __name__ == "__main__":
    main()
