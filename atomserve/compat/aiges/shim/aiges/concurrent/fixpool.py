"""A pool of a fixed size, for wrappers that count their sessions themselves."""

from __future__ import annotations

import threading
from typing import Any


class FixedPool:
    """Holds up to ``capacity`` workers; keys are never used twice."""

    def __init__(self) -> None:
        self.capacity = 1
        self.pool: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._added = 0

    @property
    def allocated(self) -> int:
        """The number of workers in the pool."""
        return len(self.pool)

    def set_capacity(self, c: int) -> None:
        """Set how many workers there may be."""
        self.capacity = c

    def get(self, key: str) -> Any:
        """Return the worker of ``key``, or None."""
        return self.pool.get(key)

    def add(self, obj: Any) -> tuple[bool, str]:
        """Add a worker: True with its key, or False when the pool is full."""
        with self._lock:
            if len(self.pool) >= self.capacity:
                return False, ""
            key = f"worker-{self._added}"
            self._added += 1
            self.pool[key] = obj
            return True, key

    def remove(self, key: str) -> bool:
        """Take a worker out and stop it; always True."""
        with self._lock:
            worker = self.pool.pop(key, None)
        _stop(worker)
        return True

    def clear_all(self) -> None:
        """Take all workers out and stop them."""
        with self._lock:
            workers, self.pool = list(self.pool.values()), {}
        for worker in workers:
            _stop(worker)


def _stop(worker: Any) -> None:
    stop = getattr(worker, "stop", None)
    if callable(stop):
        stop()
