"""Tiny Athena requests to an AIGES wrapper, as a share of native JSON requests to the same one.

    python -m benchmarks.athena_rate [--rounds 7] [--seconds 3] [--connections 16]

One server, one API process, one worker; the two are loaded in turn by one thread of wrk.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.load import Subject, atomserve, report_loads, running, wrk
from benchmarks.rounds import Claim, arguments, by_turns, judge

WRAPPER = Path(__file__).parent / "models" / "aiges_echo.py"
NATIVE, ATHENA = "/v1/models/aiges_echo/predict", "/v1/private/aiges_echo"
BODIES = {
    "native JSON": b'{"text":"1"}',
    "Athena": b'{"header":{"app_id":"a"},"parameter":{},"payload":{"text":{"text":"MQ=="}}}',
}
CLAIMS = (Claim("Athena", "native JSON", least=0.7),)


def main() -> None:
    options = arguments(__doc__, rounds=7, seconds=3, connections=16)
    load = partial(wrk, connections=options.connections, seconds=options.seconds)
    with running(Subject(atomserve(f"aiges:{WRAPPER}"), NATIVE)) as native:
        athena = replace(native, url=native.url.replace(NATIVE, ATHENA))
        servers = {"native JSON": native, "Athena": athena}
        loads = by_turns(
            {name: partial(load, server, body=BODIES[name]) for name, server in servers.items()},
            options.rounds,
        )
    judge(report_loads(loads, reference="native JSON"), *CLAIMS)


if __name__ == "__main__":
    main()
