"""The API process: serves one application until its supervisor says otherwise."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import anyio
import msgspec
import structlog

from atomserve import control, exits, lifeline
from atomserve.errors import AtomError
from atomserve.heap import keep_freed_memory, spare_the_old
from atomserve.hosting.lifespan import ASGIApp, Lifespan, without_lifespan
from atomserve.server.adapters import Adapter, ignore_handshakes, serve_hypercorn
from atomserve.server.granian_adapter import serve_granian
from atomserve.settings import Settings

LINGER = 1.0
"""Seconds that connections get to flush and close when no request is in flight any more."""
GOODBYE = 0.2
"""Seconds that requests get to be refused in when the process has to leave at once."""

ADAPTERS: dict[str, Adapter] = {"hypercorn": serve_hypercorn, "granian": serve_granian}

log = structlog.get_logger("atomserve.server")


class Orders(Protocol):
    """What the supervisor says of models, workers and surveys, obeyed by the application."""

    def attach(self, report: Callable[..., None]) -> None:
        """From now on call ``report`` with what the supervisor must know, and descriptors."""

    def remote(self, model: str) -> bool:
        """Say whether workers serve ``model``."""

    def obey(self, order: control.Order) -> None:
        """Do what the supervisor says; returns at once."""

    async def link(self, order: control.Link, frames: socket.socket, side: socket.socket) -> None:
        """Use a worker that has loaded."""


class Application(Protocol):
    """What is served: an ASGI application that can be watched, drained and aborted."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def watch(self, callback: Callable[[str, str, str], None]) -> None:
        """Call ``callback(model, state, detail)`` on the loop at each change."""

    @property
    def ready(self) -> bool: ...

    def begin_drain(self) -> None:
        """Answer not ready from now on."""

    def abort(self) -> None:
        """Answer everything in flight with 503 ``draining``."""

    @property
    def admin(self) -> ASGIApp:
        """What administrators are served, while the application itself is served."""

    @property
    def orders(self) -> Orders:
        """What obeys the supervisor."""

    def takes(self, model: str) -> str:
        """Say what requests to ``model`` are: calls, batches of them, or sessions."""

    @property
    def in_flight(self) -> int: ...

    async def idle(self) -> None:
        """Return when nothing is in flight."""


Create = Callable[[Settings, tuple[Any, ...], int], Application]


class ApiProcess:
    """Runs an application on an HTTP server, obeys the supervisor, reports to it."""

    def __init__(
        self,
        app: Application,
        configure: control.Configure,
        channel: control.Channel[control.Order],
    ) -> None:
        self._app = app
        self._lifespan = Lifespan(app)
        self._settings = configure.settings
        self._listeners = configure.listeners
        self._admin = configure.admin
        self._channel = channel
        self._ready = False
        self._ordered: anyio.Event = anyio.Event()
        self._order: control.Drain
        self._introduced = anyio.Event()
        self._serving = anyio.Event()
        self._closing = anyio.Event()
        self._closed = anyio.Event()

    async def run(self) -> NoReturn:
        """Serve until drained; ends the process, since a plugin's thread may never return."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._channel.deliver)
            tasks.start_soon(self._obey)
            self._app.watch(self._tell_change)
            self._app.orders.attach(self._channel.post)
            tasks.start_soon(self._lifespan.run)
            await self._lifespan.started.wait()
            await self._introduced.wait()  # who came in the place of another has workers at once
            tasks.start_soon(self._serve)
            await self._serving.wait()
            if self._admin:
                tasks.start_soon(self._serve_admin)
            spare_the_old()
            self._channel.post(control.Serving())
            self._tell_readiness()
            await self._ordered.wait()
            aborted = await self._drain(self._order)
            with anyio.move_on_after(self._settings.unload_timeout):
                await self._lifespan.shut_down()
            self._channel.post(control.Drained(aborted))
            await self._channel.flush()
            lifeline.leave(0)
        raise AssertionError("unreachable")

    async def _serve(self) -> None:
        adapter = ADAPTERS[self._settings.server]
        try:
            await adapter(
                self._lifespan,
                self._settings,
                self._listeners,
                serving=self._serving,
                stop=self._closing,
            )
        except Exception:  # whatever one connection raises ends Hypercorn's drain
            if not self._closing.is_set():
                raise
            log.warning("server.connection_failed", exc_info=True)
        else:
            self._closed.set()

    async def _serve_admin(self) -> None:
        """Serve administrators until the drain's end; they are close by, and need no TLS."""
        plain = msgspec.structs.replace(self._settings, certfile=None, keyfile=None)
        adapter = ADAPTERS[plain.server]
        served = without_lifespan(self._app.admin)
        try:
            await adapter(served, plain, self._admin, serving=anyio.Event(), stop=self._closing)
        except Exception:  # as above
            if not self._closing.is_set():
                raise
            log.warning("server.connection_failed", exc_info=True)

    async def _obey(self) -> None:
        async for order in self._channel:
            match order:
                case control.Drain():
                    self._order = order
                    self._ordered.set()
                case control.Unready():
                    self._app.begin_drain()
                    self._tell_readiness()
                case control.Stop():
                    await self._leave(0)
                case control.Serve():
                    self._introduced.set()
                case control.Link():
                    await self._link(order)
                case _:
                    await self._lifespan.started.wait()
                    self._app.orders.obey(order)
        await self._leave(exits.CRASHED)  # the supervisor is gone

    async def _link(self, order: control.Link) -> None:
        """Use a worker; one that cannot be reached is of no use to anybody."""
        try:
            found = self._channel.descriptors(order.descriptors)
        except control.Lacking as exc:
            log.error("server.not_linked", model=order.model, slot=order.slot, error=str(exc))
            lost = control.Condemned(order.model, order.slot, order.pid, "unlinked")
            self._channel.post(lost)
            return
        await self._lifespan.started.wait()
        frames, side = [socket.socket(fileno=fd) for fd in found]
        await self._app.orders.link(order, frames, side)

    async def _drain(self, order: control.Drain) -> int:
        """Finish what is in flight and return how many requests had to be aborted."""
        self._app.begin_drain()
        self._tell_readiness()
        await anyio.sleep(order.delay)
        self._closing.set()
        with anyio.move_on_after(order.timeout):
            await self._quiet()
        if aborted := self._app.in_flight:
            self._app.abort()
            with anyio.move_on_after(LINGER):
                await self._quiet()
        return aborted

    async def _quiet(self) -> None:
        """Return when the HTTP server has ended, or only idle connections keep it."""
        while True:
            await self._app.idle()
            with anyio.move_on_after(LINGER):
                await self._closed.wait()
            if not self._app.in_flight:
                return

    async def _leave(self, code: int) -> NoReturn:
        self._app.begin_drain()
        self._app.abort()
        self._closing.set()
        with anyio.move_on_after(GOODBYE):
            await self._app.idle()
            await self._closed.wait()  # a server with threads of its own may still be writing
        lifeline.leave(code)

    def _tell_change(self, model: str, state: str, detail: str) -> None:
        if not self._app.orders.remote(model):  # of those the supervisor knows more
            takes = self._app.takes(model)
            self._channel.post(control.ModelChanged(model, state, detail, takes))
        self._tell_readiness()

    def _tell_readiness(self) -> None:
        ready = self._app.ready and self._serving.is_set()
        if ready != self._ready:
            self._ready = ready
            self._channel.post(control.Ready() if ready else control.NotReady())


def main(create: Create) -> NoReturn:
    """Serve as the child whose control socket is the last argument of the command line."""
    lifeline.hold()
    sock = socket.socket(fileno=int(sys.argv[-1]))
    try:
        configure = control.read_first(sock, control.Configure)
    except control.BrokenChannel:
        lifeline.leave(exits.CRASHED)
    if os.getppid() != configure.parent:  # it died before the lifeline held
        lifeline.leave(exits.CRASHED)
    keep_freed_memory()
    os.set_inheritable(sock.fileno(), False)  # what a plugin starts must not hold it open
    try:
        app = create(configure.settings, configure.sources, configure.expected)
    except AtomError as exc:
        sock.sendall(control.frame(control.Fatal(str(exc), exits.CONFIG)))
        lifeline.leave(exits.CONFIG)
    quick = importlib.util.find_spec("uvloop") is not None
    try:
        anyio.run(_run, app, configure, sock, backend_options={"use_uvloop": quick})
    finally:
        # A KeyboardInterrupt of a hosted app ends the loop from below; without this the process
        # would wait for the threads of that loop, alive to its supervisor and deaf to everybody.
        sys.excepthook(*sys.exc_info())
        lifeline.leave(exits.CRASHED)
    raise AssertionError("unreachable")


async def _run(app: Application, configure: control.Configure, sock: socket.socket) -> NoReturn:
    ignore_handshakes(asyncio.get_running_loop())
    channel: control.Channel[control.Order] = control.Channel(sock, control.Order)
    try:
        await ApiProcess(app, configure, channel).run()
    except* AtomError as group:
        channel.post(control.Fatal(str(_first(group)), exits.CONFIG))
        await channel.flush()
        lifeline.leave(exits.CONFIG)
    finally:
        sys.excepthook(*sys.exc_info())  # only an error comes this way
        lifeline.leave(exits.CRASHED)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def create_app(settings: Settings, sources: tuple[Any, ...], expected: int) -> Application:
    """Configure the log of this process and build the application that it serves."""
    from atomserve import app
    from atomserve.plugins import Source
    from atomserve.telemetry import logs, skywalking

    sink = logs.configure_logging(settings.log_format, settings.log_level, kept=settings.logs)
    skywalking.start_agent(settings.skywalking, meters=True)
    access = logs.AccessLog(sink, format=settings.log_format) if settings.access_log else None
    found = msgspec.convert(sources, tuple[Source, ...])
    return app.create(settings, found, access, expected=expected)


if __name__ == "__main__":
    main(create_app)
