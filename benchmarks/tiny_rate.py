"""Tiny JSON calls through the thread backend, as a share of a bare Starlette endpoint.

    python -m benchmarks.tiny_rate [--rounds 7] [--seconds 3] [--connections 16]

Both run on Hypercorn with uvloop, one process each, loaded in turn by one thread of wrk.
"""

from __future__ import annotations

import argparse
from statistics import median

from benchmarks.load import several, wrk

PATH = "/v1/models/echo_tiny/predict"
COMMANDS = {
    "bare Starlette": ("-m", "benchmarks.bare", "{port}"),
    "thread": (
        *("-m", "atomserve", "run", "--plugins", "echo_tiny", "--executor", "thread"),
        *("--port", "{port}", "--drain-delay", "0"),
    ),
    "thread, no log": (
        *("-m", "atomserve", "run", "--plugins", "echo_tiny", "--executor", "thread"),
        *("--port", "{port}", "--drain-delay", "0", "--no-access-log"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with several(COMMANDS, PATH) as urls:
        for _ in range(options.rounds + 1):
            for name, url in urls.items():
                rate = wrk(url, '{"x":1}', connections=options.connections, seconds=options.seconds)
                rates[name].append(rate)
    reference, *_ = (found[1:] for found in rates.values())
    for name, (_, *found) in rates.items():
        shares = [a / b for a, b in zip(found, reference, strict=True)]
        print(
            f"{name:16} {median(found):7.0f} req/s  "
            f"{median(shares):6.1%} of bare ({min(shares):.1%} to {max(shares):.1%})"
        )


if __name__ == "__main__":
    main()
