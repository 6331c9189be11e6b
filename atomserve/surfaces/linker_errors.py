"""Errors as linker_atom's clients know them: an envelope with a number, a text and data."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from atomserve.errors import AtomError, Fault
from atomserve.guard.problems import Answer, headers_of

TEXTS = {
    400: "External Invoke Error",
    404: "NOT FOUND",
    422: "Request Entity Error",
    500: "Internal Server Error",
}
"""What the framework itself says; any other status has the text of its own error."""

_STEP = re.compile(r"\[(?P<index>\d+)\]|\.?(?P<name>[^.\[\]]+)")


def envelope(error: AtomError) -> dict[str, Any]:
    """Describe ``error``; ``data`` lists what is wrong with a request, or names the error."""
    data: Any = {"error": error.code, "detail": error.detail}
    if error.error_id:
        data["trace_id"] = error.error_id
    if error.status == 422:
        faults = error.errors or (Fault("$", error.detail),)
        data = [_fault(fault, error.code) for fault in faults]
    return {"code": error.status, "msg": TEXTS.get(error.status, error.detail), "data": data}


def tell(error: AtomError) -> Answer:
    """Return the status, the headers and the body that tell a client of ``error``."""
    try:
        body = msgspec.json.encode(envelope(error))
    except UnicodeEncodeError:  # the text quotes a lone surrogate
        body = msgspec.json.encode(envelope(type(error)(error_id=error.error_id)))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *headers_of(error),
    ]
    return error.status, headers, body


def _fault(fault: Fault, code: str) -> dict[str, Any]:
    """Write one fault as the validation of the framework does."""
    steps = _STEP.finditer(fault.path.removeprefix("$"))
    where = [int(step["index"]) if step["index"] else step["name"] for step in steps]
    return {"type": code, "loc": ["body", *where], "msg": fault.message}
