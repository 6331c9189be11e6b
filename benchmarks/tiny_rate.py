"""Tiny JSON calls to a worker and to a thread, as a share of a bare Starlette endpoint.

    python -m benchmarks.tiny_rate [--rounds 7] [--seconds 3] [--connections 16]

All run on Hypercorn with uvloop, one API process each, loaded in turn by one thread of wrk.
"""

from __future__ import annotations

from functools import partial

from benchmarks.load import Subject, atomserve, report_loads, several, wrk
from benchmarks.rounds import Claim, arguments, by_turns, judge

PATH = "/v1/models/echo_tiny/predict"
SUBJECTS = {
    "bare Starlette": Subject(("-m", "benchmarks.bare", "{port}"), PATH),
    "process": Subject(atomserve("echo_tiny"), PATH),
    "thread": Subject(atomserve("echo_tiny", "--executor", "thread"), PATH),
    "thread, no log": Subject(
        atomserve("echo_tiny", "--executor", "thread", "--no-access-log"), PATH
    ),
}
CLAIMS = (Claim("process", "thread", least=0.75),)


def main() -> None:
    options = arguments(__doc__, rounds=7, seconds=3, connections=16)
    load = partial(wrk, body=b'{"x":1}', connections=options.connections, seconds=options.seconds)
    with several(SUBJECTS) as servers:
        loads = by_turns(
            {name: partial(load, server) for name, server in servers.items()}, options.rounds
        )
    judge(report_loads(loads, reference="bare Starlette"), *CLAIMS)


if __name__ == "__main__":
    main()
