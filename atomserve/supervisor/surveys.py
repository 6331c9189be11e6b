"""What the instance and each of its processes are doing, gathered at the moment of the question."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import structlog

from atomserve import control
from atomserve.supervisor.api_processes import ApiProcesses
from atomserve.supervisor.children import Child
from atomserve.supervisor.worker import Worker
from atomserve.supervisor.workers import WorkerGroup
from atomserve.telemetry.counters import Snapshot, merge
from atomserve.telemetry.instance import (
    ApiDocument,
    ApiReport,
    ModelReport,
    RegistrationReport,
    Report,
    SupervisorReport,
    WorkerReport,
)
from atomserve.telemetry.vitals import resident

PATIENCE = 0.5
"""Seconds that a child gets to say what it is doing; a busy plugin may not let its worker speak.

Less than `atomserve.telemetry.instance.PATIENCE`: who asked still waits for the answer.
"""

Documents = dict[Child, msgspec.Raw]

log = structlog.get_logger("atomserve.supervisor")


class Surveys:
    """Answers who asks; whoever asks while the children are being asked gets the same answer.

    What API processes have counted is kept beyond their end: sums over them must not fall.
    """

    def __init__(
        self,
        apis: ApiProcesses,
        groups: Sequence[WorkerGroup],
        registration: Callable[[], RegistrationReport | None] = lambda: None,
    ) -> None:
        self._apis = apis
        self._registration = registration
        self._groups = groups
        self._began = time.monotonic()
        self._asking: list[tuple[Child, int]] = []
        self._counted: dict[int, tuple[Child, msgspec.Raw]] = {}
        self._departed: list[Snapshot] = []

    def __repr__(self) -> str:
        return f"<Surveys: {len(self._asking)} asking>"

    async def answer(self, child: Child, number: int) -> None:
        """Ask every child, and send ``child`` what they say as the answer to ``number``."""
        self._asking.append((child, number))
        if len(self._asking) > 1:
            return
        try:
            report = await self._gather()
        except Exception:  # a question must not end whoever keeps all others alive
            log.exception("survey.failed")
            report = msgspec.json.encode(Report(_own(self._began), [], {}, partial=True))
        asking, self._asking = self._asking, []
        for asker, asked in asking:
            asker.post(control.Surveyed(asked, msgspec.Raw(report)))

    async def _gather(self) -> bytes:
        """Ask every child, and return a `Report` of what they say."""
        children = self._listening()
        documents = await self._ask(children)
        silent = len(documents) < len(children)
        self._apis.doubt(set(children) - documents.keys())
        self._remember(documents)
        documents |= dict(self._counted.values())
        report = msgspec.json.encode(self._report(documents, partial=silent))
        if len(report) > control.MAX_FRAME // 2:
            report = msgspec.json.encode(self._report({}, partial=True))
        return report

    async def _ask(self, children: list[Child]) -> Documents:
        documents: Documents = {}

        async def ask(child: Child) -> None:
            documents[child] = await child.survey()

        with anyio.move_on_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for child in children:
                    tasks.start_soon(ask, child)
        return documents

    def _listening(self) -> list[Child]:
        """Return whom to ask: one that still imports does not listen, nor does one that died."""
        children = [child for child in self._apis.running.values() if child.serving]
        for group in self._groups:
            children += [worker.child for worker in group.workers if worker.state != "starting"]
        return [child for child in children if not child.ended.is_set()]

    def _remember(self, documents: Documents) -> None:
        running = self._apis.running
        for index, (child, document) in list(self._counted.items()):
            if running.get(index) is not child:
                del self._counted[index]
                self._departed = merge([self._departed, _counters(document)])
        for index, child in running.items():
            if child in documents:
                self._counted[index] = (child, documents[child])

    def _report(self, documents: Documents, *, partial: bool) -> Report:
        return Report(
            instance=_own(self._began),
            api_processes=[
                ApiReport(
                    index=index,
                    pid=child.pid,
                    ready=child.ready,
                    restarts=self._apis.restarts[index],
                    rss=resident(child.pid),
                    counters=_unread(documents.get(child)),
                )
                for index, child in sorted(self._apis.running.items())
            ],
            models={
                group.standing.model: _model(group, documents)
                for group in self._groups
                if group.standing.model
            },
            departed=self._departed,
            partial=partial,
            registration=self._registration(),
        )


def _own(began: float) -> SupervisorReport:
    pid = os.getpid()
    return SupervisorReport(pid, round(time.monotonic() - began, 3), resident(pid))


def _unread(document: msgspec.Raw | None) -> Any:
    """Return a document for the place where a reader will find it decoded."""
    return document


def _counters(document: msgspec.Raw) -> list[Snapshot]:
    try:
        families = msgspec.json.decode(document, type=ApiDocument).families
    except msgspec.DecodeError:
        return []
    return [family for family in families if family.kind != "gauge"]


def _model(group: WorkerGroup, documents: Documents) -> ModelReport:
    spares = group.spares
    rows = [
        _worker(worker, documents, restarts=max(0, group.seats[worker.slot].restarts))
        for worker in group.workers
        if worker not in spares and not worker.child.ended.is_set()
    ]
    missing = {seat.index for seat in group.seats} - {row.slot for row in rows}
    rows += [WorkerReport(index, None, "restarting") for index in missing]
    return ModelReport(
        state=group.standing.state,
        detail=group.standing.detail,
        slots=sorted(rows, key=lambda row: row.slot),
        spares=[_worker(worker, documents) for worker in spares],
        restarts=dict(group.restarts),
    )


def _worker(worker: Worker, documents: Documents, restarts: int | None = None) -> WorkerReport:
    return WorkerReport(
        slot=worker.slot,
        pid=worker.pid,
        state=worker.state,
        restarts=restarts,
        rss=resident(worker.pid),
        document=_unread(documents.get(worker.child)),
    )
