"""The parent of an instance: owns its listening sockets, its child processes and its end."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc
import msgspec
import structlog

from atomserve import control, exits
from atomserve.configuration.linker_environment import told_by_app
from atomserve.errors import Busy, ConfigError, PluginError
from atomserve.plugins import Source, check_tables
from atomserve.registration.registrar import Registrar
from atomserve.registration.registrars import registrar_for
from atomserve.settings import ModelSettings, RegistrationSettings, Settings
from atomserve.supervisor.administration import Administration
from atomserve.supervisor.announcer import Announcer
from atomserve.supervisor.api_processes import ApiProcesses
from atomserve.supervisor.certificates import check_certificate
from atomserve.supervisor.children import Child, reap_orphans
from atomserve.supervisor.events import Bound, Drained, Draining, Event, Failed
from atomserve.supervisor.listeners import (
    AddressBusy,
    Listeners,
    listen,
    listen_for_admin,
    listen_unix,
)
from atomserve.supervisor.surveys import Surveys
from atomserve.supervisor.worker import Inherited
from atomserve.supervisor.workers import WorkerGroup

API_PROCESS = (sys.executable, "-m", "atomserve.server.process")
WORKER = (sys.executable, "-m", "atomserve.backends.worker")

_HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_SURVIVED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
"""Signals that would end or stop a process which does not take them."""

log = structlog.get_logger("atomserve.supervisor")


def run(
    settings: Settings,
    sources: Sequence[Source],
    *,
    on_event: Callable[[Event], None],
    child: Sequence[str] = API_PROCESS,
    worker: Sequence[str] = WORKER,
) -> int:
    """Serve until a signal says otherwise; return the exit code.

    Call it in the main thread: children die with the thread that started them.
    """
    try:
        check_certificate(settings)
        _check_size(settings)
        registered = settings.registration
        registrar = registrar_for(registered) if registered.registrar else None
        listeners, admin = _listen(settings)
        settings = _as_bound(settings, listeners)
    except AddressBusy as exc:
        on_event(Failed(str(exc), exits.PORT_BUSY))
        return exits.PORT_BUSY
    except ConfigError as exc:
        on_event(Failed(str(exc), exits.CONFIG))
        return exits.CONFIG

    async def supervise() -> int:
        apis = ApiProcesses(settings, listeners, child, emit=on_event, admin=admin)
        supervisor = Supervisor(settings, listeners, apis, on_event)
        for source in sources:
            supervisor.serve(source, worker, Inherited(log_fd, open_files))
        return await supervisor.run(registrar)

    open_files = _raise_open_files()
    log_fd = os.dup(sys.stderr.fileno())  # a worker's own stderr is its plugin's
    try:
        return anyio.run(supervise)
    finally:
        os.close(log_fd)
        listeners.close()
        if admin is not None:
            admin.close()


def _check_size(settings: Settings) -> None:
    """See that children can be told ``settings``, which may hold whole tables of a model's own."""
    size = len(msgspec.json.encode(settings))
    if size > control.MAX_FRAME // 2:
        raise ConfigError(
            f"the settings have {size} bytes, of which {control.MAX_FRAME // 2} are allowed; "
            "keep large tables in a file of the model's own"
        )


def _raise_open_files() -> int:
    """Let this process and API processes open what they may at most; return what it was before.

    Each client costs a descriptor, and at the limit no worker can be linked.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says no limit, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def _listen(settings: Settings) -> tuple[Listeners, Listeners | None]:
    """Bind the addresses of clients, and that of administrators if there is one."""
    if settings.uds is not None:
        listeners = listen_unix(settings.uds, processes=settings.api_processes)
    else:
        listeners = listen(settings.host, settings.port, processes=settings.api_processes)
    if settings.admin is None:
        return listeners, None
    try:
        admin = listen_for_admin(settings.admin)
    except BaseException:
        listeners.close()
        raise
    log.info("admin.listening", places=admin.places)
    return listeners, admin


def _as_bound(settings: Settings, listeners: Listeners) -> Settings:
    """Return ``settings`` with the port that 0 has become."""
    if settings.uds is not None:
        return settings
    port = listeners.groups[0][0].getsockname()[1]
    return msgspec.structs.replace(settings, port=port)


class Supervisor:
    """Keeps the children of one instance alive until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        listeners: Listeners,
        apis: ApiProcesses,
        on_event: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._apis = apis
        self._emit = on_event
        self._groups: list[WorkerGroup] = []
        self._names: dict[str, Source] = {}
        self._paths: dict[str, Source] = {}
        self._sources = 0
        self._announcer = Announcer(settings, apis, listeners.places)
        self._surveys = Surveys(apis, self._groups, self._announcer.report)
        self._app: control.AppDescribed | None = None
        self._administration = Administration(self._groups)
        self._exit_code = 0
        self._stopping = self._halted = self._hurried = False
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        state = "stopping" if self._stopping else "running"
        return f"<Supervisor {state}: {self._apis}, {self._groups}>"

    def serve(self, source: Source, worker: Sequence[str], inherited: Inherited) -> None:
        """Serve ``source`` by workers, or in the API processes: an app, or what is set so."""
        self._sources += 1
        if source.kind == "app":
            self._apis.sources += (source,)
            self._names[source.name or ""] = source
            return
        model = self._settings.models.get(source.name or "", ModelSettings())
        if (model.executor or self._settings.executor) == "thread":
            self._apis.sources += (source,)
            if source.name is not None:  # the class of another decides its name
                self._names[source.name] = source
            return
        self._apis.expected += 1
        group = WorkerGroup(
            source,
            self._settings,
            worker,
            apis=self._apis,
            owner=self,
            emit=self._emit,
            inherited=inherited,
        )
        self._groups.append(group)

    async def run(self, registrar: Registrar | None = None) -> int:
        """Start the children, and return the exit code when the last one has ended for good.

        ``registrar`` tells a control plane of the instance.
        """
        self._emit(Bound(self._apis.urls))
        with anyio.open_signal_receiver(*_HEEDED, *_SURVIVED) as received:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._obey, received)
                self._tasks.start_soon(self._announcer.run, registrar)
                async with anyio.create_task_group() as kept:
                    for group in self._groups:
                        kept.start_soon(group.run)
                    await self._apis.run(self)
                    for group in self._groups:
                        group.finish()
                if not self._hurried:
                    await self._announcer.withdraw()
                self._tasks.cancel_scope.cancel()
        if self._apis.aborted:
            log.warning("server.aborted", requests=self._apis.aborted)
        self._emit(Drained(self._apis.aborted))
        return self._exit_code

    def introduce(self, child: Child) -> None:
        """Tell a new API process what workers serve, and link it to them."""
        for group in self._groups:
            group.introduce(child)
        self._announcer.introduce(child)
        child.post(control.Serve())

    def become_ready(self, ready: bool) -> None:
        """Take it that all API processes want traffic from now on, or not."""
        self._announcer.become_ready(ready)

    def announce(self, registration: RegistrationSettings) -> None:
        """Be registered as ``registration`` says from now on, instead of as the settings do.

        It is for what is known only after the start, such as what an app says that is served.
        Settings that do not fit end the instance.
        """
        try:
            self._announcer.announce(registration)
        except ConfigError as exc:
            self.fail(str(exc), exits.CONFIG)

    def hear(self, child: Child, message: control.Report) -> None:
        """Take what an API process says about the whole instance."""
        match message:
            case control.Condemned(model):
                for group in self._of(model):
                    group.condemn(message)
            case control.Excused(model):
                for group in self._of(model):
                    group.excuse(message)
            case control.AppDescribed():
                self.learn_app(message)
            case control.Survey(number):
                self._tasks.start_soon(self._surveys.answer, child, number)
            case control.LoadResource() | control.UnloadResource() | control.ListResources():
                self._administer(child, message)
            case control.Fatal(text, exit_code):
                self.fail(text, exit_code)

    def claim(self, model: str, source: Source, paths: Sequence[str] = ()) -> bool:
        """Take ``model`` and ``paths`` for ``source``; False if refused, which ends all."""
        try:
            other = self._names.setdefault(model, source)
            if other is not source:
                raise PluginError(
                    f'two models are called "{model}": {other} and {source}; '
                    "give one of them another name with NAME="
                )
            for path in paths:
                other = self._paths.setdefault(path, source)
                if other is not source:
                    raise PluginError(
                        f"two models are asked under {path}: {other} and {source}; "
                        "give one of them a name, and so a path, of its own with NAME="
                    )
            if len(self._names) == self._sources:
                check_tables(self._settings, self._names)
        except PluginError as exc:
            self.fail(str(exc), exits.CONFIG)
            return False
        return True

    def learn_app(self, described: control.AppDescribed) -> None:
        """Take what the hosted app's file has said; all API processes say it, the first counts."""
        if self._app is None:
            self._app = described
            log.info("app.described", prefix=described.prefix, meta=bool(described.meta))
            self._announce_app(described)

    def _announce_app(self, described: control.AppDescribed) -> None:
        """Register as the file says, in what the operator leaves open."""
        said = {"ATOM_API_PREFIX": described.prefix, "META": described.meta}
        environ = {**os.environ, **{name: value for name, value in said.items() if value}}
        try:
            registration = told_by_app(self._settings, environ).registration
        except ConfigError as exc:
            return self.fail(str(exc), exits.CONFIG)
        if registration != self._settings.registration:
            self.announce(registration)
        return None

    def fail(self, message: str, exit_code: int) -> None:
        """End the instance at once."""
        self._tell_failure(message, exit_code)
        self._tasks.start_soon(self._announcer.withdraw)
        self._begin_stop()

    def give_up(self, reason: str) -> None:
        """End the instance in order: an API process dies too often."""
        self._tell_failure(reason, exits.CRASH_LOOP)
        self._begin_drain(0.0)

    async def _obey(self, received: Any) -> None:
        async for number in received:
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                log.info("supervisor.reload_unsupported", signal="SIGHUP")
            elif number in _SURVIVED:
                continue
            elif self._stopping:
                self._hurried = True
                self._begin_stop()
            else:
                # On a terminal nobody withdraws traffic from us: Ctrl-C need not wait for that.
                delay = 0.0 if number == signal.SIGINT else self._settings.drain_delay
                self._begin_drain(delay)

    def _administer(self, child: Child, message: control.Administration) -> None:
        files: list[int] = []
        if isinstance(message, control.LoadResource):
            try:
                files += child.descriptors(message.descriptors)
            except control.Lacking as exc:
                child.post(control.Told(message.number, code=Busy.code, detail=str(exc)))
                return
        self._tasks.start_soon(self._administration.answer, child, message, files)

    def _of(self, model: str) -> Iterator[WorkerGroup]:
        yield from (group for group in self._groups if group.standing.model == model)

    def _children(self) -> Iterator[Child]:
        yield from self._apis.running.values()
        for group in self._groups:
            yield from (worker.child for worker in group.workers)

    def _reap(self) -> None:
        children = list(self._children())
        for child in children:
            child.poll()
        if os.getpid() == 1:
            reap_orphans(spare=children)

    def _tell_failure(self, message: str, exit_code: int) -> None:
        if not self._exit_code:
            self._exit_code = exit_code
            self._emit(Failed(message, exit_code))

    def _begin_drain(self, delay: float) -> None:
        """Stop in order: the API processes first, which still need the workers.

        Nobody is sent here any more before connections are refused: what routes requests hears of
        the end first.
        """
        self._stopping = True
        self._emit(Draining(delay, self._settings.drain_timeout))
        if self._announcer.claimed:
            self._apis.hide()
            self._tasks.start_soon(self._drain_when_withdrawn, delay)
        else:
            self._tasks.start_soon(self._announcer.withdraw)
            self._drain(delay)

    async def _drain_when_withdrawn(self, delay: float) -> None:
        await self._announcer.withdraw()
        if not self._halted:
            self._drain(delay)

    def _drain(self, delay: float) -> None:
        self._apis.drain(delay)
        self._tasks.start_soon(self._close_after, delay)

    def _begin_stop(self) -> None:
        """Stop at once."""
        self._stopping = self._halted = True
        self._listeners.close()
        self._apis.stop()
        for group in self._groups:
            group.stop()

    async def _close_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._listeners.close()
