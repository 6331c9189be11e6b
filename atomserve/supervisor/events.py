"""What a supervisor tells whoever runs it, such as the command line that prints it."""

from __future__ import annotations

import msgspec


class Bound(msgspec.Struct, frozen=True):
    """The sockets are bound; connections wait until a process serves."""

    urls: tuple[str, ...]


class Started(msgspec.Struct, frozen=True):
    """API process ``index`` runs, and does not serve yet."""

    index: int
    pid: int


class ModelChanged(msgspec.Struct, frozen=True):
    """A model entered a state: in API process ``index``, or in workers (None).

    ``takes`` is its signature's, once it is ready, and ``paths`` where other dialects ask.
    """

    index: int | None
    model: str
    state: str
    detail: str
    takes: str = "call"
    paths: tuple[str, ...] = ()


class WorkerStarted(msgspec.Struct, frozen=True):
    """A worker runs, and does not serve yet; ``model`` is the source's name at first."""

    model: str
    slot: int
    pid: int


class WorkerEnded(msgspec.Struct, frozen=True):
    """A worker ended; it is replaced in ``restart_in`` seconds at the earliest, or never.

    ``cause`` is ``died``, ``broken``, ``hung``, ``unlinked``, ``startup_timeout``, ``cancelled``,
    ``max_requests``, ``max_memory`` or ``stopped``.
    """

    model: str
    slot: int
    pid: int
    cause: str
    reason: str
    restart_in: float | None


class Serving(msgspec.Struct, frozen=True):
    """API process ``index`` accepts connections at ``urls``."""

    index: int
    urls: tuple[str, ...]


class Ready(msgspec.Struct, frozen=True):
    """Every API process wants traffic."""


class NotReady(msgspec.Struct, frozen=True):
    """The instance was ready, and is not any more."""


class Died(msgspec.Struct, frozen=True):
    """API process ``index`` ended unasked; it is replaced in ``restart_in`` seconds, or never."""

    index: int
    pid: int
    reason: str
    restart_in: float | None


class Draining(msgspec.Struct, frozen=True):
    """The instance was asked to stop."""

    delay: float
    timeout: float


class Drained(msgspec.Struct, frozen=True):
    """The instance has stopped; ``aborted`` requests did not finish in time."""

    aborted: int


class Killed(msgspec.Struct, frozen=True):
    """API process ``index`` did not stop when it had to, and was killed."""

    index: int
    pid: int


class Failed(msgspec.Struct, frozen=True):
    """The instance cannot run: one line for people, and the exit code."""

    message: str
    exit_code: int


Event = (
    Bound | Started | ModelChanged | WorkerStarted | WorkerEnded | Serving | Ready | NotReady
    | Died | Draining | Drained | Killed | Failed
)  # fmt: skip
