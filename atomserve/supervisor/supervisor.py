"""The parent of an instance: owns its listening sockets, its child processes and its end."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.abc
import structlog

from atomserve import control
from atomserve.errors import ConfigError
from atomserve.settings import Settings
from atomserve.supervisor.children import Child, reap_orphans
from atomserve.supervisor.events import (
    Bound,
    Died,
    Drained,
    Draining,
    Event,
    Failed,
    Killed,
    ModelChanged,
    NotReady,
    Ready,
    Serving,
    Started,
)
from atomserve.supervisor.listeners import AddressBusy, Listeners, listen, listen_unix

EXIT_CONFIG = 2
"""A setting or plugin is wrong."""
EXIT_CRASH_LOOP = 3
"""A process died more often than it is restarted."""
EXIT_PORT_BUSY = 98
"""Someone else listens there (the number of EADDRINUSE)."""

MARGIN = 2.0
"""Seconds that a child gets beyond all that it was promised, before it is killed."""
HASTE = 0.5
"""Seconds that a child gets to leave at once, before it is killed."""

log = structlog.get_logger("atomserve.supervisor")


def run(
    settings: Settings,
    sources: Sequence[Any],
    *,
    on_event: Callable[[Event], None],
    child: Sequence[str] = (sys.executable, "-m", "atomserve.server.process"),
) -> int:
    """Serve until a signal says otherwise; return the exit code.

    Call it in the main thread: children die with the thread that started them.
    """
    try:
        listeners = _listen(settings)
    except AddressBusy as exc:
        on_event(Failed(str(exc), EXIT_PORT_BUSY))
        return EXIT_PORT_BUSY
    except ConfigError as exc:
        on_event(Failed(str(exc), EXIT_CONFIG))
        return EXIT_CONFIG
    supervisor = Supervisor(settings, tuple(sources), listeners, on_event, child)
    try:
        return anyio.run(supervisor.run)
    finally:
        listeners.close()


def _listen(settings: Settings) -> Listeners:
    if settings.uds is not None:
        return listen_unix(settings.uds, processes=settings.api_processes)
    return listen(settings.host, settings.port, processes=settings.api_processes)


class Restarts:
    """Decides whether a process that died is started again, and when."""

    def __init__(self, *, most: int = 5, within: float = 60.0) -> None:
        self._most = most
        self._within = within
        self._deaths: list[float] = []

    def after_death(self, now: float) -> float | None:
        """Return the seconds to wait before the next start, or None to give up."""
        self._deaths = [at for at in self._deaths if now - at < self._within]
        self._deaths.append(now)
        if len(self._deaths) > self._most:
            return None
        return min(0.1 * 2.0 ** (len(self._deaths) - 1), 10.0)


class Supervisor:
    """Keeps the children of one instance alive until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        sources: tuple[Any, ...],
        listeners: Listeners,
        on_event: Callable[[Event], None],
        command: Sequence[str],
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._listeners = listeners
        self._emit = on_event
        self._command = command
        self._children: dict[int, Child] = {}
        self._ready = False
        self._aborted = 0
        self._exit_code = 0
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        state = "stopping" if self._stopping.is_set() else "running"
        return f"<Supervisor {state}: {len(self._children)} of {len(self._listeners.groups)}>"

    async def run(self) -> int:
        """Start the children, and return the exit code when the last one has ended for good."""
        self._stopping = anyio.Event()
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        self._emit(Bound(self._urls))
        with anyio.open_signal_receiver(*numbers) as received:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._obey, received)
                async with anyio.create_task_group() as kept:
                    for index in range(len(self._listeners.groups)):
                        kept.start_soon(self._keep, index)
                self._tasks.cancel_scope.cancel()
        if self._aborted:
            log.warning("server.aborted", requests=self._aborted)
        self._emit(Drained(self._aborted))
        return self._exit_code

    @property
    def _urls(self) -> tuple[str, ...]:
        scheme = "https" if self._settings.certfile else "http"
        return tuple(
            place if place.startswith("unix:") else f"{scheme}://{place}"
            for place in self._listeners.places
        )

    async def _obey(self, received: Any) -> None:
        async for number in received:
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                log.info("supervisor.reload_unsupported", signal="SIGHUP")
            elif self._stopping.is_set():
                self._begin_stop()
            else:
                # On a terminal nobody withdraws traffic from us: Ctrl-C need not wait for that.
                delay = 0.0 if number == signal.SIGINT else self._settings.drain_delay
                self._begin_drain(delay)

    def _reap(self) -> None:
        for child in self._children.values():
            child.poll()
        if os.getpid() == 1:
            reap_orphans(spare=self._children.values())

    async def _keep(self, index: int) -> None:
        """Run API process ``index``, again and again, until told to stop or it dies too often."""
        restarts = Restarts()
        while not self._stopping.is_set():
            child = await self._run_child(index)
            if self._stopping.is_set():
                if not self._exit_code:  # a failure has been told already
                    log.info("server.ended", index=index, fate=child.fate)
                break
            delay = restarts.after_death(time.monotonic())
            self._emit(Died(index, child.pid, child.fate, delay))
            log.error("server.died", index=index, fate=child.fate, restart_in=delay)
            if delay is None:
                self._fail(f"API process {index} keeps dying ({child.fate})", EXIT_CRASH_LOOP)
                self._begin_drain(0.0)
                break
            with anyio.move_on_after(delay):
                await self._stopping.wait()

    async def _run_child(self, index: int) -> Child:
        """Start API process ``index`` and return it when it has ended."""
        fds = tuple(sock.fileno() for sock in self._listeners.groups[index])
        child = Child.start(self._command, fds)
        child.channel.post(
            control.Configure(self._settings, self._sources, index, fds, os.getpid())
        )
        self._children[index] = child
        self._emit(Started(index, child.pid))
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child.deliver)
                tasks.start_soon(self._listen_to, index, child)
                await child.ended.wait()
                # Its last words are already in the socket; something it forked may hold that open.
                with anyio.move_on_after(HASTE):
                    await child.silent.wait()
                tasks.cancel_scope.cancel()
        finally:
            child.kill()
            child.channel.close()
            del self._children[index]
            self._tell_readiness()
        return child

    async def _listen_to(self, index: int, child: Child) -> None:
        async for message in child.reports():
            match message:
                case control.ModelChanged(model, state, detail):
                    self._emit(ModelChanged(index, model, state, detail))
                case control.Serving():
                    child.serving = True
                    self._emit(Serving(index, self._urls))
                case control.Ready():
                    child.ready = True
                    self._tell_readiness()
                case control.NotReady():
                    child.ready = False
                    self._tell_readiness()
                case control.Drained(aborted):
                    self._aborted += aborted
                case control.Fatal(text, exit_code):
                    self._fail(text, exit_code)
                    self._begin_stop()

    def _tell_readiness(self) -> None:
        ready = len(self._children) == len(self._listeners.groups) and all(
            child.ready for child in self._children.values()
        )
        if ready != self._ready:
            self._ready = ready
            self._emit(Ready() if ready else NotReady())

    def _fail(self, message: str, exit_code: int) -> None:
        if not self._exit_code:
            self._exit_code = exit_code
            self._emit(Failed(message, exit_code))

    def _begin_drain(self, delay: float) -> None:
        """Stop in order, and kill what has not ended when everything promised has passed."""
        self._stopping.set()
        timeout = self._settings.drain_timeout
        self._emit(Draining(delay, timeout))
        for child in self._children.values():
            if child.serving:
                child.channel.post(control.Drain(delay, timeout))
            else:
                # It has nothing to finish, and may be deaf in an import.
                child.channel.post(control.Stop())
                self._tasks.start_soon(self._kill_after, HASTE, [child])
        self._tasks.start_soon(self._close_after, delay)
        hard_end = delay + timeout + self._settings.unload_timeout + MARGIN
        self._tasks.start_soon(self._kill_after, hard_end, list(self._children.values()))

    def _begin_stop(self) -> None:
        """Stop at once."""
        self._stopping.set()
        self._listeners.close()
        for child in self._children.values():
            child.channel.post(control.Stop())
        self._tasks.start_soon(self._kill_after, HASTE, list(self._children.values()))

    async def _close_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._listeners.close()

    async def _kill_after(self, seconds: float, children: list[Child]) -> None:
        await anyio.sleep(seconds)
        for index, child in self._children.items():
            if child in children and not child.ended.is_set():
                self._emit(Killed(index, child.pid))
                log.error("server.killed", index=index, pid=child.pid)
                child.kill()
