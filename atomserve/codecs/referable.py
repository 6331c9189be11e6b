"""Signatures that show the forms in which an input may name what it does not hold."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from atomserve.codecs.deferred import MEDIA
from atomserve.signature import Field, Signature

Schema = dict[str, Any]

_WHOLE = {"type": "integer", "minimum": 0}
_SIZE = {"type": "integer", "minimum": 1}
_PART: Schema = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "position": _WHOLE,
        "size": _SIZE,
        "height": _SIZE,
        "width": _SIZE,
    },
    "required": ["path", "position", "size"],
    "additionalProperties": False,
}
_FORMS: dict[str, Schema] = {
    "url": {"type": "string", "format": "uri", "description": "A canonical http or https URL."},
    "path": {"type": "string", "description": "A file that the server may read."},
    "mmap": {
        **_PART,
        "description": "A part of such a file; with height and width, raw pixels of a picture, "
        "blue, green and red.",
    },
}


def referable(signature: Signature, forms: Collection[str]) -> Signature:
    """Return ``signature`` with ``forms`` (of url, path, mmap) among what its media may be."""
    if not forms:
        return signature
    inputs = tuple(_shown(field, forms) for field in signature.inputs)
    return msgspec.structs.replace(signature, inputs=inputs)


def _shown(field: Field, forms: Collection[str]) -> Field:
    if field.kind not in MEDIA and not _is_list(field.schema):
        return field
    return msgspec.structs.replace(field, schema=_widened(field.schema, forms))


def _is_list(schema: Schema) -> bool:
    return schema.get("type") == "array" or any(map(_is_list, schema.get("anyOf", ())))


def _widened(schema: Any, forms: Collection[str]) -> Any:
    if isinstance(schema, list):
        return [_widened(each, forms) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("contentEncoding") != "base64":
        inner = {key: schema[key] for key in ("items", "anyOf") if key in schema}
        return schema | {key: _widened(value, forms) for key, value in inner.items()}
    own = {key: value for key, value in schema.items() if key in ("default", "description")}
    plain = {key: value for key, value in schema.items() if key not in own}
    return {
        "anyOf": [plain, _object("base64", plain), *(_object(f, _FORMS[f]) for f in forms)],
        **own,
    }


def _object(name: str, schema: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {name: schema},
        "required": [name],
        "additionalProperties": False,
    }
