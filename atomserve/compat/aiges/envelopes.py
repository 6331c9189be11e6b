"""A wrapper's Athena envelopes for people and programs: JSON Schemas, and a request to try."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

from atomserve.codecs.athena.nodes import TYPE_NAMES
from atomserve.codecs.athena.service import Envelopes
from atomserve.compat.aiges.declared import Declared, key_of, kind_of
from atomserve.compat.aiges.legacy_schema import Document, record
from atomserve.compat.aiges.schema import schema_v2
from atomserve.settings import AigesSettings

LARGEST_EXAMPLE = 24 * 1024
"""Bytes of data in a request to try: with a picture of megabytes nobody could read the page."""
ENCODED = {"contentEncoding": "base64"}


def envelopes_of(wrapper: Declared, settings: AigesSettings) -> Envelopes:
    """Describe what clients send ``wrapper`` and get, written as ``settings`` say."""
    request = schema_v2(wrapper)["schemainput"]
    if settings.text_in == "base64":
        payload = request["properties"]["payload"]
        for block in payload.get("properties", {}).values():
            for kind in block["properties"].keys() & set(TYPE_NAMES):
                block["properties"][kind] |= ENCODED
    return Envelopes(request, _answer(wrapper, settings), _example(wrapper, settings, request))


def _answer(wrapper: Declared, settings: AigesSettings) -> Document:
    """Describe the answer of a single request, as this server writes it."""
    header = {"code": {"const": 0}, "status": {"const": 3}, "sid": {"type": "string"}}
    blocks = {key_of(field): _block(field, settings) for field in wrapper.fields.accepts}
    payload = record(blocks) | {"additionalProperties": {"type": "object"}, "minProperties": 1}
    return _whole({"header": _whole(header), "payload": payload})


def _block(field: Any, settings: AigesSettings) -> Document:
    kind = kind_of(field)
    text = {"type": "string"}
    data: Document = text | ENCODED
    if kind == "text" and settings.text != "base64":
        data = {} if settings.text == "gateway" else text
    members = dict.fromkeys(("encoding", "compress", "format"), text)
    own = {"seq": text, "status": text | {"enum": ["0", "1", "2", "3"]}, kind: data}
    return record(members | own) | {"required": list(own)}


def _whole(properties: Document) -> Document:
    return record(properties) | {"required": list(properties)}


def _example(wrapper: Declared, settings: AigesSettings, schema: Document) -> Document:
    """Make a request of the fields' test values; empty where they are too large to be shown."""
    parts = schema["properties"]
    said = parts["parameter"]["properties"][wrapper.service_id]
    values = {
        key: _value(field, required=key in said.get("required", ()))
        for key, field in said["properties"].items()
    }
    service = {key: value for key, value in values.items() if value is not None}
    blocks, room = {}, LARGEST_EXAMPLE
    for field in wrapper.fields.inputs:
        data, kind = _test_value(field), kind_of(field)
        room -= len(data)
        members = parts["payload"]["properties"][key_of(field)]["properties"]
        plain = kind == "text" and settings.text_in == "raw"
        text = data.decode("utf-8", "replace") if plain else b64encode(data).decode()
        blocks[key_of(field)] = _defaults(members) | {"status": 3, kind: text}
    if room < 0:
        return {}
    header = {"app_id": "example", "status": 3}
    return {"header": header, "parameter": {wrapper.service_id: service}, "payload": blocks}


def _value(schema: Document, *, required: bool) -> Any:
    """Return what a parameter may be; None: it is left out. An output is asked for as it is."""
    if "properties" in schema:
        return _defaults(schema["properties"])
    if "default" in schema or not required:
        return schema.get("default")
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "string":
        return "x" * schema["minLength"]
    return schema.get("minimum", False)


def _defaults(members: Document) -> Document:
    return {name: member["default"] for name, member in members.items() if "default" in member}


def _test_value(field: Any) -> bytes:
    path = getattr(field, "path", None)
    if path is not None and not Path(path).is_file():
        return b""
    value = getattr(field, "test_value", b"")
    return value if isinstance(value, bytes) else b""
