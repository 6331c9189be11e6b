"""The state of a whole instance as data, for programs and for whoever shows it to people."""

from __future__ import annotations

import msgspec

from atomserve.telemetry.instance import RegistrationReport, SupervisorReport


class Queue(msgspec.Struct, frozen=True):
    """The jobs that wait in all API processes, and how many may."""

    waiting: int
    size: int


class SlotStatus(msgspec.Struct, frozen=True):
    """One running copy of a wrapper; what is not known is None."""

    slot: int | None
    """None: a spare."""
    pid: int | None
    state: str
    busy: int | None = None
    """Jobs that it runs, at most the model's capacity."""
    requests: int | None = None
    """Jobs that this worker has ended."""
    restarts: int | None = None
    rss: int | None = None
    """Bytes of memory."""
    arena_bytes: int | None = None
    """Bytes of large answers in shared memory."""


class ModelStatus(msgspec.Struct, frozen=True):
    """A model in all processes."""

    state: str
    detail: str
    queue: Queue
    running: int
    capacity: int
    slots: list[SlotStatus]
    restarts: dict[str, int]
    """Workers that were replaced, by the cause."""
    arena_bytes: int
    """Bytes of large request bodies in shared memory."""


class AppStatus(msgspec.Struct, frozen=True):
    """A hosted app in all API processes: ready where it is ready in all of them."""

    state: str
    detail: str
    ready: int
    """API processes that it is ready in."""


class ApiStatus(msgspec.Struct, frozen=True):
    """One API process; a lone one has no index."""

    index: int | None
    pid: int
    ready: bool
    in_flight: int | None
    restarts: int | None
    rss: int | None


class Status(msgspec.Struct, frozen=True):
    """An instance at one moment; ``partial``: not everybody answered in time."""

    partial: bool
    ready: bool
    supervisor: SupervisorReport | None
    api_processes: list[ApiStatus]
    models: dict[str, ModelStatus]
    apps: dict[str, AppStatus] = {}
    registration: RegistrationReport | None = None
    """None: no control plane is told of the instance."""
