"""Requests profiled with pyinstrument, whose report goes to the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from atomserve.errors import MissingExtra

MOST_LINES = 64
"""Lines of a report that are logged, as many as the log takes of any list."""

log = structlog.get_logger()


class Profiles:
    """Profiles one request at a time; others that come meanwhile are served as usual.

    A sampler for each of many requests at once would sample the samplers.

    Raises:
        MissingExtra: pyinstrument is not installed.
    """

    def __init__(self) -> None:
        try:
            import pyinstrument
        except ImportError as exc:
            raise MissingExtra(
                "profiling needs pyinstrument: pip install 'atomserve[profiling]'"
            ) from exc
        self._make = pyinstrument.Profiler
        self._busy = False

    @contextmanager
    def profiled(self, *, method: str, path: str, request_id: str = "") -> Iterator[None]:
        """Profile what runs in this context, in this task, and log the report when it ends."""
        if self._busy:
            yield
            return
        self._busy = True
        profiler = self._make(async_mode="enabled")
        profiler.start()
        try:
            yield
        finally:
            self._busy = False
            profiler.stop()
            report = profiler.output_text(unicode=False, color=False).strip().splitlines()
            log.warning(
                "request.profiled",
                request_id=request_id,
                method=method,
                path=path,
                report=report[:MOST_LINES],
            )
