"""A whole instance around `faultplugin`: its processes by their parts, its errors, its probes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import live
import psutil
from load import Answer, Caller
from snap import Snapshot, differences, kind_of, snapshot

PLUGIN = Path(__file__).parent / "faultplugin.py"

QUIET = """\
access_log = false
drain_delay = 0
"""


class Instance:
    """One running instance."""

    def __init__(self, server: live.Live) -> None:
        self.server = server
        self.port = server.port
        self.pid = server.process.pid

    def ask(self, model: str, *fields: str, **inputs: Any) -> Answer:
        """Ask on a new connection."""
        caller = Caller(self.port)
        try:
            return caller.ask(model, *fields, **inputs)
        finally:
            caller.close()

    def children(self, kind: str) -> list[psutil.Process]:
        """Return the API processes (``api``) or workers (``worker``) that run now."""
        found = []
        for child in psutil.Process(self.pid).children():
            try:
                if kind_of(child) == kind:
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def workers(self, model: str) -> list[int]:
        """Return the workers of ``model`` that have loaded and still run, in order of age."""
        loaded = self.server.records("worker.loaded")
        return [
            record["pid"]
            for record in loaded
            if record["model"] == model and psutil.pid_exists(record["pid"])
        ]

    def errors(self) -> list[dict[str, Any]]:
        """Return what the log has at ERROR, and what Python wrote past it."""
        crashes = ("Traceback", "Exception", "Fatal", "Error", "Task")
        lines = [line for line in list(self.server.logged) if line.startswith(crashes)]
        records = [
            json.loads(line)
            for line in list(self.server.logged)
            if line.startswith("{") and ('"level":"error"' in line or '"critical"' in line)
        ]
        return [*records, *({"event": line} for line in lines)]

    def deaths(self, **facts: Any) -> list[dict[str, Any]]:
        """Return the log's records of workers that died."""
        records = self.server.records("worker.died")
        return [record for record in records if facts.items() <= record.items()]

    def await_workers(self, model: str, loaded: int, *, within: float = 10.0) -> None:
        """Return when so many workers of ``model`` have loaded since the start."""
        await_that(
            lambda: (
                len([r for r in self.server.records("worker.loaded") if r["model"] == model])
                >= loaded
            ),
            within=within,
        )

    def get(self, path: str) -> Answer:
        caller = Caller(self.port)
        try:
            return caller.get(path)
        finally:
            caller.close()

    def restarts(self, model: str) -> dict[str, int]:
        """Return how many workers were replaced, by the cause."""
        found: dict[str, int] = self.get(f"/v1/models/{model}").json()["restarts"]
        return {cause: count for cause, count in found.items() if count}

    def arena_bytes(self, model: str) -> int:
        """Return the bytes of bodies and answers that lie in shared memory."""
        found = self.get(f"/v1/models/{model}").json()
        answers = [slot["arena_bytes"] or 0 for slot in found["slots"]]
        return int(found["arena_bytes"] + sum(answers))

    def readiness(self, path: str = "/readyz") -> int:
        return self.get(path).status

    def await_readiness(self, status: int, *, within: float) -> float:
        """Return when the readiness is ``status``, and how long that took."""
        began = time.monotonic()
        await_that(lambda: self.readiness() == status, within=within)
        return time.monotonic() - began

    def snapshot(self, *expected: str) -> Snapshot:
        """Look for the leak gate; errors of the events ``expected`` do not count."""
        errors = [error for error in self.errors() if error["event"] not in expected]
        return snapshot(self.pid, errors)

    def settled(self, *expected: str) -> Snapshot:
        """Look again and again until nothing changes: connections end after their clients."""
        seen = [self.snapshot(*expected)]

        def same() -> bool:
            time.sleep(0.2)
            seen.append(self.snapshot(*expected))
            return not differences(seen[-2], seen[-1]) and not differences(seen[-1], seen[-2])

        await_that(same, within=10.0)
        return seen[-1]

    def kill(self, pid: int, number: int = 9) -> float:
        os.kill(pid, number)
        return time.monotonic()


def await_that(holds: Callable[[], object], *, within: float) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.02)


def plugins(models: dict[str, str]) -> list[str]:
    """Return the arguments that serve, under each name, a class of `faultplugin`."""
    return [f"--plugins={name}={PLUGIN}:{cls}" for name, cls in models.items()]


@contextmanager
def starting(
    folder: Path,
    models: dict[str, str],
    toml: str = "",
    *arguments: str,
    prefix: Sequence[str] = (),
) -> Iterator[Instance]:
    """Run an instance that may not be ready yet; ``models`` are classes of `faultplugin`."""
    with live.running(
        folder, *plugins(models), *arguments, toml=QUIET + toml, prefix=prefix
    ) as server:
        yield Instance(server)


@contextmanager
def faulty(
    folder: Path,
    models: dict[str, str],
    toml: str = "",
    *arguments: str,
    prefix: Sequence[str] = (),
) -> Iterator[Instance]:
    """Run an instance and enter when it is ready."""
    with starting(folder, models, toml, *arguments, prefix=prefix) as instance:
        instance.server.await_ready()
        yield instance
