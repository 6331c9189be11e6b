"""Whoever logs never waits for a disk: one thread of each process writes its lines to files."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from atomserve.telemetry.files import LogFiles

MOST_WAITING = 8 * 1024 * 1024
"""Bytes that wait for the disk; further lines are counted."""
RETRY = 1.0
"""Seconds after a failure in which nothing is tried."""

log = structlog.get_logger("atomserve.logs")


class Kept(Protocol):
    """Which files are kept, as the settings say it."""

    @property
    def folder(self) -> str | None: ...
    @property
    def name(self) -> str: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def keep(self) -> int: ...


class FileWriter:
    """Writes what it is given, in order; a failure is told once, and never reaches the caller."""

    def __init__(
        self,
        files: LogFiles,
        *,
        most: int = MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._most = most
        self._clock = clock
        self._queue: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._put = self._taken = 0  # bytes; each is counted by one side alone
        self._counting = threading.Lock()
        self._retry_at = 0.0
        self._failing = False
        self.lost = 0
        """Lines that no file holds; only for people, since two threads count."""
        threading.Thread(target=self._work, name="log-files", daemon=True).start()

    @classmethod
    def of(cls, kept: Kept) -> FileWriter | None:
        """Return what writes the files that ``kept`` describes, if it names a folder."""
        if kept.folder is None:
            return None
        folder = Path(kept.folder).absolute() / socket.gethostname()
        return cls(LogFiles(folder, kept.name, max_bytes=kept.max_bytes, keep=kept.keep))

    def write(self, lines: bytes) -> None:
        """Let whole lines be written; does not wait."""
        with self._counting:
            if self._put - self._taken + len(lines) > self._most:
                self.lost += lines.count(b"\n")
                return
            self._put += len(lines)
        self._queue.put(lines)

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait until all is written that was given before, at most ``timeout`` seconds."""
        written = threading.Event()
        self._queue.put(written)
        return written.wait(timeout)

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._write(item)
                self._taken += len(item)

    def _write(self, lines: bytes) -> None:
        if self._clock() >= self._retry_at:
            try:
                self._files.write(lines)
            except OSError as exc:
                self._fail(exc)
            else:
                if self._failing:
                    self._failing = False
                    log.info("logs.files_restored", lost=self.lost)
                return
        self.lost += lines.count(b"\n")

    def _fail(self, exc: OSError) -> None:
        self._retry_at = self._clock() + RETRY
        self._files.close()
        if not self._failing:
            self._failing = True
            log.warning("logs.files_failed", error=str(exc))
