"""What the supervisor orders of an API process's application, and what that reports to it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.abc
import msgspec

from atomserve import control
from atomserve.backends.processes import ProcessBackend
from atomserve.engine.backend import Backend
from atomserve.engine.models import Model
from atomserve.plugins import Source
from atomserve.signature import Signature
from atomserve.surfaces.admin.calls import Calls
from atomserve.surfaces.status import Whole
from atomserve.telemetry.instance import ApiDocument, Instance

Report = Callable[..., None]
"""Sends the supervisor a `control.Report`, and descriptors with it."""
Load = Callable[[Source], tuple[str, Backend]]
Add = Callable[[str, Backend], Model]


class Orders:
    """Obeys the supervisor, of the models that its workers run and of surveys.

    ``add`` serves one more model. ``load`` imports, in a thread, what is to run in this process.
    ``told`` is what the supervisor has to know of a hosted app.
    """

    def __init__(
        self,
        whole: Whole,
        calls: Calls,
        *,
        add: Add,
        load: Load,
        told: control.AppDescribed | None = None,
    ) -> None:
        self._whole = whole
        self._calls = calls
        self._told = told
        self._add = add
        self._load = load
        self._workers: dict[str, ProcessBackend] = {}
        self._models: dict[str, Model] = {}
        self._report: Report = _unheard
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<Orders: workers serve {', '.join(self._workers) or 'nothing'}>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Import what is to run here while the block lasts.

        Raises:
            PluginError: (in a group) a source cannot be imported or validated.
        """
        async with anyio.create_task_group() as self._tasks:
            yield
            self._tasks.cancel_scope.cancel()

    def attach(self, report: Report) -> None:
        """From now on tell the supervisor by ``report``, and ask it how the instance is."""
        self._report = report
        self._calls.attach(report)
        self._whole.instance = Instance(lambda number: report(control.Survey(number)))
        if self._told is not None:
            report(self._told)

    def remote(self, model: str) -> bool:
        """Say whether workers serve ``model``."""
        return model in self._workers

    def obey(self, order: control.Order) -> None:
        """Do what the supervisor says; what takes its time, goes on beside."""
        match order:
            case control.Offer():
                self._take(order)
            case control.Host(source):
                self._tasks.start_soon(self._host, msgspec.convert(source, Source))
            case control.Unlink(name, pid):
                self._workers[name].unlink(pid)
            case control.Lost(name, pid):
                self._workers[name].cut(pid)
            case control.ModelState(name, state, detail):
                self._workers[name].become(state, detail)
            case control.RegistrationState(state, detail):
                self._whole.registration = (state, detail)
            case control.Survey(number):
                self._report(control.Surveyed(number, _written(self._whole.own())))
            case control.Surveyed(number, document):
                self._whole.hear(number, document)
            case control.Told():
                self._calls.hear(order)

    async def link(self, order: control.Link, frames: socket.socket, side: socket.socket) -> None:
        """Use a worker that has loaded, over the two sockets."""
        await self._workers[order.model].link(order.slot, order.pid, frames, side)

    def _take(self, offer: control.Offer) -> None:
        """Serve what workers offer; offered again, by what the signature says now."""
        name = offer.model
        signature = msgspec.json.decode(offer.signature, type=Signature)
        if (backend := self._workers.get(name)) is None:
            backend = ProcessBackend(
                signature,
                offer.options,
                partial(self._tell_hung, name),
                partial(self._excuse, name),
            )
            self._workers[name] = backend
            self._models[name] = self._add(name, backend)
            return
        model = self._models[name]
        # As many slots and places to wait as there were first: they have been made.
        backend.options = msgspec.structs.replace(
            offer.options, slots=model.options.slots, queue_size=model.options.queue_size
        )
        backend.signature = signature
        if model.signature is not None:
            model.renew(signature)

    async def _host(self, source: Source) -> None:
        # Whoever has to leave does not wait for an import to come to its end.
        name, backend = await anyio.to_thread.run_sync(self._load, source, abandon_on_cancel=True)
        self._add(name, backend)

    def _tell_hung(self, model: str, slot: int, pid: int, reason: str) -> None:
        self._report(control.Condemned(model, slot, pid, reason))

    def _excuse(self, model: str, slot: int, pid: int) -> None:
        self._report(control.Excused(model, slot, pid))


def _written(own: ApiDocument) -> msgspec.Raw:
    document = msgspec.json.encode(own)
    if len(document) > control.MAX_FRAME * 3 // 4:  # it would not be sent, and we seem dead
        document = msgspec.json.encode(msgspec.structs.replace(own, families=[]))
    return msgspec.Raw(document)


def _unheard(_: control.Report) -> None:
    pass
