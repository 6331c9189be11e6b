"""The resources of one model: loaded by every worker, also by those that start later."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import anyio
import structlog

from atomserve import control
from atomserve.errors import Busy, Conflict, NotReady, ResourceNotFound
from atomserve.settings import ResourceSettings
from atomserve.supervisor.holdings import Resource
from atomserve.supervisor.worker import Seat, Worker
from atomserve.telemetry.resources import CopyStatus, Held, Outcome

Ask = Callable[[Worker], Awaitable[control.ResourceDone | None]]

log = structlog.get_logger("atomserve.supervisor")


class Resources:
    """Loads and unloads, one order at a time, in all of a model's workers or in none.

    ``seats`` and ``workers`` are the model's, as they are at any time.
    """

    def __init__(
        self, settings: ResourceSettings, seats: Sequence[Seat], workers: Sequence[Worker]
    ) -> None:
        self._settings = settings
        self._seats = seats
        self._workers = workers
        self._held: dict[str, Resource] = {}
        self._lock = anyio.Lock()

    def __repr__(self) -> str:
        return f"<Resources: {', '.join(self._held) or 'none'}>"

    async def load(self, order: control.LoadResource, fd: int) -> Outcome:
        """Have every worker load what ``fd``, which is taken over, holds; or none.

        Raises:
            AtomError: it is loaded already, or the model cannot load anything now.
        """
        resource = Resource(order, fd)
        try:
            async with self._turn():
                self._check_room(resource)
                copies = await self._ask_all(self._serving(), "loaded", partial(_load, resource))
                done = all(copy.state == "loaded" for copy in copies.values())
                if done:
                    self._held[resource.name] = resource
                else:
                    await self._take_back(resource, copies)
        finally:
            if self._held.get(resource.name) is not resource:
                os.close(fd)
        log.info("resource.loaded" if done else "resource.not_loaded", **_facts(resource))
        return self._outcome(resource, copies.values(), done=done)

    async def unload(self, order: control.UnloadResource) -> Outcome:
        """Have every worker forget a resource, and load it into none any more.

        Raises:
            AtomError: there is none of this name, or another order takes too long.
        """
        async with self._turn():
            resource = self._held.get(order.resource)
            if resource is None:
                raise ResourceNotFound(f"{order.model} has loaded no resource {order.resource}")
            resource.unloading = True
            holders = [w for w in self._workers if resource.name in w.holdings.names]
            copies = await self._ask_all(holders, "unloaded", partial(_unload, resource))
            done = all(copy.state in ("unloaded", "lost") for copy in copies.values())
            if done:
                del self._held[resource.name]
                os.close(resource.fd)
        log.info("resource.unloaded" if done else "resource.not_unloaded", **_facts(resource))
        return self._outcome(resource, copies.values(), done=done)

    async def replay(self, worker: Worker) -> str:
        """Have ``worker`` load all that the others have, and let it serve; else say why not."""
        async with self._lock:
            for resource in list(self._held.values()):
                if resource.unloading:
                    continue
                copies = await self._ask_all([worker], "loaded", partial(_load, resource))
                copy = copies[worker]
                if copy.state != "loaded":
                    return f"resource {resource.name}: {copy.detail or copy.state}"
                log.info("resource.replayed", **_facts(resource), pid=worker.pid)
            worker.begin()
        return ""

    def listed(self) -> list[Held]:
        """Return what is loaded, and where."""
        return [
            Held(
                resource=name,
                media_type=resource.order.media_type,
                size=resource.order.size,
                unloading=resource.unloading,
                slots=[
                    CopyStatus(self._slot(worker), worker.pid, "loaded")
                    for worker in self._workers
                    if name in worker.holdings.names
                ],
            )
            for name, resource in self._held.items()
        ]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        with anyio.move_on_after(self._settings.timeout) as waiting:
            await self._lock.acquire()
        if waiting.cancelled_caught:
            raise Busy("another resource is being loaded or unloaded: retry")
        try:
            yield
        finally:
            self._lock.release()

    def _check_room(self, resource: Resource) -> None:
        name, model = resource.name, resource.order.model
        if (held := self._held.get(name)) is not None:
            state = "not unloaded everywhere" if held.unloading else "loaded already"
            raise Conflict(f"{model}: the resource {name} is {state}: unload it first")
        if len(self._held) >= self._settings.most:
            raise Conflict(f"{model} has loaded {len(self._held)} resources, as many as it may")

    def _serving(self) -> list[Worker]:
        workers = [worker for worker in self._workers if worker.state == "ready"]
        if not workers:
            raise NotReady("no worker of the model has loaded")
        return workers

    async def _take_back(self, resource: Resource, copies: dict[Worker, CopyStatus]) -> None:
        """Unload what some workers have loaded, or may yet load, and others could not."""
        holders = [worker for worker, copy in copies.items() if copy.state in ("loaded", "silent")]
        told = await self._ask_all(holders, "unloaded", partial(_unload, resource))
        for worker, copy in told.items():
            if copies[worker].state == "loaded":
                copies[worker] = copy
            if copy.state in ("failed", "silent"):
                log.warning("resource.left", **_facts(resource), pid=copy.pid, detail=copy.detail)

    async def _ask_all(
        self, workers: Sequence[Worker], wanted: Literal["loaded", "unloaded"], ask: Ask
    ) -> dict[Worker, CopyStatus]:
        """Ask all at once; who does not answer in time is silent."""
        copies = {
            worker: CopyStatus(self._slot(worker), worker.pid, "silent") for worker in workers
        }

        async def ask_one(worker: Worker) -> None:
            slot, pid = self._slot(worker), worker.pid
            done = await ask(worker)
            if done is None:
                copies[worker] = CopyStatus(slot, pid, "lost", detail="it ended meanwhile")
            elif done.code:
                copies[worker] = CopyStatus(slot, pid, "failed", done.code, done.detail)
            else:
                copies[worker] = CopyStatus(slot, pid, wanted)

        with anyio.move_on_after(self._settings.timeout):
            async with anyio.create_task_group() as tasks:
                for worker in workers:
                    tasks.start_soon(ask_one, worker)
        return copies

    def _slot(self, worker: Worker) -> int | None:
        return worker.slot if worker.slot < len(self._seats) else None

    def _outcome(self, resource: Resource, copies: Iterable[CopyStatus], *, done: bool) -> Outcome:
        rows = list(copies)
        there = {row.slot for row in rows}
        rows += [
            CopyStatus(seat.index, None, "starting")
            for seat in self._seats
            if seat.index not in there and not seat.serving
        ]
        rows.sort(key=lambda row: (row.slot is None, row.slot or 0))
        return Outcome(resource.order.model, resource.name, done, rows)


def _facts(resource: Resource) -> dict[str, object]:
    return {"model": resource.order.model, "resource": resource.name}


async def _load(resource: Resource, worker: Worker) -> control.ResourceDone | None:
    return await worker.holdings.load(resource)


async def _unload(resource: Resource, worker: Worker) -> control.ResourceDone | None:
    return await worker.holdings.unload(resource)
