"""The documents that describe a wrapper: the SDK's legacy one, and one that is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atomserve.compat.aiges.declared import Declared, Fields, key_of, kind_of

Document = dict[str, Any]

HOST = "api.xf-yun.com"
MOST_PAYLOAD = 10 << 20
STATUSES = [0, 1, 2, 3]
_HEADER_NAMES = ("uid", "device_id", "imei", "imsi", "mac", "net_type", "net_isp")
_LEGACY_HEADER_NAMES = (
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
_ENCODINGS = {
    "text": ["utf8", "gb2312", "gbk"],
    "audio": ["raw", "pcm", "wav", "mp3", "lame", "opus", "speex", "speex-wb"],
    "image": ["jpg", "jpeg", "png", "bmp"],
    "video": ["raw", "mp4", "h264", "h265"],
}


def legacy_schema(wrapper: Declared) -> Document:
    """Return the document that the SDK writes for ``wrapper``, its omissions included.

    A wrapper without fields, which the SDK refuses, gets one without properties.
    """
    inputs, params, accepts = wrapper.fields
    parameter = {
        "type": "object",
        "properties": {key_of(param): _legacy_param(param) for param in params},
        "required": [key_of(param) for param in params if param.required],
    }
    header = {
        "type": "object",
        "properties": {name: {"type": "string", "maxLength": 50} for name in _LEGACY_HEADER_NAMES},
        "required": ["appid"],
    }
    request = {
        "header": header,
        "parameter": _object({wrapper.service_id: parameter}),
        "payload": _object({key_of(field): _legacy_payload(kind_of(field)) for field in inputs}),
    }
    answer = _object({key_of(field): _legacy_payload(kind_of(field)) for field in accepts})
    return {
        "meta": _meta(wrapper) | {"routeKey": []},
        "schemainput": _object(request),
        "schemaoutput": _object({"payload": answer}),
    }


def schema_v2(wrapper: Declared, *, aipaas: bool = False) -> Document:
    """Return the document with all that ``wrapper`` says: enums, bounds, integers, defaults.

    ``schemainput`` and ``schemaoutput`` are JSON Schema. With ``aipaas`` a default is written
    ``defaultVal``, as that platform reads it. Without inputs the payload is open.
    """
    inputs, params, accepts = wrapper.fields
    service: Document = _object({key_of(param): _param(param) for param in params})
    required = [key_of(param) for param in params if param.required]
    if required:
        service["required"] = required
    for field in accepts:
        service["properties"][key_of(field)] = _expected(field)
    request = {
        "header": _header(),
        "parameter": _object({wrapper.service_id: service}),
        "payload": _open_payload() if wrapper.open else _payloads(inputs),
    }
    answer = _payloads(accepts) if accepts else _open_payload()
    document = {
        "meta": _meta(wrapper) | {"webgate_type": 0},
        "schemainput": _object(request),
        "schemaoutput": _object({"payload": answer}),
    }
    return _renamed(document) if aipaas else document


def open_schema(service_id: str) -> Document:
    """Return the document of a wrapper that declares no fields: it takes and gives anything."""
    return schema_v2(Declared(service_id, "", Fields()))


def _meta(wrapper: Declared) -> Document:
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


def _object(properties: Document) -> Document:
    return {"type": "object", "properties": properties}


def _enum(kind: str, values: Sequence[Any]) -> Document:
    return {"type": kind, "enum": list(values)}


def _legacy_param(param: Any) -> Document:
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


def _legacy_payload(kind: str) -> Document:
    status, seq = _enum("integer", STATUSES), {"type": "integer"}
    if kind == "image":
        return _object(
            {
                "encoding": _enum("string", ["jpg", "png", "bmp", "jpeg"]),
                "image": {"type": "string", "minLength": 1, "maxLength": MOST_PAYLOAD},
                "status": _enum("integer", [3]),
            }
        )
    if kind == "text":
        return _object(
            {
                "encoding": _enum("string", ["utf8", "gb2312"]),
                "compress": _enum("string", ["gzip"]),
                "status": status,
                "seq": seq,
                "text": {"type": "string"},
            }
        )
    if kind == "audio":
        return _object(
            {
                "encoding": _enum("string", ["opus", "speex"]),
                "sample_rate": _enum("integer", [8000, 16000]),
                "bit_depth": _enum("integer", [8, 16]),
                "channels": _enum("integer", [1, 2]),
                "status": status,
                "seq": seq,
                "audio": {"type": "string"},
            }
        )
    return _object({"status": status, "seq": seq, kind: {"type": "string"}})


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
    return _object(members)


def _payloads(fields: Sequence[Any]) -> Document:
    return _object({key_of(field): _payload(field) for field in fields})


def _payload(field: Any) -> Document:
    kind = kind_of(field)
    schema = _expected(field)
    members = schema["properties"]
    members["status"] = _enum("integer", STATUSES) | {"default": getattr(field, "status", 3)}
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
                "status": _enum("integer", STATUSES),
                "seq": {"type": "integer", "minimum": 0},
                **{kind: {"type": ["string", "object", "array"]} for kind in kinds},
            },
            "oneOf": [{"required": [kind]} for kind in kinds],
        },
    }


def _header() -> Document:
    text = {"type": "string", "maxLength": 50}
    return _object(
        {
            "app_id": dict(text),
            "appid": dict(text),
            **{name: dict(text) for name in _HEADER_NAMES},
            "status": _enum("integer", STATUSES),
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
