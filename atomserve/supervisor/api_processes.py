"""The API processes of an instance: kept alive, told what workers serve, stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import anyio
import anyio.abc
import msgspec
import structlog

from atomserve import control
from atomserve.settings import Settings
from atomserve.supervisor.children import HASTE, Child
from atomserve.supervisor.events import (
    Died,
    Event,
    Killed,
    ModelChanged,
    NotReady,
    Ready,
    Serving,
    Started,
)
from atomserve.supervisor.listeners import Listeners
from atomserve.supervisor.restarts import Restarts
from atomserve.telemetry.instance import OwnSlot

SILENCE = 10.0
"""Seconds that a child may say nothing when it is asked again, before it is replaced."""
PATIENCE = 5.0
"""Seconds that a child gets to say whether it waits for a worker."""
MARGIN = 2.0
"""Seconds that a child gets beyond all that it was promised, before it is killed."""

log = structlog.get_logger("atomserve.supervisor")


class View(msgspec.Struct):
    """What is read here of how an API process sees one model."""

    slots: list[OwnSlot] = []


class Views(msgspec.Struct):
    """What is read here of `atomserve.telemetry.instance.ApiDocument`."""

    models: dict[str, View] = {}


class ApiProcesses:
    """Runs one API process for each group of listening sockets, again and again until stopped."""

    def __init__(
        self,
        settings: Settings,
        listeners: Listeners,
        command: Sequence[str],
        *,
        emit: Callable[[Event], None],
        admin: Listeners | None = None,
    ) -> None:
        self.running: dict[int, Child] = {}
        """The process of each index that has one now."""
        self.restarts = [0] * len(listeners.groups)
        self.aborted = 0
        """Requests that did not finish in time."""
        self.sources: tuple[Any, ...] = ()
        """What they serve in threads of their own."""
        self.expected = 0
        """How many models workers serve."""
        self._settings = settings
        self._listeners = listeners
        self._admin = admin
        self._command = command
        self._emit = emit
        self._ready = False
        self._doubted: set[Child] = set()
        self._stopping = anyio.Event()
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        state = "stopping" if self._stopping.is_set() else "running"
        return f"<ApiProcesses {state}: {len(self.running)} of {len(self._listeners.groups)}>"

    @property
    def urls(self) -> tuple[str, ...]:
        scheme = "https" if self._settings.certfile else "http"
        return tuple(
            place if place.startswith("unix:") else f"{scheme}://{place}"
            for place in self._listeners.places
        )

    async def run(self, owner: Owner) -> None:
        """Start them, and return when the last one has ended for good."""
        self._owner = owner
        async with anyio.create_task_group() as self._tasks:
            async with anyio.create_task_group() as kept:
                for index in range(len(self._listeners.groups)):
                    kept.start_soon(self._keep, index)
            self._tasks.cancel_scope.cancel()

    def post(self, message: msgspec.Struct) -> None:
        """Send ``message`` to each that runs now."""
        for child in self.running.values():
            child.post(message)

    async def waiting_for(self, model: str, pid: int) -> bool:
        """Say whether any of them waits for a job that worker ``pid`` of ``model`` has."""
        found: list[bool] = []

        async def ask(child: Child) -> None:
            views = Views()  # of one that was not to be understood
            with suppress(msgspec.DecodeError):
                views = msgspec.json.decode(await child.survey(), type=Views)
            slots = views.models[model].slots if model in views.models else []
            found.append(any(slot.pid == pid and slot.busy for slot in slots))

        asked = [child for child in self.running.values() if child.serving]
        with anyio.move_on_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for child in asked:
                    tasks.start_soon(ask, child)
        # Who is too busy to say may well be waiting.
        return any(found) or len(found) < len(asked)

    def doubt(self, silent: Collection[Child]) -> None:
        """Replace those of the ``silent`` that say nothing though they are asked again.

        One that runs a plugin's code may be kept from speaking by that, and is left alone.
        """
        for index, child in self.running.items():
            if child in silent and child not in self._doubted and not self.sources:
                self._doubted.add(child)
                self._tasks.start_soon(self._ask_again, index, child)

    def host(self, source: Any) -> None:
        """Have them serve ``source``, which was counted as a worker's, in threads."""
        self.sources += (source,)
        self.expected -= 1
        self.post(control.Host(source))

    def hide(self) -> None:
        """Let them answer not ready, and start none any more: `drain` follows."""
        self._stopping.set()
        self.post(control.Unready())

    def drain(self, delay: float) -> None:
        """Stop in order, and kill what has not ended when everything promised has passed."""
        self._stopping.set()
        timeout = self._settings.drain_timeout
        hard_end = delay + timeout + self._settings.unload_timeout + MARGIN
        for index, child in self.running.items():
            if child.serving:
                child.post(control.Drain(delay, timeout))
                self._tasks.start_soon(self._kill_after, hard_end, index, child)
            else:
                # It has nothing to finish, and may be deaf in an import.
                child.post(control.Stop())
                self._tasks.start_soon(self._kill_after, HASTE, index, child)

    def stop(self) -> None:
        """Stop at once."""
        self._stopping.set()
        for index, child in self.running.items():
            child.post(control.Stop())
            self._tasks.start_soon(self._kill_after, HASTE, index, child)

    async def _keep(self, index: int) -> None:
        """Run API process ``index``, again and again, until told to stop or it dies too often."""
        restarts = Restarts()
        while not self._stopping.is_set():
            child = await self._run_child(index)
            if self._stopping.is_set():
                log.debug("server.ended", index=index, fate=child.fate)
                break
            delay = restarts.after_death(time.monotonic())
            self._emit(Died(index, child.pid, child.fate, delay))
            log.error("server.died", index=index, fate=child.fate, restart_in=delay)
            if delay is None:
                self._owner.give_up(f"API process {index} keeps dying ({child.fate})")
                break
            self.restarts[index] += 1
            with anyio.move_on_after(delay):
                await self._stopping.wait()

    async def _run_child(self, index: int) -> Child:
        """Start API process ``index`` and return it when it has ended."""
        fds = tuple(sock.fileno() for sock in self._listeners.groups[index])
        admin: tuple[int, ...] = ()
        if self._admin is not None and not index:  # whom the supervisor answers makes no difference
            admin = tuple(sock.fileno() for sock in self._admin.groups[0])
        child = Child.start(self._command, fds + admin)
        parent = os.getpid()
        child.post(
            control.Configure(self._settings, self.sources, fds, parent, self.expected, admin)
        )
        self.running[index] = child
        self._emit(Started(index, child.pid))
        self._owner.introduce(child)
        try:
            await child.attend(partial(self._hear, index, child))
        finally:
            del self.running[index]
            self._tell_readiness()
        return child

    def _hear(self, index: int, child: Child, message: control.Report) -> None:
        match message:
            case control.ModelChanged(model, state, detail, takes):
                self._emit(ModelChanged(index, model, state, detail, takes))
            case control.Serving():
                child.serving = True
                self._emit(Serving(index, self.urls))
            case control.Ready():
                child.ready = True
                self._tell_readiness()
            case control.NotReady():
                child.ready = False
                self._tell_readiness()
            case control.Drained(aborted):
                self.aborted += aborted
            case _:
                self._owner.hear(child, message)

    def _tell_readiness(self) -> None:
        ready = len(self.running) == len(self._listeners.groups) and all(
            child.ready for child in self.running.values()
        )
        if ready != self._ready:
            self._ready = ready
            self._emit(Ready() if ready else NotReady())
            self._owner.become_ready(ready)

    async def _ask_again(self, index: int, child: Child) -> None:
        facts = {"index": index, "pid": child.pid}
        log.info("server.doubted", **facts)
        try:
            # Twice, since this process may have been stopped together with its child.
            for _ in range(2):
                with anyio.move_on_after(SILENCE / 2):
                    await child.survey()
                    log.info("server.answered", **facts)
                    return
        finally:
            self._doubted.discard(child)
        if not (self._stopping.is_set() or child.ended.is_set()):
            log.error("server.silent", **facts, seconds=SILENCE)
            child.kill()

    async def _kill_after(self, seconds: float, index: int, child: Child) -> None:
        # One that never served may be deaf in an import, and has nothing to lose.
        if await child.kill_after(seconds) and child.serving:
            self._emit(Killed(index, child.pid))
            log.error("server.killed", index=index, pid=child.pid)


class Owner(Protocol):
    """What `ApiProcesses` asks of whoever runs it."""

    def introduce(self, child: Child) -> None:
        """Tell a new API process what happened before it came."""

    def hear(self, child: Child, message: control.Report) -> None:
        """Take a message that is about the whole instance."""

    def become_ready(self, ready: bool) -> None:
        """Take it that all of them want traffic from now on, or not."""

    def give_up(self, reason: str) -> None:
        """End the instance: an API process dies too often."""
