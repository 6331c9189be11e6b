"""The instance's place at a control plane, as the supervisor keeps it and may have to change it."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import suppress

import anyio
import anyio.abc
import msgspec
import structlog

from atomserve import control
from atomserve.registration.address import advertised
from atomserve.registration.registrar import Announced, Load, Registrar
from atomserve.registration.registrars import registrar_for
from atomserve.registration.registration import Registration, boot
from atomserve.settings import RegistrationSettings, Settings
from atomserve.supervisor.api_processes import ApiProcesses
from atomserve.supervisor.children import Child
from atomserve.telemetry.instance import RegistrationReport

PATIENCE = 0.5
"""Seconds that an API process gets to say how busy it is."""

log = structlog.get_logger("atomserve.supervisor")


class Tally(msgspec.Struct):
    """What is read here of `atomserve.telemetry.instance.OwnModel`."""

    waiting: int = 0
    running: int = 0
    size: int = 0


class Busy(msgspec.Struct):
    """What is read here of `atomserve.telemetry.instance.ApiDocument`."""

    models: dict[str, Tally] = {}
    in_flight: int = 0


class Announcer:
    """Has the instance registered while it is ready; without a registrar it does nothing."""

    def __init__(self, settings: Settings, apis: ApiProcesses, places: Sequence[str]) -> None:
        self._settings = settings
        self._apis = apis
        self._places = places
        self._boot = boot()
        self._current: Registration | None = None
        self._state: control.RegistrationState | None = None
        self._ready = False
        self._leaving = False
        self._replacing = anyio.Lock()
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<Announcer: {self._current or 'nobody is told'}>"

    @property
    def claimed(self) -> bool:
        """Whether there is something to withdraw."""
        return self._current is not None and self._current.claimed

    def report(self) -> RegistrationReport | None:
        """Return how it stands, for who looks at the instance."""
        return None if self._current is None else self._current.report()

    async def run(self, registrar: Registrar | None) -> None:
        """Keep the instance registered by ``registrar``, or by what `announce` says later."""
        async with anyio.create_task_group() as self._tasks:
            if registrar is not None:
                self._begin(self._settings.registration, registrar, epoch=0)
            await anyio.sleep_forever()

    def announce(self, settings: RegistrationSettings) -> None:
        """Be registered as ``settings`` say from now on; what was told before is withdrawn.

        Raises:
            ConfigError: the settings do not fit, and nothing changes.
        """
        registrar = registrar_for(settings) if settings.registrar else None
        self._tasks.start_soon(self._replace, settings, registrar)

    def become_ready(self, ready: bool) -> None:
        """Take it that the instance wants traffic from now on, or not."""
        self._ready = ready
        if self._current is not None:
            self._current.become_ready(ready)

    def introduce(self, child: Child) -> None:
        """Tell a new API process how the registration stands."""
        if self._state is not None:
            child.post(self._state)

    async def withdraw(self) -> None:
        """Tell the control plane that the instance goes, in the time that this may take."""
        self._leaving = True
        if self._current is not None:
            await self._current.withdraw()

    def _begin(self, settings: RegistrationSettings, registrar: Registrar, *, epoch: int) -> None:
        settings_now = msgspec.structs.replace(self._settings, registration=settings)
        address = advertised(settings_now, self._places)
        instance = settings.instance or socket.gethostname()
        if address.doubt and not settings.options.get("requestUrl"):
            facts = {"url": address.url, "reason": address.doubt}
            log.warning("registration.unreachable", **facts, advice="set registration.advertise")
        # The clock makes it grow from boot to boot; within one it must not be asked again.
        epoch = epoch or int(time.time() * 1000)
        self._current = Registration(
            settings,
            registrar,
            Announced(instance, address.url, self._boot, epoch),
            ask=self._load,
            tell=self._tell,
        )
        self._tell("waiting", "")
        if self._ready:
            self._current.become_ready(True)
        self._tasks.start_soon(self._current.run)

    async def _replace(self, settings: RegistrationSettings, registrar: Registrar | None) -> None:
        async with self._replacing:
            old, epoch = self._current, 0
            if old is not None:
                await old.withdraw()
                epoch = old.report().epoch
            if registrar is not None and not self._leaving:
                self._begin(settings, registrar, epoch=epoch)

    def _tell(self, state: str, detail: str) -> None:
        self._state = control.RegistrationState(state, detail)
        self._apis.post(self._state)

    async def _load(self) -> Load:
        """Add up what the API processes say at once; who is too busy to say is left out."""
        found: list[Busy] = []

        async def ask(child: Child) -> None:
            document = await child.survey()
            with suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(document, type=Busy))

        with anyio.move_on_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for child in self._apis.running.values():
                    if child.serving:
                        tasks.start_soon(ask, child)
        models = [model for busy in found for model in busy.models.values()]
        return Load(
            in_flight=sum(busy.in_flight for busy in found),
            waiting=sum(model.waiting for model in models),
            running=sum(model.running for model in models),
            places=sum(model.size for model in models),
        )
