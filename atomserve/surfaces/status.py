"""The state of the whole instance, put together from what each of its processes says."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atomserve.backends.process_slots import ProcessSlot
from atomserve.backends.processes import ProcessBackend
from atomserve.engine.engine import Engine
from atomserve.engine.models import Model
from atomserve.telemetry.counters import Registry, Snapshot, merge
from atomserve.telemetry.instance import (
    PATIENCE,
    ApiDocument,
    ApiReport,
    Instance,
    ModelReport,
    OwnApp,
    OwnModel,
    OwnSlot,
    Report,
    WorkerReport,
)
from atomserve.telemetry.status import ApiStatus, AppStatus, ModelStatus, Queue, SlotStatus, Status
from atomserve.telemetry.vitals import resident


class Whole:
    """The instance, as this API process can tell of it.

    ``instance`` is None where there is no supervisor: then this process is all there is.
    """

    def __init__(self, engine: Engine, registry: Registry, in_flight: Callable[[], int]) -> None:
        self.instance: Instance | None = None
        self.registration: tuple[str, str] | None = None
        """State and detail, if a control plane is told of the instance."""
        self._engine = engine
        self._registry = registry
        self._in_flight = in_flight

    def own(self) -> ApiDocument:
        """Return what this process knows of itself."""
        models = {name: _own_model(model) for name, model in self._engine.models.items()}
        apps = {guest.name: OwnApp(guest.state, guest.detail) for guest in self._engine.guests}
        return ApiDocument(self._registry.snapshot(), models, self._in_flight(), apps)

    async def look(self, patience: float = PATIENCE) -> tuple[Status, list[Snapshot]]:
        """Return how all is, and what all have counted; of who is silent, what was last heard."""
        report = None if self.instance is None else await self.instance.look(patience)
        partial = self.instance is not None and (report is None or report.partial)
        if report is None and self.instance is not None:
            report = self.instance.latest
        own = self.own()
        apis = _apis(report, own, ready=self._ready)
        documents = [api.counters for api in apis if api.counters is not None]
        status = Status(
            partial=partial,
            ready=self._ready,
            supervisor=None if report is None else report.instance,
            api_processes=[_api(api, alone=report is None) for api in apis],
            models=_models(apis, {} if report is None else report.models),
            apps=_apps(documents),
            registration=None if report is None else report.registration,
        )
        departed = [] if report is None else report.departed
        return status, merge([departed, *(document.families for document in documents)])

    def hear(self, number: int, document: msgspec.Raw) -> None:
        """Take the supervisor's answer."""
        if self.instance is not None:
            self.instance.hear(number, document)

    @property
    def _ready(self) -> bool:
        return self._engine.ready and not self._engine.draining


def _own_model(model: Model) -> OwnModel:
    backend, options = model.backend, model.options
    remote = isinstance(backend, ProcessBackend)
    return OwnModel(
        state=model.state,
        detail=model.detail,
        waiting=model.waiting,
        running=len(model.jobs) - model.waiting,
        size=options.places,
        capacity=options.capacity,
        remote=remote,
        slots=tuple(
            OwnSlot(slot.slot, slot.pid, slot.busy)
            if isinstance(slot, ProcessSlot)
            else OwnSlot(index, os.getpid(), slot.busy)
            for index, slot in enumerate(model.slots)
        ),
        arena_bytes=backend.arena.used if isinstance(backend, ProcessBackend) else 0,
    )


def missing(model: Model) -> list[int]:
    """Return the slots of a model that serves which have no worker now."""
    if model.state not in ("ready", "restarting") or not isinstance(model.backend, ProcessBackend):
        return []
    there = {slot.slot for slot in model.backend.slots if not slot.retiring}
    return [index for index in range(model.options.slots) if index not in there]


class Checks:
    """What the health probes read: at hand in this process, without asking anybody."""

    def __init__(self, engine: Engine, whole: Whole) -> None:
        self._engine = engine
        self._whole = whole

    @property
    def registration(self) -> tuple[str, str] | None:
        return self._whole.registration

    @property
    def started(self) -> bool:
        return self._engine.started

    @property
    def ready(self) -> bool:
        return self._engine.ready

    @property
    def draining(self) -> bool:
        return self._engine.draining

    def states(self) -> Mapping[str, tuple[str, str]]:
        """Return each model's state, and which of its slots restart."""
        states = self._engine.states()
        for name, (state, detail) in states.items():
            if lost := missing(self._engine.models[name]):
                text = ", ".join(f"slot {index} is restarting" for index in lost)
                states[name] = (state, f"{detail}; {text}" if detail else text)
        return states

    def apps(self) -> Mapping[str, tuple[str, str]]:
        """Return the state of the hosted app, if there is one."""
        return {guest.name: (guest.state, guest.detail) for guest in self._engine.guests}


def _apis(report: Report | None, own: ApiDocument, *, ready: bool) -> list[ApiReport]:
    """Return all API processes; this one's document is the one that it has now."""
    pid = os.getpid()
    others = [] if report is None else report.api_processes
    found = [
        msgspec.structs.replace(api, counters=own) if api.pid == pid else api for api in others
    ]
    if all(api.pid != pid for api in found):
        found.append(ApiReport(len(found), pid, ready, 0, resident(pid), own))
    return found


def _api(api: ApiReport, *, alone: bool) -> ApiStatus:
    return ApiStatus(
        index=None if alone else api.index,
        pid=api.pid,
        ready=api.ready,
        in_flight=None if api.counters is None else api.counters.in_flight,
        restarts=None if alone else api.restarts,
        rss=api.rss,
    )


def _models(apis: list[ApiReport], reports: Mapping[str, ModelReport]) -> dict[str, ModelStatus]:
    seen: dict[str, list[tuple[ApiReport, OwnModel]]] = {}
    for api in apis:
        for name, own in ({} if api.counters is None else api.counters.models).items():
            seen.setdefault(name, []).append((api, own))
    return {name: _model(found, reports.get(name)) for name, found in sorted(seen.items())}


def _model(found: list[tuple[ApiReport, OwnModel]], report: ModelReport | None) -> ModelStatus:
    views = [own for _, own in found]
    first = next((own for api, own in found if api.pid == os.getpid()), views[0])
    if report is not None:
        slots = _workers(report, first, views)
    elif first.remote:
        slots = [_linked(slot) for slot in first.slots]
    else:
        slots = [_hosted(api, slot) for api, own in found for slot in own.slots]
    return ModelStatus(
        state=first.state,
        detail=first.detail,
        queue=Queue(sum(own.waiting for own in views), sum(own.size for own in views)),
        running=sum(own.running for own in views),
        capacity=first.capacity,
        slots=slots,
        restarts={} if report is None else report.restarts,
        arena_bytes=sum(own.arena_bytes for own in views),
    )


def _workers(report: ModelReport, own: OwnModel, views: list[OwnModel]) -> list[SlotStatus]:
    jobs: Counter[int] = Counter()
    for slot in (slot for view in views for slot in view.slots):
        jobs[slot.pid] += slot.busy
    linked = {slot.pid for slot in own.slots}
    rows = [_worker(worker, jobs, own.capacity) for worker in report.slots]
    # This process hears first of the end of a worker: its link ends.
    lost = [row.state == "ready" and row.pid not in linked for row in rows]
    rows = [
        SlotStatus(row.slot, None, "restarting", restarts=row.restarts) if gone else row
        for row, gone in zip(rows, lost, strict=True)
    ]
    for worker in report.spares:
        row = _worker(worker, jobs, own.capacity)
        state = "spare" if row.state == "ready" else row.state
        rows.append(msgspec.structs.replace(row, slot=None, state=state))
    return rows


def _worker(worker: WorkerReport, jobs: Counter[int], capacity: int) -> SlotStatus:
    said = worker.document
    busy = None
    if worker.state in ("ready", "retiring") and worker.pid is not None:
        # A plugin that holds the interpreter keeps its worker from saying that it is busy.
        busy = min(jobs[worker.pid], capacity) if said is None else said.busy
    return SlotStatus(
        slot=worker.slot,
        pid=worker.pid,
        state=worker.state,
        busy=busy,
        requests=None if said is None else said.requests,
        restarts=worker.restarts,
        rss=worker.rss,
        arena_bytes=None if said is None else said.answer_bytes,
    )


def _linked(slot: OwnSlot) -> SlotStatus:
    return SlotStatus(slot.slot, slot.pid, "ready", busy=slot.busy, rss=resident(slot.pid))


def _hosted(api: ApiReport, slot: OwnSlot) -> SlotStatus:
    return SlotStatus(slot.slot, api.pid, "ready", busy=slot.busy, rss=api.rss)


def _apps(documents: Iterable[ApiDocument]) -> dict[str, AppStatus]:
    seen: dict[str, list[OwnApp]] = {}
    for document in documents:
        for name, app in document.apps.items():
            seen.setdefault(name, []).append(app)
    return {name: _app(found) for name, found in sorted(seen.items())}


def _app(found: list[OwnApp]) -> AppStatus:
    ready = [app for app in found if app.state == "ready"]
    shown = next((app for app in found if app.state != "ready"), found[0])
    return AppStatus(shown.state, shown.detail, len(ready))


def routes(whole: Whole, prefix: str) -> list[Route]:
    """Serve the state of the instance."""

    async def status(_: Request) -> Response:
        found, _counted = await whole.look()
        headers = {"Cache-Control": "no-store"}
        return Response(msgspec.json.encode(found), 200, headers, "application/json")

    return [Route(f"{prefix}/v1/status", status)]
