"""What goes wrong in Athena's own terms, and how each failure is told to an Athena client."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from atomserve.codecs.athena.codes import BAD_JSON, CALL_FAILED, CODES, OPERATIONS, OWN, Operation
from atomserve.errors import (
    AtomError,
    BadAnswer,
    BadRequest,
    Fault,
    Invalid,
    PluginFailed,
)

EXCEPTION = -1
"""The user's code that stands for a Python exception."""

_USER_CODE = re.compile(r"-?[0-9]{1,10}")


class EnvelopeError(BadRequest):
    """The Athena envelope cannot be read."""

    code = "athena_envelope"


class PayloadError(EnvelopeError):
    """A payload of the Athena envelope is not what it says it is."""

    code = "athena_payload"


class AppRefused(BadRequest):
    """The request's app_id is missing, or not the one of its key."""

    code = "athena_app"


class OutputRefused(BadAnswer):
    """The wrapper's output is not what the client accepts."""

    code = "athena_output"


class WrapperRefused(PluginFailed):
    """The wrapper answered with an error code of its own."""

    code = "wrapper_refused"

    @classmethod
    def of(cls, operation: Operation, user_code: int, text: str = "") -> WrapperRefused:
        """Say that ``operation`` gave ``user_code``, and ``wrapperError`` of it the ``text``.

        Both lie in ``errors``, which travel between processes and reach native clients, too.
        """
        detail = f"{text};code={user_code}"
        return cls(detail, errors=[Fault(operation, str(user_code))])


OWN_WORDS = (EnvelopeError, AppRefused, OutputRefused)
"""Errors that only Athena knows: `CODES` has their status."""


class Failure(msgspec.Struct, frozen=True):
    """A failure as an Athena client is told of it."""

    number: int
    message: str
    status: int = 500
    """What HTTP calls it; only native mode sends it."""
    user_code: int | None = None
    retry_after: float | None = None

    def header(self, sid: str) -> dict[str, Any]:
        """Return what an answer's header says of it."""
        found = {"code": self.number, "message": self.message, "sid": sid}
        if self.user_code is not None:
            found["user_code"] = self.user_code
        return found


def failure_of(error: AtomError, operation: Operation = "exec") -> Failure:
    """Return what an Athena client is told of ``error``.

    ``operation`` is what the wrapper was doing, where ``error`` itself does not say.
    """
    if isinstance(error, PluginFailed) and error.code not in OWN:
        return _user_failure(error, operation)
    number = OWN.get(error.code, BAD_JSON if error.status < 500 else CALL_FAILED)
    meaning = CODES[number]
    message = meaning.text if meaning.fixed else error.detail
    if isinstance(error, Invalid):
        message = f"parameter schema validate error: {message}"
    status = meaning.status if isinstance(error, OWN_WORDS) else error.status
    return Failure(number, message, status, retry_after=error.retry_after)


def failure(number: int, message: str = "") -> Failure:
    """Return the failure with one of upstream's codes."""
    meaning = CODES[number]
    return Failure(number, message or meaning.text, meaning.status)


def _user_failure(error: PluginFailed, operation: Operation) -> Failure:
    message, user_code, number = error.detail, EXCEPTION, OPERATIONS[operation]
    said = error.errors[0] if error.errors else None
    if isinstance(error, WrapperRefused) and said and _USER_CODE.fullmatch(said.message):
        user_code = int(said.message)
        number = OPERATIONS.get(said.path, number)
    else:
        message = f"{message};code={user_code}"
    return Failure(number, message, error.status, user_code, error.retry_after)
