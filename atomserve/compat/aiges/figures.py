"""What a wrapper counts by `callback_metric`: from any thread, bounded, added up for `/metrics`."""

from __future__ import annotations

import threading

from atomserve.telemetry.counters import OTHER, Point, Snapshot

NAME = "atomserve_wrapper_counts_total"
HELP = "What the code of a model counts itself, by its key (AIGES `callback_metric`)."
MOST_KEYS = 100
"""Of one copy; what comes later is counted together: a key may be made of what clients send."""
LONGEST_KEY = 100
LARGEST = 1 << 53
"""Up to here a double counts every whole number."""


class Figures:
    """The figures of one copy of a wrapper."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._counts: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Figures of {self._model}: {len(self._counts)} keys>"

    def add(self, key: str, count: int) -> None:
        """Count ``count`` more of ``key``; less than nothing is nothing."""
        key = key[:LONGEST_KEY].encode(errors="replace").decode()
        with self._lock:
            if key not in self._counts and len(self._counts) >= MOST_KEYS:
                key = OTHER
            self._counts[key] = self._counts.get(key, 0.0) + max(0, min(count, LARGEST))

    def snapshot(self) -> Snapshot:
        """Return the figures as they are now."""
        with self._lock:
            points = tuple(Point((self._model, key), n) for key, n in self._counts.items())
        return Snapshot(NAME, "counter", HELP, ("model", "key"), points)
