"""How slow a light plugin gets beside one that holds its GIL, in a worker or outside atomserve.

    python -m benchmarks.hog [--rounds 9] [--seconds 3] [--connections 4]

All rounds load one and the same server, so that only the place of the hog differs.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from statistics import median

from benchmarks.load import Load, Running, Subject, atomserve, post, running, wrk
from benchmarks.models import hog
from benchmarks.rounds import Claim, arguments, by_turns, judge, report

LIGHT = "/v1/models/echo_tiny/predict"
HOG = "/v1/models/hog/predict"
SERVER = Subject(atomserve(f"echo_tiny,{hog.__file__}"), LIGHT)
Place = Callable[[], AbstractContextManager[None]]
CLAIMS = (Claim("hog in a worker", "hog outside", most=1.2),)


@contextmanager
def in_a_worker(server: Running, seconds: int) -> Iterator[None]:
    """Let the hog compute for ``seconds`` on its slot."""
    beside = replace(server, url=server.url.replace(LIGHT, HOG))
    asking = threading.Thread(target=post, args=(beside, b'{"seconds": %d}' % seconds))
    asking.start()
    yield
    asking.join()


@contextmanager
def outside(seconds: int) -> Iterator[None]:
    """Let it compute in a process that has nothing to do with the server."""
    code = f"from benchmarks.models.hog import compute; compute({seconds})"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        yield
        process.wait()


def loaded(
    server: Running,
    beside: Place,
    connections: int,
    seconds: int,
) -> Load:
    with beside():
        return wrk(server, b'{"x":1}', connections=connections, seconds=seconds)


def main() -> None:
    options = arguments(__doc__, rounds=9, seconds=3, connections=4)
    longer = options.seconds + 1
    with running(SERVER) as server:
        places: dict[str, Place] = {
            "hog outside": partial(outside, longer),
            "hog in a worker": partial(in_a_worker, server, longer),
            "no hog": nullcontext,
        }
        loads = by_turns(
            {
                name: partial(loaded, server, place, options.connections, options.seconds)
                for name, place in places.items()
            },
            options.rounds,
        )
    slowest = {name: [1e3 * load.p99 for load in found] for name, found in loads.items()}
    rates = {name: median(load.rate for load in found) for name, found in loads.items()}
    notes = {name: f"  {rate:.0f} req/s" for name, rate in rates.items()}
    report(slowest, "ms p99", reference="hog outside", digits=2, notes=notes)
    judge(slowest, *CLAIMS)


if __name__ == "__main__":
    main()
