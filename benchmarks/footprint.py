"""What an instance costs that does nothing: memory, idle CPU, and how long it takes to be ready.

    python -m benchmarks.footprint [--rounds 5] [--idle 20]

PSS counts a page that several processes share by halves; RSS counts it for each of them.
"""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path

from benchmarks.load import Running, Subject, atomserve, running, several, spent
from benchmarks.rounds import arguments, by_turns, report

PATH = "/v1/models/echo_tiny/predict"
SUBJECTS = {
    "process": Subject(atomserve("echo_tiny"), PATH),
    "thread": Subject(atomserve("echo_tiny", "--executor", "thread"), PATH),
}
ROLES = {"atomserve.server.process": "API process", "atomserve.backends.worker": "worker"}


def seconds_to_ready(subject: Subject) -> float:
    with running(subject) as server:
        return server.started


def memory(pid: int) -> tuple[float, float]:
    """Return resident and proportional memory in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rss, pss = (re.search(rf"^{name}:\s+(\d+) kB", rollup, re.M) for name in ("Rss", "Pss"))
    assert rss is not None and pss is not None
    return int(rss[1]) / 1024, int(pss[1]) / 1024


def role(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next((ROLES[word] for word in words if word in ROLES), "supervisor")


def describe(name: str, server: Running, computed: dict[int, float], idle: float) -> None:
    for pid in server.pids:
        rss, pss = memory(pid)
        share = 100 * computed.get(pid, 0.0) / idle
        print(f"{name:8} {role(pid):11} {rss:6.0f} MB RSS {pss:6.0f} MB PSS {share:6.2f} % CPU")


def main() -> None:
    options = arguments(__doc__, rounds=5, idle=20.0)
    with several(SUBJECTS) as servers:
        time.sleep(2)  # What a start leaves to be done is not idleness.
        before = {pid: spent([pid]) for server in servers.values() for pid in server.pids}
        time.sleep(options.idle)
        computed = {pid: spent([pid]) - value for pid, value in before.items()}
        for name, server in servers.items():
            describe(name, server, computed, options.idle)
            all_of_it = 100 * sum(computed[pid] for pid in server.pids) / options.idle
            total = sum(memory(pid)[1] for pid in server.pids)
            print(f"{name:8} {'together':11} {total:22.0f} MB PSS {all_of_it:6.2f} % CPU")
    starts = by_turns(
        {name: partial(seconds_to_ready, subject) for name, subject in SUBJECTS.items()},
        options.rounds,
    )
    report(starts, "s to ready", reference="thread", digits=2)


if __name__ == "__main__":
    main()
