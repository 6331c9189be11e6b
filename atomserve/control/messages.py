"""The orders that the supervisor gives its children, and what they report to it."""

from __future__ import annotations

from typing import Any

import msgspec

from atomserve.engine.options import Options
from atomserve.settings import Settings

BACKLOG = 1024
"""Connections that may wait to be accepted, for each listening socket."""
MOST_TEXT = 2048
"""Characters of a plugin's own words that are passed on; an error may quote all its input."""


def _shorten(message: msgspec.Struct, field: str) -> None:
    """Keep of the words in ``field`` what fits into a message, and into UTF-8."""
    words = getattr(message, field)[:MOST_TEXT].encode(errors="replace").decode()
    msgspec.structs.force_setattr(message, field, words)


# From the supervisor.


class Configure(msgspec.Struct, frozen=True, tag=True):
    """Always the first message: everything that a child has to know."""

    settings: Settings
    sources: tuple[Any, ...]
    """What to serve; plain data here, for the child's application to convert."""
    listeners: tuple[int, ...]
    """File descriptors of the listening sockets, open in the child."""
    parent: int
    """The supervisor's process id."""
    expected: int = 0
    """Models that workers will serve; `Offer` brings each of them."""
    admin: tuple[int, ...] = ()
    """File descriptors of the administration's listening sockets: of one API process alone."""


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Stop in order: not ready, accept for ``delay``, finish within ``timeout`` seconds, leave."""

    delay: float
    timeout: float


class Unready(msgspec.Struct, frozen=True, tag=True):
    """To an API process: answer not ready from now on; `Drain` follows."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Leave at once."""


class ConfigureWorker(msgspec.Struct, frozen=True, tag=True):
    """The first message to a worker."""

    settings: Settings
    source: Any
    """Which wrapper to run; plain data here."""
    deal: int
    """Which of its model's devices it gets, counted round from 0."""
    log: int
    """File descriptor of the instance's log: stdout and stderr are the plugin's."""
    parent: int
    """The supervisor's process id."""
    open_files: int | None = None
    """How many files it may open: for a plugin the usual limit, not the server's own."""


class Offer(msgspec.Struct, frozen=True, tag=True):
    """To an API process: a model that workers serve; again whenever what it offers has changed."""

    model: str
    signature: msgspec.Raw
    """An `atomserve.signature.Signature` as JSON: this channel carries it unread."""
    options: Options


class Host(msgspec.Struct, frozen=True, tag=True):
    """To an API process: serve this yourself; one of the ``expected`` wants to run in threads."""

    source: Any


class Serve(msgspec.Struct, frozen=True, tag=True):
    """To an API process: accept connections; what there was to say of the models has been said."""


class ModelState(msgspec.Struct, frozen=True, tag=True):
    """To an API process: how a model that workers serve is doing; failed is for good."""

    model: str
    state: str
    detail: str = ""

    def __post_init__(self) -> None:
        _shorten(self, "detail")


class RegistrationState(msgspec.Struct, frozen=True, tag=True):
    """To an API process: whether a control plane knows of the instance, for who asks."""

    state: str
    detail: str = ""


class Link(msgspec.Struct, frozen=True, tag=True):
    """To both ends: talk to each other over the two descriptors that come with this message.

    The first is a stream for `atomserve.transport.frames`, the second a SOCK_SEQPACKET socket for
    `atomserve.transport.descriptors`.
    """

    model: str
    slot: int
    pid: int
    """The worker's process."""
    descriptors: int = 2


class Unlink(msgspec.Struct, frozen=True, tag=True):
    """To an API process: give this worker no more jobs, and close the link when it has none."""

    model: str
    pid: int


class Lost(msgspec.Struct, frozen=True, tag=True):
    """To an API process: this worker has ended, whatever its link still says."""

    model: str
    pid: int


class Retire(msgspec.Struct, frozen=True, tag=True):
    """To a worker: when every link has closed, unload and leave with exit code 0."""


class Survey(msgspec.Struct, frozen=True, tag=True):
    """To any child: say what you know of yourself; the answer is `Surveyed` with this number."""

    number: int


class Surveyed(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Survey`, either way."""

    number: int
    document: msgspec.Raw


class LoadResource(msgspec.Struct, frozen=True, tag=True):
    """To the supervisor, and from there to workers: load this beside the wrapper of ``model``.

    The one descriptor that comes with it is a file of ``size`` bytes that nobody can change any
    more. A worker answers with `ResourceDone`, the supervisor with `Told`, both with ``number``.
    """

    number: int
    model: str
    resource: str
    media_type: str
    size: int
    descriptors: int = 1


class UnloadResource(msgspec.Struct, frozen=True, tag=True):
    """To the supervisor, and from there to workers, as `LoadResource`: forget it."""

    number: int
    model: str
    resource: str


class Told(msgspec.Struct, frozen=True, tag=True):
    """To an API process: the answer to what its administrator asked, or the error's ``code``."""

    number: int
    document: msgspec.Raw = msgspec.Raw(b"null")
    code: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        _shorten(self, "detail")


Order = (
    Configure
    | ConfigureWorker
    | Drain
    | Unready
    | Stop
    | Offer
    | Host
    | Serve
    | ModelState
    | RegistrationState
    | Link
    | Unlink
    | Lost
    | Retire
    | Survey
    | Surveyed
    | LoadResource
    | UnloadResource
    | Told
)


# From a child.


class Described(msgspec.Struct, frozen=True, tag=True):
    """From a worker, before it loads: the model it serves."""

    model: str
    signature: msgspec.Raw
    options: Options
    resources: bool = False
    """Whether it obeys `LoadResource`."""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """From a worker: loaded, examples run; ready for links."""

    seconds: float


class Broken(msgspec.Struct, frozen=True, tag=True):
    """From a worker, which ends after this: the wrapper cannot load, or an example failed."""

    detail: str

    def __post_init__(self) -> None:
        _shorten(self, "detail")


class ResourceDone(msgspec.Struct, frozen=True, tag=True):
    """From a worker: the resource is loaded or unloaded, unless there is an error's ``code``."""

    number: int
    code: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        _shorten(self, "detail")


class ListResources(msgspec.Struct, frozen=True, tag=True):
    """From an API process: which resources has each model? The answer is `Told`."""

    number: int


class Tired(msgspec.Struct, frozen=True, tag=True):
    """From a worker: replace me, because of ``reason`` (max_requests or max_memory)."""

    reason: str


class Condemned(msgspec.Struct, frozen=True, tag=True):
    """From an API process: this worker must be replaced, since a job of it does not end.

    ``reason`` is ``hung`` (over its deadline and grace), ``cancelled`` (nobody waits any more,
    and the model says ``cancel = "kill"``, or the server stops) or ``unlinked`` (its link has
    ended, and neither `Unlink` nor `Lost` says why; it may do the jobs of others).
    """

    model: str
    slot: int
    pid: int
    reason: str


class AppDescribed(msgspec.Struct, frozen=True, tag=True):
    """From an API process: what the hosted app's file said of itself when it was imported."""

    prefix: str
    """Put before its routes."""
    meta: str
    """The text of META, JSON that tells whom to register with; empty if there is none."""


class Excused(msgspec.Struct, frozen=True, tag=True):
    """From an API process: do not hold this worker's death, past or to come, against its model.

    It looks for the job that kills whoever runs it, and gives the others of a batch to the next
    worker: that one is wanted at once. Such trust has a bound, `atomserve.supervisor.workers`.
    """

    model: str
    slot: int
    pid: int


class ModelChanged(msgspec.Struct, frozen=True, tag=True):
    """A model entered a state: loading, ready, failed."""

    model: str
    state: str
    detail: str = ""
    takes: str = "call"

    def __post_init__(self) -> None:
        _shorten(self, "detail")


class Serving(msgspec.Struct, frozen=True, tag=True):
    """The child accepts connections."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The child wants traffic."""


class NotReady(msgspec.Struct, frozen=True, tag=True):
    """The child wants no traffic."""


class Drained(msgspec.Struct, frozen=True, tag=True):
    """The child has stopped in order; ``aborted`` requests did not finish in time."""

    aborted: int


class Fatal(msgspec.Struct, frozen=True, tag=True):
    """Starting again would not help: the whole instance ends with ``exit_code``."""

    message: str
    exit_code: int

    def __post_init__(self) -> None:
        _shorten(self, "message")


Report = (
    ModelChanged
    | Serving
    | Ready
    | NotReady
    | Drained
    | Fatal
    | Described
    | Loaded
    | Broken
    | Tired
    | Condemned
    | Excused
    | AppDescribed
    | Survey
    | Surveyed
    | LoadResource
    | UnloadResource
    | ResourceDone
    | ListResources
)

Administration = LoadResource | UnloadResource | ListResources
"""What an administrator asks, through an API process."""
