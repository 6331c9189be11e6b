"""The tired workers of a model, replaced one at a time while they serve on."""

from __future__ import annotations

from collections import deque

import structlog

from atomserve.supervisor.worker import Worker

log = structlog.get_logger("atomserve.supervisor")


class Recycling:
    """Says of one tired worker after another that its slot needs the next."""

    def __init__(self) -> None:
        self._tired: deque[Worker] = deque()
        self._leaving: Worker | None = None

    def __repr__(self) -> str:
        return f"<Recycling: {self._leaving}, {len(self._tired)} wait>"

    def ask(self, worker: Worker, reason: str) -> None:
        """Replace ``worker`` when its turn comes."""
        worker.tired = reason
        self._tired.append(worker)
        self._go_on()

    def replaced(self, worker: Worker) -> bool:
        """Say whether ``worker`` is the one whose successor was awaited: it may retire now."""
        if worker is not self._leaving:
            return False
        worker.cause = worker.tired
        return True

    def bury(self, worker: Worker) -> None:
        """Let the next one have its turn, if ``worker``, which has ended, had it."""
        if worker is self._leaving:
            self._leaving = None
            self._go_on()

    def _go_on(self) -> None:
        while self._tired and self._leaving is None:
            worker = self._tired.popleft()
            if worker.state == "ready" and not worker.doomed and not worker.leaving.is_set():
                self._leaving = worker
                log.info("worker.recycled", **worker.facts, reason=worker.tired)
                worker.leaving.set()
