"""What a request says, by its content type, as far as a log has to know it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from atomserve.codecs.forms import split_form
from atomserve.errors import BadRequest
from atomserve.telemetry.shown import DATA, TEXT, cut

MOST_READ = 64 * 1024
"""Bytes of a body that is taken apart; of a larger one the beginning is shown."""


def shown_query(query: bytes) -> dict[str, Any]:
    """Return what the query string says, cut and masked."""
    return _pairs(query.decode("latin-1"))


def shown_body(content_type: str, body: bytes, size: int) -> dict[str, Any]:
    """Return what a body says, cut and masked, under the name of its form.

    ``body`` is its beginning, all of it unless ``size`` says otherwise.
    """
    if not size:
        return {}
    kind = content_type.partition(";")[0].strip().lower()
    try:
        return {_form(kind): _said(kind, content_type, body, whole=size == len(body))}
    except (ValueError, msgspec.MsgspecError, BadRequest):  # it is not what it says it is
        return {"bytes": body[:DATA], "size": size}


def _form(kind: str) -> str:
    if kind.endswith("json"):
        return "json"
    if kind.endswith("xml"):
        return "xml"
    known = {"multipart/form-data": "form", "application/x-www-form-urlencoded": "urlencoded"}
    return known.get(kind, "text" if kind.startswith("text/") else "bytes")


def _said(kind: str, content_type: str, body: bytes, *, whole: bool) -> Any:
    match _form(kind):
        case "bytes":
            return body[:DATA]
        case "json" if whole:
            return cut(msgspec.json.decode(body))
        case "urlencoded" if whole:
            return _pairs(body.decode())
        case "form" if whole:
            return _fields(body, content_type)
        case "form":
            return body[:DATA]
        case _:
            return body[: 4 * TEXT].decode(errors="replace")[:TEXT]


def _pairs(text: str) -> dict[str, Any]:
    shown: dict[str, Any] = cut(dict(parse_qsl(text, keep_blank_values=True)))
    return shown


def _fields(body: bytes, content_type: str) -> dict[str, Any]:
    found = {
        part.name: f"file of {len(part.data)} bytes"
        if part.is_file
        else bytes(part.data[: 4 * TEXT]).decode(errors="replace")
        for part in split_form(body, content_type)
    }
    shown: dict[str, Any] = cut(found)
    return shown
