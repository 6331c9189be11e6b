"""The document that the SDK writes for a wrapper, its omissions included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atomserve.compat.aiges.declared import Declared, key_of, kind_of

Document = dict[str, Any]

HOST = "api.xf-yun.com"
MOST_PAYLOAD = 10 << 20
STATUSES = [0, 1, 2, 3]
_HEADER_NAMES = (
    "appid",
    "uid",
    "device_id",
    "device.imei",
    "device.imsi",
    "device.mac",
    "device.other",
    "net.type",
    "net.isp",
    "app.ver",
)


def legacy_schema(wrapper: Declared) -> Document:
    """Return the document that the SDK writes for ``wrapper``, its omissions included.

    A wrapper without fields, which the SDK refuses, gets one without properties.
    """
    inputs, params, accepts = wrapper.fields
    parameter = {
        "type": "object",
        "properties": {key_of(param): _param(param) for param in params},
        "required": [key_of(param) for param in params if param.required],
    }
    header = {
        "type": "object",
        "properties": {name: {"type": "string", "maxLength": 50} for name in _HEADER_NAMES},
        "required": ["appid"],
    }
    request = {
        "header": header,
        "parameter": record({wrapper.service_id: parameter}),
        "payload": record({key_of(field): _payload(kind_of(field)) for field in inputs}),
    }
    answer = record({key_of(field): _payload(kind_of(field)) for field in accepts})
    return {
        "meta": meta_of(wrapper) | {"routeKey": []},
        "schemainput": record(request),
        "schemaoutput": record({"payload": answer}),
    }


def meta_of(wrapper: Declared) -> Document:
    """Return what both documents begin with: the service's names and the kinds of its fields."""
    inputs, _, accepts = wrapper.fields
    return {
        "serviceId": wrapper.service_id,
        "version": wrapper.version,
        "route": wrapper.path,
        "sub": wrapper.sub,
        "call": wrapper.call,
        "call_type": wrapper.call_type,
        "hosts": HOST,
        "service": [wrapper.service_id],
        wrapper.service_id: {
            "input": {key_of(field): {"dataType": kind_of(field)} for field in inputs},
            "accept": {key_of(field): {"dataType": kind_of(field)} for field in accepts},
        },
    }


def record(properties: Document) -> Document:
    """Return the schema of an object with these properties."""
    return {"type": "object", "properties": properties}


def choice(kind: str, values: Sequence[Any]) -> Document:
    """Return the schema of one of ``values``."""
    return {"type": kind, "enum": list(values)}


def _param(param: Any) -> Document:
    schema: Document = {"type": param.data_type}
    if param.data_type == "boolean":
        schema["default"] = param.default
    elif param.enums:
        schema["enum"] = list(param.enums)
    elif param.data_type == "string":
        schema["maxLength"] = param.max_length
    else:
        schema["maximum"] = param.maximum
    return schema


def _payload(kind: str) -> Document:
    status, seq = choice("integer", STATUSES), {"type": "integer"}
    if kind == "image":
        return record(
            {
                "encoding": choice("string", ["jpg", "png", "bmp", "jpeg"]),
                "image": {"type": "string", "minLength": 1, "maxLength": MOST_PAYLOAD},
                "status": choice("integer", [3]),
            }
        )
    if kind == "text":
        return record(
            {
                "encoding": choice("string", ["utf8", "gb2312"]),
                "compress": choice("string", ["gzip"]),
                "status": status,
                "seq": seq,
                "text": {"type": "string"},
            }
        )
    if kind == "audio":
        return record(
            {
                "encoding": choice("string", ["opus", "speex"]),
                "sample_rate": choice("integer", [8000, 16000]),
                "bit_depth": choice("integer", [8, 16]),
                "channels": choice("integer", [1, 2]),
                "status": status,
                "seq": seq,
                "audio": {"type": "string"},
            }
        )
    return record({"status": status, "seq": seq, kind: {"type": "string"}})
