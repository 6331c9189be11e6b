"""When two requests are equal: a digest of what is asked, and of how it is to be answered."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

import msgspec

from atomserve.engine.jobs import Payload

CANONICAL = 64 * 1024
"""Bytes of a JSON body up to which the document counts, not how it is written: it is decoded on
the event loop, which waits meanwhile."""
FEW = 16
"""Members of an object up to which each is looked for by itself."""
SIZE = 32
"""Bytes of a digest: nobody can find two requests with the same."""


def _as_written(number: str) -> msgspec.Raw:
    # A float would make numbers equal that a wrapper may tell apart, as decimals for instance.
    return msgspec.Raw(number.encode())


_decode = msgspec.json.Decoder(float_hook=_as_written).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def digest(payload: Payload, version: str) -> bytes | None:
    """Return what equal requests to a model's ``version`` have in common, and others have not.

    None: the body is one that the codec will refuse.
    """
    body = payload.body
    data = body if isinstance(body, bytes | bytearray | memoryview) else body.data
    if payload.form == "json" and len(data) <= CANONICAL:
        data = canonical(bytes(data))
        if data is None:
            return None
    media_type = payload.media_type if payload.form in ("raw", "multipart") else ""
    asked = (version, payload.form, media_type, payload.query, payload.answer, payload.answer_type)
    # What precedes the body says where it ends itself.
    found = blake2b(msgspec.msgpack.encode(asked), digest_size=SIZE)
    found.update(data)
    return found.digest()


def canonical(text: bytes) -> bytes | None:
    """Return the JSON object in the one form that all equal ones have; None: it is none."""
    try:
        document = _decode(text)
        if type(document) is not dict or _repeats(text, document):
            return None
        return _encode(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError):
        return None


def _repeats(text: bytes, document: dict[str, Any]) -> bool:
    """Say whether a member stands twice in the outermost object: decoding keeps the last."""
    # A name that is a plain word can be written in another way only by such an escape.
    escape = b"\\u00" if all(map(_plain, document)) else b"\\"
    if (
        len(document) <= FEW
        and escape not in text
        and all(text.count(_encode(name)) == 1 for name in document)
    ):
        return False
    # Pairs stay pairs, so the outermost result is the outermost object's members.
    pairs: list[Any] = json.loads(text, object_pairs_hook=list, parse_int=str, parse_float=str)
    return len(document) < len(pairs)


def _plain(name: str) -> bool:
    return name.isascii() and name.isidentifier()
