"""Servers to measure and wrk to load them: shared by the measurements of this folder."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

from benchmarks.rounds import Figures, report

POST = """wrk.method = "POST"
local file = io.open("%s", "rb")
wrk.body = file:read("*a")
file:close()
"""
TAIL = """done = function(summary, latency)
  io.write(string.format("p99us %d\\n", latency:percentile(99.0)))
end
"""
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Subject:
    """A server to start, in whose command ``{port}`` stands for its port, and what to ask of it."""

    command: tuple[str, ...]
    path: str
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    ready: str = "/readyz"
    """Answers well, or that there is no such path, once requests may come."""
    python: str = sys.executable


def atomserve(plugin: str, *options: str) -> tuple[str, ...]:
    """Return the command that serves ``plugin``."""
    command = ("-m", "atomserve", "run", "--plugins", plugin, "--port", "{port}")
    return (*command, "--drain-delay", "0", *options)


@dataclass(frozen=True)
class Running:
    """A server that has started."""

    process: subprocess.Popen[bytes]
    url: str
    headers: Mapping[str, str]
    started: float
    """Seconds that it took."""

    @property
    def pids(self) -> list[int]:
        """The process and all that descend from it."""
        return family(self.process.pid)


def family(pid: int) -> list[int]:
    """Return ``pid`` and its children's, and theirs."""
    found = [pid]
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as children:
            for child in children.read().split():
                found += family(int(child))
    return found


@contextmanager
def running(subject: Subject, patience: float = 60.0) -> Iterator[Running]:
    """Serve ``subject`` on a free port until the block ends."""
    port = free_port()
    root = f"http://127.0.0.1:{port}"
    command = [subject.python, *(word.replace("{port}", str(port)) for word in subject.command)]
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            while not answers(root + subject.ready):
                if time.monotonic() > began + patience or process.poll() is not None:
                    said.seek(0)
                    what = said.read()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{' '.join(command)} does not answer:\n{what}")
                time.sleep(0.01)
            started = time.monotonic() - began
            yield Running(process, root + subject.path, subject.headers, started)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def several(subjects: Mapping[str, Subject]) -> Iterator[dict[str, Running]]:
    """Serve all of them at once."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(running(each)) for name, each in subjects.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as exc:
        return exc.code in (404, 405)
    except OSError:
        return False


def post(server: Running, body: bytes) -> bytes:
    """Send one request and return the answer's body."""
    request = urllib.request.Request(server.url, body, dict(server.headers))
    with urllib.request.urlopen(request, timeout=60) as response:
        return bytes(response.read())


@dataclass(frozen=True)
class Load:
    """What one round of wrk found."""

    rate: float
    """Requests per second."""
    p99: float
    """Seconds."""
    cpu: float
    """Seconds that the server's processes computed for each: the steadier figure on a busy machine.
    """


def spent(pids: Iterable[int]) -> float:
    """Return the seconds that these processes have computed."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            user, system = stat.read().rpartition(")")[2].split()[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def wrk(server: Running, body: bytes, *, connections: int, seconds: int) -> Load:
    """Load ``server`` by one thread; every answer must be 2xx."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    with tempfile.NamedTemporaryFile() as sent, tempfile.NamedTemporaryFile("w") as script:
        sent.write(body)
        sent.flush()
        script.write(POST % sent.name + TAIL)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name]
        for name, value in server.headers.items():
            command += ["-H", f"{name}: {value}"]
        command.append(server.url)
        before = spent(server.pids)
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        computed = spent(server.pids) - before
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError(printed)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    p99 = re.search(r"p99us (\d+)", printed)
    count = re.search(r"(\d+) requests in", printed)
    assert rate is not None and p99 is not None and count is not None, printed
    return Load(float(rate[1]), int(p99[1]) / 1e6, computed / max(int(count[1]), 1))


def report_loads(loads: dict[str, list[Load]], *, reference: str) -> Figures:
    """Print what became of each subject, and return its rates."""
    rates = {name: [load.rate for load in found] for name, found in loads.items()}
    computed = {name: median(load.cpu for load in found) for name, found in loads.items()}
    notes = {name: f"  {1e6 * cpu:.0f} us of CPU each" for name, cpu in computed.items()}
    report(rates, "req/s", reference=reference, notes=notes)
    return rates
