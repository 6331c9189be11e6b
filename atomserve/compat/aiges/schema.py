"""The document that describes a wrapper with all that its fields say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atomserve.compat.aiges.declared import Declared, Fields, key_of, kind_of
from atomserve.compat.aiges.legacy_schema import (
    MOST_PAYLOAD,
    STATUSES,
    Document,
    choice,
    meta_of,
    record,
)

_HEADER_NAMES = ("uid", "device_id", "imei", "imsi", "mac", "net_type", "net_isp")
_ENCODINGS = {
    "text": ["utf8", "gb2312", "gbk"],
    "audio": ["raw", "pcm", "wav", "mp3", "lame", "opus", "speex", "speex-wb"],
    "image": ["jpg", "jpeg", "png", "bmp"],
    "video": ["raw", "mp4", "h264", "h265"],
}


def schema_v2(wrapper: Declared, *, aipaas: bool = False) -> Document:
    """Return the document with all that ``wrapper`` says: enums, bounds, integers, defaults.

    ``schemainput`` and ``schemaoutput`` are JSON Schema. With ``aipaas`` a default is written
    ``defaultVal``, as that platform reads it. Without inputs the payload is open.
    """
    inputs, params, accepts = wrapper.fields
    service: Document = record({key_of(param): _param(param) for param in params})
    required = [key_of(param) for param in params if param.required]
    if required:
        service["required"] = required
    for field in accepts:
        service["properties"][key_of(field)] = _expected(field)
    request = {
        "header": _header(),
        "parameter": record({wrapper.service_id: service}),
        "payload": _open_payload() if wrapper.open else _payloads(inputs),
    }
    answer = _payloads(accepts) if accepts else _open_payload()
    document = {
        "meta": meta_of(wrapper) | {"webgate_type": 0},
        "schemainput": record(request),
        "schemaoutput": record({"payload": answer}),
    }
    return _renamed(document) if aipaas else document


def open_schema(service_id: str) -> Document:
    """Return the document of a wrapper that declares no fields: it takes and gives anything."""
    return schema_v2(Declared(service_id, "", Fields()))


def _param(param: Any) -> Document:
    schema: Document = {"type": param.data_type}
    enums = list(getattr(param, "enums", ()))
    if enums:
        schema["enum"] = enums
    elif param.data_type == "string":
        schema |= {"minLength": param.min_length, "maxLength": param.max_length}
    elif param.data_type in ("number", "integer"):
        schema |= {"minimum": param.minimum, "maximum": param.maximum}
    for name in ("title", "description"):
        if text := getattr(param, name, ""):
            schema[name] = text
    default = param.test_value
    if _may_be_default(default, schema):
        schema["default"] = default
    return schema


def _may_be_default(value: Any, schema: Document) -> bool:
    """Leave out what is no default: nothing, or what the parameter itself would not allow."""
    if value is None or value == "" or isinstance(value, bytes):
        return False
    if "enum" in schema:
        return value in schema["enum"]
    if "minimum" in schema:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = schema["type"] == "number" or isinstance(value, int)
        return number and whole and bool(schema["minimum"] <= value <= schema["maximum"])
    if "maxLength" in schema:
        return bool(schema["minLength"] <= len(str(value)) <= schema["maxLength"])
    return isinstance(value, bool)


def _encoding(field: Any) -> Document:
    kind = kind_of(field)
    allowed = list(_ENCODINGS.get(kind, ["raw"]))
    own = getattr(field, "encoding", allowed[0])
    if own not in allowed:
        allowed.append(own)
    return {"type": "string", "enum": allowed, "default": own}


def _form(field: Any, name: str, allowed: list[str]) -> Document:
    own = getattr(field, name, allowed[0])
    return {
        "type": "string",
        "enum": allowed if own in allowed else [*allowed, own],
        "default": own,
    }


def _expected(field: Any) -> Document:
    """Describe how a client asks for an output: the form that it wants."""
    kind = kind_of(field)
    members = {"encoding": _encoding(field), "data_type": {"const": kind, "default": kind}}
    if kind == "text":
        members["compress"] = _form(field, "compress", ["raw", "gzip"])
        members["format"] = _form(field, "format", ["plain", "json", "xml"])
    return record(members)


def _payloads(fields: Sequence[Any]) -> Document:
    return record({key_of(field): _payload(field) for field in fields})


def _payload(field: Any) -> Document:
    kind = kind_of(field)
    schema = _expected(field)
    members = schema["properties"]
    members["status"] = choice("integer", STATUSES) | {"default": getattr(field, "status", 3)}
    members["seq"] = {"type": "integer", "minimum": 0}
    if kind == "audio":
        for name in ("sample_rate", "bit_depth", "channels"):
            members[name] = {"type": "integer", "minimum": 1}
    if kind == "text" and getattr(field, "format", "") == "json":
        members[kind] = {"type": ["string", "object", "array"]}
    else:
        members[kind] = {"type": "string", "maxLength": MOST_PAYLOAD}
    schema["required"] = [kind]
    return schema


def _open_payload() -> Document:
    kinds = [*_ENCODINGS, "other"]
    return {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {
                "status": choice("integer", STATUSES),
                "seq": {"type": "integer", "minimum": 0},
                **{kind: {"type": ["string", "object", "array"]} for kind in kinds},
            },
            "oneOf": [{"required": [kind]} for kind in kinds],
        },
    }


def _header() -> Document:
    text = {"type": "string", "maxLength": 50}
    return record(
        {
            "app_id": dict(text),
            "appid": dict(text),
            **{name: dict(text) for name in _HEADER_NAMES},
            "status": choice("integer", STATUSES),
            "res_id": {"type": "string"},
        }
    )


def _renamed(node: Any) -> Any:
    """Write ``default`` as ``defaultVal`` in every schema, and nowhere else."""
    if isinstance(node, list):
        return [_renamed(item) for item in node]
    if not isinstance(node, dict):
        return node
    renamed: Document = {}
    for name, value in node.items():
        if name == "properties":
            renamed[name] = {key: _renamed(schema) for key, schema in value.items()}
        else:
            renamed["defaultVal" if name == "default" else name] = _renamed(value)
    return renamed
