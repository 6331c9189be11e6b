"""Instances around `flowplugin`, what its plugins noted, and what an instance holds meanwhile."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from faults import Instance, await_that, faulty
from load import Caller

PLUGIN = Path(__file__).parent / "flowplugin.py"


class Notes:
    """What the plugins of one instance noted so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lock = threading.Lock()
        self._found: list[tuple[str, str, float]] = []

    def all(self, what: str) -> list[tuple[str, float]]:
        """Return the token and the time of each note of ``what``."""
        with self._lock:
            if self._path.exists():
                with self._path.open("rb") as file:
                    file.seek(self._read)
                    lines, end, _ = file.read().rpartition(b"\n")
                self._read += len(lines) + len(end)
                rows = [line.split(" ") for line in lines.decode().splitlines()]
                self._found += [(row[0], row[1], float(row[2])) for row in rows]
            return [(token, at) for found, token, at in self._found if found == what]

    def times(self, what: str) -> dict[str, float]:
        """Return when ``what`` was noted of each token."""
        return dict(self.all(what))

    def awaits(self, what: str, count: int, *, within: float = 15.0) -> None:
        await_that(lambda: len(self.all(what)) >= count, within=within)


class Flow:
    """An instance with one model, ``it``, its notes and its gate."""

    def __init__(self, it: Instance, folder: Path) -> None:
        self.it = it
        self.port = it.port
        self.notes = Notes(folder / "notes")
        self._gate = folder / "gate"

    @contextmanager
    def open_gate(self) -> Iterator[None]:
        """Let pass who waits at the gate, and who comes to it, until the end of the block."""
        gate = os.open(self._gate, os.O_RDWR)
        try:
            yield
        finally:
            os.close(gate)

    def at_work(self) -> tuple[int, int]:
        """Return how many jobs run, and how many wait."""
        found = self.it.get("/v1/models/it").json()
        return found["running"], found["queue"]["waiting"]

    def durations(self, status: int) -> list[float]:
        """Return how long the server took for each answer with ``status``."""
        records = self.it.server.records("http.access")
        return [record["duration_ms"] / 1e3 for record in records if record["status"] == status]


@contextmanager
def flowing(
    folder: Path, cls: str, settings: str = "", *arguments: str, fault: str = ""
) -> Iterator[Flow]:
    """Serve the class ``cls`` of `flowplugin` as ``it``; ``settings`` are those of the model."""
    os.mkfifo(folder / "gate")
    toml = (
        f"[models.it]\n{settings}\n[models.it.config]\n"
        f'notes = "{folder}/notes"\ngate = "{folder}/gate"\nfault = "{fault}"\n'
    )
    with faulty(folder, {}, toml, f"--plugins=it={PLUGIN}:{cls}", *arguments) as it:
        yield Flow(it, folder)


class Watch:
    """Looks at an instance again and again: the longest queue, the most memory."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._before = self._memory()
        self.queue = 0
        self.grown = 0
        """Bytes that all processes together held more than at first."""

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _memory(self) -> int:
        processes = [psutil.Process(self._flow.it.pid)]
        processes += processes[0].children(recursive=True)
        return sum(process.memory_info().rss for process in processes)

    def _look(self) -> None:
        caller = Caller(self._flow.port)
        while not self._over.wait(0.05):
            queue = caller.get("/v1/status").json()["models"]["it"]["queue"]
            self.queue = max(self.queue, queue["waiting"])
            self.grown = max(self.grown, self._memory() - self._before)
        caller.close()


def part(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all stay under."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def told(name: str, values: Sequence[float]) -> str:
    """Return ``values``, in seconds, in a line for people."""
    middle, high = statistics.median(values) * 1e3, part(values, 0.99) * 1e3
    return f"{name}: median {middle:.1f} ms, p99 {high:.1f} ms, max {max(values) * 1e3:.1f} ms"


def at_best(times: int, complaints: Callable[[], list[str]]) -> None:
    """Measure up to ``times`` times until nothing is wrong: others use this machine, too."""
    for attempt in range(times):
        found = complaints()
        if not found:
            return
        print(f"attempt {attempt + 1}: {found}")
        time.sleep(0.5)
    raise AssertionError(found)
