"""The forms in which a signature's requests and answers may be written, as OpenAPI media types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from atomserve.fields import Kind
from atomserve.signature import Field, Signature

Schema = dict[str, Any]

COMPONENTS = "#/components/schemas/"
NPY = "application/x-npy"
OCTETS = "application/octet-stream"

REQUEST_TYPES: Mapping[Kind, tuple[str, ...]] = {
    "image": ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff"),
    "audio": ("audio/wav", "audio/flac", "audio/ogg"),
    "video": ("video/mp4", "video/webm", "video/x-matroska", "video/quicktime"),
    "tensor": (NPY,),
}
"""What a raw body, or a form's file, may be beside ``application/octet-stream``."""

ANSWER_TYPES: Mapping[Kind, tuple[str, ...]] = {
    "blob": (OCTETS,),
    "image": ("image/png", "image/jpeg", "image/webp"),
    "audio": ("audio/wav", "audio/flac"),
    "video": ("video/*",),
    "tensor": (NPY,),
}
"""What an answer of one field may be beside JSON and msgpack."""

SHAPE = {"type": "string", "pattern": "^[0-9]+(,[0-9]+)*$", "examples": ["2,3"]}

# OpenAPI 3.1 would say this with contentMediaType alone; documentation pages and fuzzers know that
# a file is meant by the format.
BYTES: Schema = {"type": "string", "format": "binary"}


class Forms:
    """One model's bodies; its definitions move to component names of its own (``ocr.Page``)."""

    def __init__(self, model: str, signature: Signature) -> None:
        self.model = model
        self.signature = signature
        self._holders = _holding_bytes(signature.definitions)

    def components(self) -> dict[str, Schema]:
        """Return the model's definitions by component name."""
        definitions = self.signature.definitions
        return {
            **{self._name(name): self._moved(each) for name, each in definitions.items()},
            **{
                self._name(name, msgpack=True): self._moved(definitions[name], msgpack=True)
                for name in sorted(self._holders)
            },
        }

    def request(self) -> dict[str, Schema]:
        """Return what a request's body may be, by media type."""
        inputs = self.signature.inputs
        content = {
            "application/json": {"schema": self._object(self._json)},
            "application/msgpack": {"schema": self._object(self._msgpack)},
            "multipart/form-data": {"schema": self._object(self._part)},
        }
        encoding = {
            field.name: {"contentType": ", ".join(file_types(field))}
            for field in inputs
            if field.media_type and field.kind != "text"
        }
        if encoding:
            content["multipart/form-data"]["encoding"] = encoding
        raw = raw_input(self.signature)
        if raw is not None:
            content |= {media_type: {"schema": BYTES} for media_type in file_types(raw)}
        return content

    def answer(self) -> dict[str, Schema]:
        """Return what an answer may be, by media type."""
        output = self.signature.output
        if self.signature.streams:
            return self._stream(output)
        return {
            "application/json": {"schema": self._json(output)},
            "application/msgpack": {"schema": self._msgpack(output)},
            **{each: {"schema": BYTES} for each in ANSWER_TYPES.get(output.kind, ())},
        }

    def query(self) -> list[Schema]:
        """Return the query parameters that stand beside a raw body."""
        raw = raw_input(self.signature)
        if raw is None:
            return []
        found = [self._parameter(field) for field in self.signature.inputs if field.scalar]
        if raw.kind == "tensor":
            found.append(_query("shape", SHAPE, f"required for {OCTETS}"))
        return found

    def _parameter(self, field: Field) -> Schema:
        schema = self._json(field)
        if field.required:
            return _query(field.name, schema, "required there")
        # A page would send a declared default beside every body.
        default = msgspec.json.encode(schema.pop("default", None)).decode()
        return _query(field.name, schema, f"default `{default}`")

    def _object(self, schema_of: Callable[[Field], Schema]) -> Schema:
        inputs = self.signature.inputs
        schema: Schema = {
            "type": "object",
            "properties": {field.name: schema_of(field) for field in inputs},
            "additionalProperties": False,
        }
        required = [field.name for field in inputs if field.required]
        return {**schema, "required": required} if required else schema

    def _stream(self, output: Field) -> dict[str, Schema]:
        line = {
            "oneOf": [
                _record("data", self._json(output)),
                _record("end", {"const": True}),
                _record("error", {"$ref": f"{COMPONENTS}Problem"}),
            ]
        }
        return {
            "text/event-stream": {"schema": self._json(output)},
            "application/x-ndjson": {"schema": line},
        }

    def _json(self, field: Field) -> Schema:
        schema: Schema = self._moved(field.schema)
        return schema

    def _msgpack(self, field: Field) -> Schema:
        schema: Schema = self._moved(field.schema, msgpack=True)
        if field.kind != "tensor":
            return schema
        packed = _packed_tensor(field)
        nullable = {"type": "null"} in schema.get("anyOf", ())
        return {"anyOf": [packed, {"type": "null"}]} if nullable else packed

    def _part(self, field: Field) -> Schema:
        if field.media_type and field.kind != "text":
            return {**BYTES, "contentMediaType": field.media_type}
        return self._json(field)

    def _name(self, definition: str, *, msgpack: bool = False) -> str:
        # A dot ends the model's name, which may itself hold dots: none may follow it.
        name = f"{self.model}.{definition.replace('.', '_')}"
        return f"{name}-msgpack" if msgpack else name

    def _moved(self, node: Any, *, msgpack: bool = False) -> Any:
        """Return a copy of a schema with its references moved, and for msgpack its bytes bare."""
        if isinstance(node, list):
            return [self._moved(each, msgpack=msgpack) for each in node]
        if isinstance(node, str) and node.startswith(COMPONENTS):
            name = node.removeprefix(COMPONENTS)
            return COMPONENTS + self._name(name, msgpack=msgpack and name in self._holders)
        if not isinstance(node, dict):
            return node
        moved = {key: self._moved(value, msgpack=msgpack) for key, value in node.items()}
        if msgpack and moved.get("contentEncoding") == "base64":
            del moved["contentEncoding"]
            return moved | BYTES
        return moved


def raw_input(signature: Signature) -> Field | None:
    """Return the input that a raw body is, if everything else fits in a query string."""
    raw = signature.binary_input
    rest = [field for field in signature.inputs if field is not raw and field.required]
    return raw if all(field.scalar for field in rest) else None


def file_types(field: Field) -> tuple[str, ...]:
    """Return the media types that a raw body, or a form's file, of ``field`` may have."""
    return (*REQUEST_TYPES.get(field.kind, ()), OCTETS)


def _query(name: str, schema: Schema, note: str) -> Schema:
    # Never required as such: beside any other body the value is a member of the body.
    description = f"Beside a raw body only; {note}."
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _record(key: str, schema: Schema) -> Schema:
    return {"type": "object", "properties": {key: schema}, "required": [key]}


def _packed_tensor(field: Field) -> Schema:
    size = {"type": "integer", "minimum": 0}
    shape: Schema = {"type": "array", "items": size}
    if field.dims is not None:
        shape["prefixItems"] = [size if n == -1 else {"const": n} for n in field.dims]
        shape |= {"minItems": len(field.dims), "maxItems": len(field.dims)}
    return {
        "type": "object",
        "properties": {"dtype": {"const": field.dtype}, "shape": shape, "data": BYTES},
        "required": ["dtype", "shape", "data"],
        "description": f"{field.dtype} tensor: little-endian bytes in C order",
    }


def _holding_bytes(definitions: Mapping[str, Any]) -> frozenset[str]:
    """Name the definitions that hold base64, directly or through another one."""
    texts = {name: msgspec.json.encode(schema).decode() for name, schema in definitions.items()}
    found = {name for name, text in texts.items() if '"contentEncoding":"base64"' in text}
    while True:
        marks = [f'"{COMPONENTS}{name}"' for name in found]
        more = {name for name, text in texts.items() if any(mark in text for mark in marks)}
        if more <= found:
            return frozenset(found)
        found |= more
