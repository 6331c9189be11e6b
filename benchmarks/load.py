"""Servers to measure and wrk to load them: shared by the measurements of this folder."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

POST = """wrk.method = "POST"
wrk.body = '%s'
wrk.headers["Content-Type"] = "application/json"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(*command: str, url: str, patience: float = 60.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``command`` until the block ends; it has begun when ``url`` answers anything."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + patience
        while not answers(url):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} does not answer at {url}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as exc:
        return exc.code in (404, 405)
    except OSError:
        return False


def wrk(url: str, body: str, *, connections: int, seconds: float) -> float:
    """Return the requests per second of one round; every answer must be 2xx."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(POST % body)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, url]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError(printed)
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert found is not None, printed
    return float(found[1])


@contextmanager
def several(commands: dict[str, tuple[str, ...]], path: str) -> Iterator[dict[str, str]]:
    """Run each command with a free port in place of ``{port}``; give each one's address."""
    with ExitStack() as stack:
        urls = {}
        for name, command in commands.items():
            port = free_port()
            filled = [word.replace("{port}", str(port)) for word in command]
            urls[name] = f"http://127.0.0.1:{port}{path}"
            stack.enter_context(server(*filled, url=urls[name]))
        yield urls


def root() -> Path:
    return Path(__file__).parents[1]
