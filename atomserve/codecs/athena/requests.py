"""Athena requests, and frames of its WebSockets, to plain data."""

from __future__ import annotations

import binascii
from typing import Any, Literal

import msgspec

from atomserve.codecs.athena.errors import EnvelopeError, PayloadError
from atomserve.codecs.athena.nodes import ONCE, TEXT, TYPES, Accept, Node, OnceRequest
from atomserve.codecs.refusals import FOREIGN, refusal

TextIn = Literal["base64", "raw"]
"""How clients write the text of a payload; media are base64 in any case."""

ECHOED = ("encoding", "compress", "format")
"""What an accept may say, for the answer to repeat."""
STATUSES = {"0": 0, "1": 1, "2": 2, "3": 3}
LARGEST_EXACT = 1e21
"""From here on a whole number with a fraction point is written with an exponent."""


class _Envelope(msgspec.Struct):
    header: dict[str, Any] | None = None
    parameter: dict[str, dict[str, Any] | None] | None = None
    payload: dict[str, dict[str, Any] | None] | None = None


_decode = msgspec.json.Decoder(_Envelope).decode


def decode_request(
    body: bytes | bytearray | memoryview | str, *, text: TextIn = "base64", status: int = ONCE
) -> OnceRequest:
    """Read one envelope; ``status`` is that of a node which tells none.

    Raises:
        EnvelopeError: it is not JSON, or not of an envelope's form.
        PayloadError: the envelope is well formed and one of its payloads is not.
    """
    try:
        envelope = _decode(body)
    except FOREIGN as exc:
        raise EnvelopeError(refusal(exc).detail) from exc
    header = {key: as_text(value) for key, value in (envelope.header or {}).items()}
    request = OnceRequest(header, {}, [], {}, _status("header", header.get("status", "")))
    for service in (envelope.parameter or {}).values():
        if service:
            _read_parameters(service, request)
    default = status if request.status is None else request.status
    for key, block in (envelope.payload or {}).items():
        request.nodes.append(_node(key, block or {}, text, default))
    return request


def cid_of(body: bytes | bytearray | memoryview | str) -> str:
    """Return which session a frame is of whose envelope can be read, and its payload cannot."""
    return as_text((_decode(body).header or {}).get("cid"))


def as_text(value: Any) -> str:
    """Write a JSON value as the text that a wrapper expects of a parameter: 1, 0.5, true."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_EXACT:
        return str(int(value))
    return msgspec.json.encode(value).decode()


def _read_parameters(service: dict[str, Any], request: OnceRequest) -> None:
    for key, value in service.items():
        if isinstance(value, dict):
            request.accepts[key] = _accept(value)
        elif value is not None and not isinstance(value, list):
            request.params[key] = value if isinstance(value, str) else as_text(value)


def _accept(said: dict[str, Any]) -> Accept:
    kind = said.get("data_type")
    desc = {name: as_text(said[name]) for name in ECHOED if name in said}
    return Accept(TYPES.get(kind) if isinstance(kind, str) else None, desc)


def _node(key: str, block: dict[str, Any], text: TextIn, status: int) -> Node:
    data, kind, desc = b"", None, {}
    for name, value in block.items():
        if name not in TYPES:
            desc[name] = value if isinstance(value, str) else as_text(value)
            continue
        if kind is not None:
            raise PayloadError(f"payload.{key}: more than one of {', '.join(TYPES)}")
        kind = TYPES[name]
        data = _data(f"{key}.{name}", value, plain=kind == TEXT and text == "raw")
    told = _status(f"payload.{key}", desc.get("status", ""))
    return Node(key, data, kind or TEXT, status if told is None else told, desc)


def _data(place: str, value: Any, *, plain: bool) -> bytes:
    if isinstance(value, str):
        return value.encode() if plain else _from_base64(place, value)
    if isinstance(value, dict | list):
        return msgspec.json.encode(value) + b"\n"
    kind = "null" if value is None else "boolean" if isinstance(value, bool) else "number"
    raise PayloadError(f"payload.{place}: not support type of payload: {kind}")


def _from_base64(place: str, text: str) -> bytes:
    try:  # a third of the time that binascii takes
        return msgspec.convert(text, bytes)
    except msgspec.ValidationError:
        pass
    try:  # lines are common, and legal to upstream's reader
        folded = text.replace("\n", "").replace("\r", "")
        return binascii.a2b_base64(folded, strict_mode=True)
    except ValueError as exc:
        raise PayloadError(f"payload.{place}: illegal base64 data: {exc}") from exc


def _status(place: str, text: str) -> int | None:
    if not text:
        return None
    if text not in STATUSES:
        raise PayloadError(f"{place}.status: service request status invalid: {text[:40]}")
    return STATUSES[text]
