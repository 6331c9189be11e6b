"""Every failure that atomserve raises on purpose, each with its stable code and HTTP status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with a request: where (a JSON path such as ``$.boxes[2]``) and what."""

    path: str
    message: str


class AtomError(Exception):
    """The root: whatever atomserve raises on purpose is one of these.

    ``str(error)`` is safe to show to a client; causes travel as ``__cause__`` and are only logged.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[Fault] = (),
        retry_after: float | None = None,
        error_id: str = "",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(detail or self.title)
        self.errors = tuple(errors)
        self.retry_after = retry_after
        self.error_id = error_id
        self.headers = tuple(headers)
        """What the answer says beside the error, whatever surface writes it."""

    @property
    def title(self) -> str:
        """The first sentence of the class's docstring: what a client meets."""
        return (type(self).__doc__ or "").partition("\n")[0].rstrip(".:")

    @property
    def detail(self) -> str:
        return str(self)


# Before anything is served: one line on the terminal, and `exits.CONFIG`.


class ConfigError(AtomError):
    """A setting, flag or configuration file is wrong."""

    code = "config"


class PluginError(AtomError):
    """A plugin that was asked for cannot be found, imported or validated."""

    code = "plugin"


class MissingExtra(AtomError):
    """An optional dependency is needed and not installed."""

    code = "missing_extra"


class BadSeal(AtomError):
    """A sealed file is none, was altered, or was sealed with another key."""

    code = "bad_seal"


# The request is at fault.


class BadRequest(AtomError):
    """The request cannot be read as what it says it is."""

    code, status = "bad_request", 400


class SourceRefused(BadRequest):
    """What the request names instead of holding it may not be opened."""

    code = "source_refused"


class NotFound(AtomError):
    """Nothing is served under this path."""

    code, status = "not_found", 404


class ModelNotFound(NotFound):
    """No model is served under this name."""

    code = "model_not_found"


class MethodNotAllowed(AtomError):
    """The path exists and does not take this method."""

    code, status = "method_not_allowed", 405

    def __init__(self, detail: str = "", *, allow: Sequence[str] = ("POST",)) -> None:
        super().__init__(detail, headers=((b"allow", ", ".join(allow).encode()),))


class NotAcceptable(AtomError):
    """The answer has no form that the Accept header allows."""

    code, status = "not_acceptable", 406


class TooSlow(AtomError):
    """The request's body arrived too slowly."""

    code, status = "request_timeout", 408


class TooLarge(AtomError):
    """The request's body is over the limit."""

    code, status = "too_large", 413


class UnsupportedMedia(AtomError):
    """The request's content type is not one that this model takes."""

    code, status = "unsupported_media_type", 415


class Invalid(AtomError):
    """The request is well formed and does not fit the model's inputs."""

    code, status = "invalid", 422


class HeadersTooLarge(AtomError):
    """The request's headers are too many or too large."""

    code, status = "headers_too_large", 431


# The service is at its limits.


class Overloaded(AtomError):
    """The model has more to do than it can: retry later or elsewhere.

    ``limit`` is what was used up, ``remaining`` what is left of it, ``reset`` the seconds until
    there is more: the facts of the RateLimit header fields.
    """

    code, status = "overloaded", 429
    policy: ClassVar[str] = "queue"
    """The name of the limit in those fields."""

    def __init__(
        self,
        detail: str = "",
        *,
        errors: Sequence[Fault] = (),
        retry_after: float | None = None,
        error_id: str = "",
        headers: Sequence[tuple[bytes, bytes]] = (),
        limit: int | None = None,
        remaining: int = 0,
    ) -> None:
        super().__init__(
            detail, errors=errors, retry_after=retry_after, error_id=error_id, headers=headers
        )
        self.limit = limit
        self.remaining = remaining
        self.reset = retry_after


class QuotaExceeded(Overloaded):
    """The caller has used up its rate: retry when there is more."""

    code = "quota_exceeded"
    policy = "quota"


class Busy(AtomError):
    """The server holds as many request bodies as it may: retry later."""

    code, status = "busy", 503


class ArenaFull(Busy):
    """The shared memory for large bodies is in use: retry later."""

    code = "arena_full"


class NotReady(AtomError):
    """The model is not loaded, or failed to load."""

    code, status = "not_ready", 503


class Draining(AtomError):
    """The server is shutting down: retry elsewhere."""

    code, status = "draining", 503


class DeadlineExceeded(AtomError):
    """The answer was not there when the deadline passed."""

    code, status = "deadline_exceeded", 504


# What the request names is at fault.


class SourceFailed(AtomError):
    """What the request names could not be fetched."""

    code, status = "source_failed", 502


class SourceTimeout(AtomError):
    """What the request names did not arrive in time."""

    code, status = "source_timeout", 504


# The server is at fault.


class Internal(AtomError):
    """The server failed on this request."""

    code, status = "internal", 500


# The plugin is at fault.


class PluginFailed(AtomError):
    """The model failed on this request."""

    code, status = "plugin_failed", 500


class BadAnswer(PluginFailed):
    """The model's answer is not what its signature says."""

    code = "bad_answer"


class WorkerLost(AtomError):
    """The process that worked on this request ended: retry."""

    code, status = "worker_lost", 503


class PoisonRequest(AtomError):
    """The process that works on this request ends, each time: do not send it again."""

    code = "poison_request"


# An administrator's order cannot be carried out.


class AdminError(AtomError):
    """The order cannot be carried out."""

    code, status = "administration", 400


class Forbidden(AdminError):
    """The request comes from where none may come."""

    code, status = "forbidden", 403


class ResourceNotFound(AdminError):
    """The model has loaded no resource of this name."""

    code, status = "resource_not_found", 404


class Conflict(AdminError):
    """What there is stands in the way of what is asked for."""

    code, status = "conflict", 409


class Misdirected(AdminError):
    """The request is for a host that this is not."""

    code, status = "misdirected", 421


class NotSupported(AdminError):
    """The model cannot do this."""

    code, status = "not_supported", 501


# Nobody waits any more; never sent.


class Abandoned(AtomError):
    """The client left before the answer was there."""

    code, status = "abandoned", 499


def problem(error: AtomError, *, instance: str = "") -> dict[str, Any]:
    """Describe ``error`` as RFC 9457 problem details (``error`` is for OIP clients)."""
    document: dict[str, Any] = {
        "type": f"urn:atomserve:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "error": error.detail,
    }
    if instance or error.error_id:
        own = f"urn:atomserve:error:{error.error_id}"
        document["instance"] = own if error.error_id else instance
    if error.errors:
        document["errors"] = [{"path": f.path, "message": f.message} for f in error.errors]
    return document


def all_errors() -> dict[str, type[AtomError]]:
    """Return every error class by its code, so that a failure can cross a process as its code."""

    def walk(cls: type[AtomError]) -> list[type[AtomError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in walk(child))]

    return {cls.code: cls for cls in walk(AtomError)}
