"""The process backend: a model's workers, as the supervisor links them to this API process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import structlog

from atomserve.backends.process_slots import ProcessSlot
from atomserve.backends.shared import Pool, SharedSink
from atomserve.engine.backend import Host
from atomserve.engine.loops import Timer, call_later
from atomserve.engine.options import Options
from atomserve.errors import PluginError
from atomserve.signature import Signature

log = structlog.get_logger("atomserve.processes")

REQUESTS = 512 * 1024 * 1024
"""Bytes of large request bodies of one model that may lie in shared memory at once."""

EXPLANATION = 1.0
"""Seconds that the supervisor has to say why a link has ended: most often its worker has."""

TellHung = Callable[[int, int, str], None]
"""Told slot, pid and reason of a worker that must be replaced.

It is ``hung``, a job of it was ``cancelled``, or its link is gone (``unlinked``).
"""


class ProcessBackend:
    """The workers of one model, as the supervisor links them."""

    def __init__(
        self,
        signature: Signature,
        options: Options,
        tell_hung: TellHung,
        excuse: Callable[[int, int], None] = lambda slot, pid: None,
    ) -> None:
        self.signature = signature
        self.options = options
        self.tell_hung = tell_hung
        self.excuse = excuse
        """Told slot and pid of a worker whose death belongs to the search for a guilty job."""
        self.slots: list[ProcessSlot] = []
        self.pool = Pool(REQUESTS, self._unshare)
        self.arena = self.pool.arena
        self._hosted = anyio.Event()
        self._settled = anyio.Event()
        self._quiet: anyio.Event | None = None
        self._given_up = anyio.Event()
        self._detail = ""
        self._host: Host
        self._unexplained: dict[int, Timer] = {}

    @asynccontextmanager
    async def open(self, host: Host) -> AsyncIterator[ProcessBackend]:
        """Wait until the supervisor says that every slot has loaded; it ends them, too."""
        self._host = host
        self._hosted.set()
        await self._settled.wait()
        if self._given_up.is_set():
            raise PluginError(self._detail)
        try:
            yield self
        finally:
            for timer in self._unexplained.values():
                timer.cancel()
            # Of a model that has failed, the supervisor lets each worker end what it has.
            if not self._given_up.is_set():
                await self._end_jobs()

    async def _end_jobs(self) -> None:
        """Give what was cut off its grace to close; whoever still works then is stuck."""
        self._quiet = anyio.Event()
        self.job_over()
        with anyio.move_on_after(self.options.grace, shield=True):
            await self._quiet.wait()
        for slot in self.slots:
            if slot.busy:
                self.tell_hung(slot.slot, slot.pid, "cancelled")

    def job_over(self) -> None:
        """A job has ended."""
        if self._quiet is not None and not any(slot.busy for slot in self.slots):
            self._quiet.set()

    async def failure(self) -> str:
        """Wait until the supervisor gives the model up."""
        await self._given_up.wait()
        return self._detail

    async def link(self, slot: int, pid: int, frames: socket.socket, side: socket.socket) -> None:
        """Use a worker that has loaded."""
        await self._hosted.wait()
        worker = ProcessSlot(self, self._host, slot, pid, side)
        try:
            await worker.open(frames)
        except OSError as exc:
            log.error("worker.unlinked", slot=slot, pid=pid, error=str(exc))
            self.tell_hung(slot, pid, "unlinked")
            return
        self.slots.append(worker)
        self._host.on_room()

    def unlink(self, pid: int) -> None:
        """Let a worker finish what it has, and then go."""
        self._explain(pid)
        for slot in self.slots:
            if slot.pid == pid:
                slot.retire()

    def cut(self, pid: int) -> None:
        """A worker has ended, even if something that it started holds its link open."""
        self._explain(pid)
        for slot in self.slots:
            if slot.pid == pid:
                slot.cut()

    def become(self, state: str, detail: str) -> None:
        """The supervisor says how the model is doing; failed is for good."""
        if state == "failed":
            self._detail = detail
            self._given_up.set()
        if state in ("ready", "failed"):
            self._settled.set()

    def remove(self, slot: ProcessSlot) -> None:
        """A link has ended; a worker that lives on without one would be of no use."""
        if slot in self.slots:
            self.slots.remove(slot)
            self._host.on_room()
        if not slot.explained:
            timer = call_later(EXPLANATION, self._tell_unlinked, slot.slot, slot.pid)
            self._unexplained[slot.pid] = timer

    def _explain(self, pid: int) -> None:
        if (timer := self._unexplained.pop(pid, None)) is not None:
            timer.cancel()

    def _tell_unlinked(self, slot: int, pid: int) -> None:
        del self._unexplained[pid]
        self.tell_hung(slot, pid, "unlinked")

    def sink(self, declared: int | None) -> SharedSink:
        """Begin a large body; raises ArenaFull."""
        return SharedSink(self.pool, declared)

    def _unshare(self, segment: int) -> None:
        for slot in self.slots:
            slot.unshare(segment)
