"""``/metrics``: what the whole instance has counted and how it is, whichever process answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atomserve.codecs.negotiation import best
from atomserve.engine.engine import Engine
from atomserve.engine.models import Model
from atomserve.errors import NotAcceptable
from atomserve.guard.guard import Guard
from atomserve.surfaces.status import Whole
from atomserve.telemetry.counters import (
    Family,
    Histogram,
    Kind,
    Labels,
    Point,
    Readings,
    Registry,
    Snapshot,
)
from atomserve.telemetry.exposition import CONTENT_TYPES, OPENMETRICS, TEXT, write
from atomserve.telemetry.instance import RegistrationReport
from atomserve.telemetry.logs import AccessLog
from atomserve.telemetry.status import ModelStatus, Status
from atomserve.telemetry.vitals import Vitals, vitals

STATES = ("starting", "loading", "ready", "retiring", "restarting", "spare")
CAUSES = (
    *("died", "broken", "hung", "unlinked", "cancelled", "startup_timeout"),
    *("max_requests", "max_memory"),
)
"""Why a worker is replaced."""
WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

REGISTRATION_STATES = ("waiting", "registered", "lost", "withdrawn")

Rows = list[tuple[Labels, float]]


def watch(registry: Registry, engine: Engine, guard: Guard, access: AccessLog | None) -> None:
    """Let ``registry`` tell how this process is; what it tells adds up over all processes."""

    def each(read: Callable[[Model], int]) -> Callable[[], Readings]:
        return lambda: [((model.name,), read(model)) for model in engine.models.values()]

    def dropped() -> Readings:
        return [((), 0 if access is None else access.dropped)]

    registry.watch(
        "atomserve_queue_depth",
        "Jobs that wait for a slot.",
        "model",
        read=each(lambda model: model.waiting),
    )
    registry.watch(
        "atomserve_queue_limit",
        "Jobs that may wait for a slot.",
        "model",
        read=each(lambda model: model.options.places),
    )
    registry.watch(
        "atomserve_jobs_running",
        "Jobs that a slot has.",
        "model",
        read=each(lambda model: len(model.jobs) - model.waiting),
    )
    registry.watch(
        "atomserve_requests_in_flight",
        "Requests and WebSockets that have begun and not ended.",
        read=lambda: [((), guard.in_flight)],
    )
    registry.watch(
        "atomserve_request_bodies_held_bytes",
        "Bytes of request bodies that are read and not yet given to a model.",
        read=lambda: [((), guard.bytes_held)],
    )
    registry.watch(
        "atomserve_access_records_dropped_total",
        "Requests that the access log does not tell of: its reader was behind.",
        kind="counter",
        read=dropped,
    )


def waits(registry: Registry) -> Family[Histogram]:
    """Return what counts how long jobs wait."""
    return registry.histogram(
        "atomserve_queue_wait_seconds",
        "How long jobs waited until a slot took them.",
        "model",
        bounds=WAITS,
    )


def families(status: Status) -> Iterator[Snapshot]:
    """Return what is not counted, but seen: slots, workers, processes."""
    yield _family(
        "atomserve_info", "gauge", "The server.", ("version",), [((version("atomserve"),), 1)]
    )
    yield _family(
        "atomserve_partial",
        "gauge",
        "1: some process did not answer in time, and what it told last is told again.",
        (),
        [((), status.partial)],
    )
    models = status.models.items()
    yield _family(
        "atomserve_slots",
        "gauge",
        "Copies of a model, by what they do.",
        ("model", "state"),
        [
            ((name, state), sum(slot.state == state for slot in model.slots))
            for name, model in models
            for state in STATES
        ],
    )
    yield _family(
        "atomserve_worker_restarts_total",
        "counter",
        "Workers that were replaced, by the cause.",
        ("model", "cause"),
        [row for name, model in models for row in _restarts(name, model)],
    )
    yield _family(
        "atomserve_worker_requests_total",
        "counter",
        "Jobs that the worker in a slot has ended; begins anew with each worker.",
        ("model", "slot"),
        [
            ((name, str(slot.slot)), slot.requests)
            for name, model in models
            for slot in model.slots
            if slot.requests is not None and slot.slot is not None
        ],
    )
    yield _family(
        "atomserve_arena_used_bytes",
        "gauge",
        "Bytes of large request bodies and answers in shared memory.",
        ("model", "arena"),
        [row for name, model in models for row in _arenas(name, model)],
    )
    yield _family(
        "atomserve_api_process_restarts_total",
        "counter",
        "API processes that died and were started again.",
        ("index",),
        [
            ((str(api.index),), api.restarts)
            for api in status.api_processes
            if api.restarts is not None
        ],
    )
    yield from _registration(status.registration)
    yield from _processes(status)


def _registration(report: RegistrationReport | None) -> Iterator[Snapshot]:
    if report is None:
        return
    yield _family(
        "atomserve_registration_state",
        "gauge",
        "1: how far a control plane knows of the instance.",
        ("registrar", "state"),
        [((report.registrar, state), report.state == state) for state in REGISTRATION_STATES],
    )
    yield _family(
        "atomserve_registration_calls_total",
        "counter",
        "Calls to the control plane.",
        ("registrar", "call", "outcome"),
        [
            ((report.registrar, call, outcome), count)
            for call, outcomes in report.calls.items()
            for outcome, count in outcomes.items()
        ],
    )


def _restarts(name: str, model: ModelStatus) -> Rows:
    causes = dict.fromkeys(CAUSES, 0) | model.restarts
    return [((name, cause), count) for cause, count in causes.items()]


def _arenas(name: str, model: ModelStatus) -> Rows:
    answers = sum(slot.arena_bytes or 0 for slot in model.slots)
    return [((name, "request"), model.arena_bytes), ((name, "answer"), answers)]


def _processes(status: Status) -> Iterator[Snapshot]:
    seen = [(labels, found) for labels, pid in _pids(status) if (found := vitals(pid)) is not None]
    names = ("process", "model", "index")

    def family(name: str, kind: Kind, help: str, field: str) -> Snapshot:
        values = [(labels, _value(found, field)) for labels, found in seen]
        rows = [(labels, value) for labels, value in values if value is not None]
        return _family(f"atomserve_process_{name}", kind, help, names, rows)

    yield family("resident_memory_bytes", "gauge", "Memory of a process.", "resident")
    yield family("cpu_seconds_total", "counter", "Processor time of a process.", "cpu")
    yield family("open_fds", "gauge", "Open file descriptors of a process.", "descriptors")


def _value(found: Vitals, field: str) -> float | None:
    value: float | None = getattr(found, field)
    return value


def _pids(status: Status) -> Iterator[tuple[Labels, int]]:
    if status.supervisor is not None:
        yield ("supervisor", "", ""), status.supervisor.pid
    apis = {api.pid for api in status.api_processes}
    for api in status.api_processes:
        yield ("api", "", str(api.index or 0)), api.pid
    for name, model in status.models.items():
        for slot in model.slots:
            if slot.pid is not None and slot.pid not in apis and slot.state != "retiring":
                yield ("worker", name, "spare" if slot.slot is None else str(slot.slot)), slot.pid


def _family(name: str, kind: Kind, help: str, labels: Labels, rows: Rows) -> Snapshot:
    points = {values: Point(values, float(value)) for values, value in rows}
    return Snapshot(name, kind, help, labels, tuple(points.values()))


def routes(whole: Whole) -> list[Route]:
    """Serve the metrics, in the form that ``Accept`` likes best."""

    async def metrics(request: Request) -> Response:
        status, counted = await whole.look()
        form = _form(",".join(request.headers.getlist("accept")))
        text = write([*families(status), *counted], form=form)
        headers = {"Content-Type": CONTENT_TYPES[form], "Cache-Control": "no-store"}
        return Response(text, headers=headers)

    return [Route("/metrics", metrics)]


def _form(accept: str) -> str:
    try:
        return best([TEXT, OPENMETRICS], accept)[0]
    except NotAcceptable:
        return TEXT  # Whoever asks for metrics can read that.
