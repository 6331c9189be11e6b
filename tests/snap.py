"""The leak gate: what an instance holds before and after, seen from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

MiB = 1024 * 1024

MORE_FDS = 2
MORE_MEMORY = {"supervisor": 2 * MiB, "api": 20 * MiB, "worker": 20 * MiB}
"""How much more one process of each kind may hold after than before."""

MODULES = {"atomserve.server.process": "api", "atomserve.backends.worker": "worker"}


@dataclass
class Held:
    """What the processes of one kind hold; the largest of each, they come and go."""

    processes: int = 0
    fds: int = 0
    threads: int = 0
    memfds: int = 0
    rss: int = 0

    def add(self, process: psutil.Process) -> None:
        with process.oneshot():
            self.fds = max(self.fds, process.num_fds())
            self.threads = max(self.threads, process.num_threads())
            self.rss = max(self.rss, process.memory_info().rss)
        self.memfds = max(self.memfds, memory_files(process.pid))
        self.processes += 1


@dataclass
class Snapshot:
    """All that a leak could grow."""

    kinds: dict[str, Held] = field(default_factory=dict)
    zombies: int = 0
    others: list[str] = field(default_factory=list)
    """Descendants that are neither API processes nor workers."""
    shm: frozenset[str] = frozenset()
    errors: int = 0


def memory_files(pid: int) -> int:
    """Return how many mappings of memory files a process has."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return sum("/memfd:" in line for line in maps.splitlines())


def snapshot(pid: int, errors: Iterable[object] = ()) -> Snapshot:
    """Look at the instance whose supervisor is ``pid``; ``errors`` are its log's, so far."""
    supervisor = psutil.Process(pid)
    found = Snapshot(shm=frozenset(os.listdir("/dev/shm")), errors=len(list(errors)))
    found.kinds["supervisor"] = Held()
    found.kinds["supervisor"].add(supervisor)
    for child in supervisor.children(recursive=True):
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                found.zombies += 1
            elif (kind := kind_of(child)) is not None:
                found.kinds.setdefault(kind, Held()).add(child)
            else:
                found.others.append(" ".join(child.cmdline()))
        except psutil.ZombieProcess:
            found.zombies += 1  # from one moment to the next
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue  # gone in between
    return found


def kind_of(process: psutil.Process) -> str | None:
    """Say what part of an instance ``process`` is: a fork of a part is none."""
    command = process.cmdline()
    module = command[command.index("-m") + 1] if "-m" in command else ""
    parent = process.parent()
    forked = parent is not None and parent.cmdline() == command
    return None if forked else MODULES.get(module)


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """Say in words what ``after`` holds too much of; nothing if all is well."""
    found = []
    for kind in {**before.kinds, **after.kinds}:
        old, new = before.kinds.get(kind, Held()), after.kinds.get(kind, Held())
        for name, allowed in (("processes", 0), ("fds", MORE_FDS), ("threads", 0), ("memfds", 0)):
            was, now = getattr(old, name), getattr(new, name)
            if abs(now - was) > allowed:
                found.append(f"{kind}: {name} {was} -> {now}")
        if new.rss - old.rss > MORE_MEMORY[kind]:
            found.append(f"{kind}: rss {old.rss // MiB} -> {new.rss // MiB} MiB")
    if after.zombies > before.zombies:
        found.append(f"zombies: {before.zombies} -> {after.zombies}")
    if len(after.others) > len(before.others):
        found.append(f"other processes: {after.others}")
    if new_names := after.shm - before.shm:
        found.append(f"/dev/shm: {sorted(new_names)}")
    if after.errors > before.errors:
        found.append(f"errors in the log: {after.errors - before.errors}")
    return found


def await_same(before: Snapshot, look: Callable[[], Snapshot], *, within: float = 10.0) -> None:
    """Return when nothing is held any more that was not ``before``."""
    deadline = time.monotonic() + within
    while found := differences(before, look()):
        assert time.monotonic() < deadline, f"left behind: {found}"
        time.sleep(0.1)
