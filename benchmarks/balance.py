"""How two API processes share the requests of 16 fresh connections, and what that gains.

    python -m benchmarks.balance [--rounds 9] [--seconds 2] [--connections 16]

Each API process numbers its requests behind a prefix of its own: what two looks at the numbers
differ by is what it has answered.
"""

from __future__ import annotations

import urllib.request
from functools import partial
from statistics import median

from benchmarks.load import Load, Running, Subject, atomserve, report_loads, several, wrk
from benchmarks.rounds import arguments, by_turns

PATH = "/v1/models/echo_tiny/predict"
SUBJECTS = {
    "one API process": Subject(atomserve("echo_tiny"), PATH),
    "two API processes": Subject(atomserve("echo_tiny", "--api-processes", "2"), PATH),
}
LEAST = 0.3
PROBES = 200


def numbers(server: Running, processes: int) -> dict[str, int]:
    """Return the number of each process's latest request, by its prefix."""
    found: dict[str, int] = {}
    url = server.url.replace(PATH, "/v1/models")
    for _ in range(PROBES):  # each a connection of its own, which the kernel gives to either
        with urllib.request.urlopen(url, timeout=10) as response:
            prefix, _, number = response.headers["x-request-id"].rpartition("-")
        found[prefix] = int(number, 16)
        if len(found) == processes:
            return found
    raise RuntimeError(f"only {len(found)} of {processes} processes answer")


def main() -> None:
    options = arguments(__doc__, rounds=9, seconds=2, connections=16)
    load = partial(wrk, body=b'{"x":1}', connections=options.connections, seconds=options.seconds)
    shares: list[float] = []
    with several(SUBJECTS) as servers:

        def watched(server: Running) -> Load:
            before = numbers(server, 2)
            found = load(server)
            counts = [number - before[prefix] for prefix, number in numbers(server, 2).items()]
            shares.append(min(counts) / sum(counts))
            return found

        one, two = SUBJECTS
        loads = by_turns(
            {one: partial(load, servers[one]), two: partial(watched, servers[two])},
            options.rounds,
        )
    report_loads(loads, reference=one)
    found = median(shares[1:])
    met = "met" if found >= LEAST else "MISSED"
    each = ", ".join(f"{share:.0%}" for share in sorted(shares[1:]))
    print(f"the lesser share: {found:.0%} ({each}), must be >= {LEAST:.0%}: {met}")


if __name__ == "__main__":
    main()
