"""The HMAC signature of a request, as Athena's clients make it and its gateway checks it."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from atomserve.codecs.athena.errors import AppRefused
from atomserve.errors import BadRequest

SKEW = 300.0
"""Seconds by which a client's clock may be wrong, and for which a signature can be used again."""
LONGEST = 4096
MOST_FIELDS = 64

UNVERIFIABLE = "HMAC signature cannot be verified"
MISMATCH = "HMAC signature does not match"
UNTIMELY = f"{UNVERIFIABLE}, a valid date or x-date header is required for HMAC Authentication"

REQUIRED = frozenset({"host", "date", "request-line"})
"""What a signature must cover, or it could be moved to another request or another day."""
HASHES: Mapping[str, Any] = MappingProxyType(
    {"hmac-sha256": hashlib.sha256, "hmac-sha512": hashlib.sha512}
)

_FIELD = re.compile(r'([A-Za-z_]+)="([^"]*)"')


class Unsigned(BadRequest):
    """The request has no signature that holds."""

    code = "athena_unsigned"


class Untimely(Unsigned):
    """The request's date is missing, or too far from the server's."""

    code = "athena_untimely"


class Key(msgspec.Struct, frozen=True):
    """What a client signs with; its ``repr`` keeps the secret."""

    secret: str
    app_id: str = ""
    """The application that the key is for; empty: any."""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"Key(app_id={self.app_id!r})"


class Asked(msgspec.Struct, frozen=True):
    """What of a request its signature may cover; ``headers`` have lower-case names."""

    method: str
    path: str
    """As it was sent, still percent-encoded, without the query."""
    query: str
    headers: Mapping[str, str]


class Signed(msgspec.Struct, frozen=True):
    """Whose request it is, and what its body must hash to; empty: that is not signed."""

    api_key: str
    app_id: str
    digest: str = ""


def check_signature(
    asked: Asked,
    keys: Mapping[str, Key],
    now: float,
    *,
    skew: float = SKEW,
    hosts: Collection[str] = (),
) -> Signed:
    """Check a request's signature against the ``keys`` by their ``api_key``.

    ``hosts`` are names of this server beside the one that the Host header tells.

    Raises:
        Unsigned: there is no signature, or it is not of this request.
        Untimely: the request was not signed within ``skew`` seconds of ``now``.
    """
    query = _query(asked.query)
    fields: dict[str, str] = dict(_FIELD.findall(_authorization(query, asked.headers)))
    said = dict(asked.headers)
    said.update((name, query[name]) for name in ("host", "date") if name in query)
    if not abs(now - _moment(said.get("date", ""))) <= skew:
        raise Untimely(UNTIMELY)
    api_key = fields.get("api_key", fields.get("username", ""))
    key, names = keys.get(api_key), fields.get("headers", "").lower().split()
    algorithm = HASHES.get(fields.get("algorithm", ""))
    ours = {name.lower() for name in (asked.headers.get("host", ""), *hosts)} - {""}
    if key is None or algorithm is None or said.get("host", "").lower() not in ours:
        raise Unsigned(UNVERIFIABLE)
    line = f"{asked.method} {asked.path} HTTP/1.1"
    expected = signature(key.secret, _signed_text(names, said, line), algorithm)
    if not hmac.compare_digest(expected, fields.get("signature", "").encode()):
        raise Unsigned(MISMATCH)
    return Signed(api_key, key.app_id, said["digest"] if "digest" in names else "")


def check_digest(signed: Signed, body: bytes | bytearray | memoryview) -> None:
    """Check ``body`` against what was signed of it.

    Raises:
        Unsigned: it is another body.
    """
    if signed.digest:
        digest = b"SHA-256=" + b64encode(hashlib.sha256(body).digest())
        if not hmac.compare_digest(digest, signed.digest.encode()):
            raise Unsigned(MISMATCH)


def check_app(signed: Signed, app_id: str) -> None:
    """Check that a request says the ``app_id`` that its key is for.

    Raises:
        AppRefused: it says another, or none.
    """
    if signed.app_id and not hmac.compare_digest(signed.app_id.encode(), app_id.encode()):
        raise AppRefused("invalid appid")


def signature(secret: str, text: str, algorithm: Any = hashlib.sha256) -> bytes:
    """Sign ``text`` as clients do."""
    return b64encode(hmac.new(secret.encode(), text.encode(), algorithm).digest())


def refused(error: Unsigned) -> tuple[int, bytes]:
    """Return the status and the body with which the gateway refuses; it has no ``header.code``."""
    return 403 if isinstance(error, Untimely) else 401, msgspec.json.encode(
        {"message": error.detail}
    )


def _query(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, max_num_fields=MOST_FIELDS))
    except ValueError as exc:
        raise Unsigned(UNVERIFIABLE) from exc


def _authorization(query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    text = query.get("authorization", "")
    if not text:
        text = headers.get("authorization", "")
        if not text:
            raise Unsigned("Unauthorized")
        return text[:LONGEST]
    try:
        # An unescaped plus sign arrives as a space.
        plain = text[:LONGEST].replace(" ", "+")
        return binascii.a2b_base64(plain, strict_mode=True).decode()
    except ValueError as exc:
        raise Unsigned(UNVERIFIABLE) from exc


def _moment(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except (TypeError, ValueError, IndexError, OverflowError) as exc:
        raise Untimely(UNTIMELY) from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime.fromtimestamp(0, UTC)).total_seconds()


def _signed_text(names: list[str], said: Mapping[str, str], line: str) -> str:
    if not REQUIRED.issubset(names):
        raise Unsigned(UNVERIFIABLE)
    lines = []
    for name in names:
        value = line if name == "request-line" else said.get(name)
        # A line feed inside a value could pass for the line of another name.
        if value is None or "\n" in value or "\r" in value:
            raise Unsigned(UNVERIFIABLE)
        lines.append(line if name == "request-line" else f"{name}: {value}")
    return "\n".join(lines)
