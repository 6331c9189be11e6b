"""What becomes of an unexpected exception: an id for the client, its cause for the log."""

from __future__ import annotations

import secrets

import structlog

from atomserve.errors import AtomError, Internal

log = structlog.get_logger()


def bare(exc: Exception) -> Exception:
    """Return what a task group has wrapped, where it is one exception alone."""
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def log_failure(exc: Exception, request_id: str) -> str:
    """Log ``exc`` with its traceback, and return the id under which it is found there."""
    error_id = secrets.token_hex(4)
    log.error("http.failed", error_id=error_id, request_id=request_id, exc_info=exc)
    return error_id


def as_error(exc: Exception, request_id: str) -> AtomError:
    """Return what a client may know of ``exc``; what it may not know is logged."""
    if isinstance(exc, AtomError):
        return exc
    return Internal(error_id=log_failure(exc, request_id))
