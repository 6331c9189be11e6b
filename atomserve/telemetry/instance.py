"""What all processes of an instance say of themselves, as each API process can ask for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio
import msgspec
import structlog

from atomserve.telemetry.counters import Snapshot

PATIENCE = 1.0
"""Seconds that whoever looks at the instance waits for the supervisor's answer."""

log = structlog.get_logger("atomserve.telemetry")


class OwnSlot(msgspec.Struct, frozen=True):
    """A slot as an API process sees it: ``busy`` counts the jobs that it has given it."""

    slot: int
    pid: int
    busy: int


class OwnModel(msgspec.Struct, frozen=True):
    """A model as one API process sees it."""

    state: str
    detail: str
    waiting: int
    running: int
    size: int
    """How many may wait."""
    capacity: int
    remote: bool
    """Workers serve it, of which the supervisor knows more."""
    slots: tuple[OwnSlot, ...]
    arena_bytes: int
    """Bytes of request bodies in shared memory."""


class OwnApp(msgspec.Struct, frozen=True):
    """A hosted app in one API process."""

    state: str
    detail: str


class ApiDocument(msgspec.Struct, frozen=True):
    """What an API process answers to a survey."""

    families: list[Snapshot]
    models: dict[str, OwnModel]
    in_flight: int
    apps: dict[str, OwnApp] = {}


class WorkerDocument(msgspec.Struct, frozen=True):
    """What a worker answers to a survey."""

    requests: int
    busy: int
    answer_bytes: int


class ApiReport(msgspec.Struct, frozen=True):
    """What the supervisor tells of an API process; ``counters`` is what that said itself."""

    index: int
    pid: int
    ready: bool
    restarts: int
    rss: int | None
    counters: ApiDocument | None


class WorkerReport(msgspec.Struct, frozen=True):
    """What the supervisor tells of a slot; ``document`` is what the worker in it said itself."""

    slot: int
    pid: int | None
    state: str
    restarts: int | None = None
    rss: int | None = None
    document: WorkerDocument | None = None


class ModelReport(msgspec.Struct, frozen=True):
    """What the supervisor tells of a model that workers serve."""

    state: str
    detail: str
    slots: list[WorkerReport]
    spares: list[WorkerReport]
    restarts: dict[str, int]


class SupervisorReport(msgspec.Struct, frozen=True):
    """The supervisor's process."""

    pid: int
    uptime: float
    rss: int | None


class RegistrationReport(msgspec.Struct, frozen=True):
    """How far a control plane knows of the instance; ``detail`` is why its last call failed."""

    registrar: str
    state: str
    detail: str
    instance: str
    url: str
    epoch: int
    calls: dict[str, dict[str, int]] = {}
    """How many of each kind were ``ok`` and ``failed``."""


class Report(msgspec.Struct, frozen=True):
    """The supervisor's answer: who runs, and what each of them said when it was asked.

    ``departed`` is what API processes had counted that run no more.
    """

    instance: SupervisorReport
    api_processes: list[ApiReport]
    models: dict[str, ModelReport]
    departed: list[Snapshot] = []
    partial: bool = False
    """Somebody did not answer in time, and what is told of it is older, or missing."""
    registration: RegistrationReport | None = None


class Instance:
    """Asks the supervisor; who looks while a survey is on its way shares it.

    ``ask`` sends a survey with a number; `hear` is called with the answer to it.
    """

    def __init__(self, ask: Callable[[int], None]) -> None:
        self._ask = ask
        self._numbers = itertools.count(1)
        self._asked: int | None = None
        self._since = 0.0
        self._answered = anyio.Event()
        self.latest: Report | None = None
        """The last answer that came."""

    def __repr__(self) -> str:
        return f"<Instance: {'asking' if self._asked else 'idle'}>"

    async def look(self, patience: float = PATIENCE) -> Report | None:
        """Return what the supervisor knows now; None: it did not say in ``patience`` seconds."""
        now = anyio.current_time()
        if self._asked is None or now - self._since > PATIENCE:  # that one is lost
            self._asked, self._since, self._answered = next(self._numbers), now, anyio.Event()
            self._ask(self._asked)
        answered = self._answered
        with anyio.move_on_after(patience):
            await answered.wait()
            return self.latest
        return None

    def hear(self, number: int, document: msgspec.Raw) -> None:
        """Take an answer; one that nobody waits for any more is still the latest."""
        try:
            self.latest = msgspec.json.decode(document, type=Report)
        except msgspec.DecodeError as exc:
            log.error("survey.nonsense", error=str(exc))
            return
        if number == self._asked:
            self._asked = None
            self._answered.set()
