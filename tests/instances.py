"""Runs a whole instance, supervisor and API processes, around the fake application."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from http_servers import chosen

HERE = Path(__file__).parent


class Instance:
    """One running supervisor; ``events`` is what it told, in order."""

    def __init__(
        self,
        settings: dict[str, Any],
        options: dict[str, Any],
        prefix: Sequence[str] = (),
        workers: dict[str, dict[str, Any]] | None = None,
        stderr: int = subprocess.PIPE,
    ) -> None:
        plan = {
            "settings": {"port": 0, "drain_delay": 0.0, "server": chosen(), **settings},
            "options": options,
            "workers": workers or {},
        }
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(HERE / "fake_server.py"), "supervise", json.dumps(plan)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        )
        self.events: list[dict[str, Any]] = []
        self.errors = ""
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_events),
            threading.Thread(target=self._read_errors),
        ]
        for reader in self._readers:
            reader.start()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._news:
                    if line.startswith(b"{"):
                        self.events.append(json.loads(line))
                    else:
                        self.errors += line.decode()
                    self._news.notify_all()

    def _read_errors(self) -> None:
        if self.process.stderr is None:
            return
        with self.process.stderr as lines:
            for line in lines:
                with self._news:
                    self.errors += line.decode()
                    self._news.notify_all()

    def all(self, kind: str, **facts: Any) -> list[dict[str, Any]]:
        wanted = {"event": kind, **facts}.items()
        return [event for event in self.events if wanted <= _hashable(event).items()]

    def wait_for(self, kind: str, *, count: int = 1, within: float = 10.0, **facts: Any) -> Any:
        with self._news:
            found = self._news.wait_for(lambda: len(self.all(kind, **facts)) >= count, within)
            assert found, f"no {kind} {facts} within {within} s: {self.events} {self.errors}"
            return self.all(kind, **facts)[count - 1]

    def logged(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """Return the records of the log with this event and these facts."""
        records = [json.loads(line) for line in self.errors.splitlines() if line.startswith("{")]
        wanted = {"event": event, **facts}.items()
        return [record for record in records if wanted <= _hashable(record).items()]

    def wait_for_log(self, event: str, *, within: float = 10.0, **facts: Any) -> dict[str, Any]:
        with self._news:
            found = self._news.wait_for(lambda: self.logged(event, **facts), within)
            assert found, f"no record {event} {facts} within {within} s: {self.errors}"
            return found[0]

    @property
    def url(self) -> str:
        return str(self.wait_for("Bound")["urls"][0])

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def signal(self, number: int) -> float:
        self.process.send_signal(number)
        return time.monotonic()

    def wait(self, within: float = 10.0) -> int:
        code = self.process.wait(within)
        for reader in self._readers:
            reader.join(within)
        return code

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def send(self, path: str) -> socket.socket:
        """Send one request and return the connection on which its answer will come."""
        sock = socket.create_connection(self.address, timeout=15)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return sock

    def await_in_flight(self, count: int) -> None:
        """Return when the application works on ``count`` requests besides the one that asks."""
        end = time.monotonic() + 10
        while int(self.get("/count")[1]) < count + 1:
            assert time.monotonic() < end

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.wait()
        for event in self.all("Started") + self.all("WorkerStarted"):
            if event["pid"] > 10:  # one of another pid namespace has died with it
                await_gone(event["pid"])


def _hashable(event: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in event.items()}


@contextmanager
def running(
    settings: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    prefix: Sequence[str] = (),
    workers: dict[str, dict[str, Any]] | None = None,
    stderr: int = subprocess.PIPE,
) -> Iterator[Instance]:
    instance = Instance(settings or {}, options or {}, prefix, workers, stderr)
    try:
        yield instance
    finally:
        instance.close()


@contextmanager
def serving(
    settings: dict[str, Any] | None = None, options: dict[str, Any] | None = None
) -> Iterator[Instance]:
    """Run an instance and enter when it is ready."""
    with running(settings, options) as instance:
        instance.wait_for("Ready")
        yield instance


def await_gone(pid: int, within: float = 5.0) -> None:
    """Return when no process ``pid`` runs."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(within * 1000), f"process {pid} still runs after {within} s"
    finally:
        os.close(fd)


def answer(sock: socket.socket) -> bytes:
    """Read until the peer closes or one whole answer with a content-length is there."""
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
        head, found, body = data.partition(b"\r\n\r\n")
        if found:
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
            if len(body) >= length:
                break
    return data
