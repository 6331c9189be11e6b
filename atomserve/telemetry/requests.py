"""What is counted of every request that the guard has seen, when it is over."""

from __future__ import annotations

from atomserve.telemetry.counters import MOST, Counter, Histogram, Registry

DURATIONS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0),
)
"""Seconds: the buckets of OpenTelemetry's HTTP conventions, with finer and coarser ones."""

_Children = tuple[Counter, Histogram, Counter, Counter]


class RequestCounts:
    """Counts requests by model, route, status and code; all four come from short lists."""

    def __init__(self, registry: Registry, *, most: int = MOST) -> None:
        self._requests = registry.counter(
            "atomserve_requests_total",
            "Requests that are over; WebSockets, too.",
            *("model", "route", "status", "code"),
        )
        self._durations = registry.histogram(
            "atomserve_request_duration_seconds",
            "From a request's head to the end of its answer.",
            *("model", "route"),
            bounds=DURATIONS,
        )
        self._received = registry.counter(
            "atomserve_request_bytes_total", "Bytes of request bodies.", "model", "route"
        )
        self._sent = registry.counter(
            "atomserve_response_bytes_total", "Bytes of answers' bodies.", "model", "route"
        )
        self._most = most
        self._known: dict[tuple[str, str, int, str], _Children] = {}

    def record(
        self,
        model: str,
        route: str,
        status: int,
        code: str,
        *,
        duration: float,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Count one request."""
        key = (model, route, status, code)
        children = self._known.get(key)
        if children is None:
            children = self._children(*key)
        requests, durations, received, sent = children
        requests.value += 1
        durations.observe(duration)
        received.value += bytes_in
        sent.value += bytes_out

    def _children(self, model: str, route: str, status: int, code: str) -> _Children:
        template = route.replace(f"/models/{model}/", "/models/{name}/") if model else route
        where = (model, template)
        children = (
            self._requests.child(*where, str(status), code),
            self._durations.child(*where),
            self._received.child(*where),
            self._sent.child(*where),
        )
        if len(self._known) < self._most:
            self._known[model, route, status, code] = children
        return children
