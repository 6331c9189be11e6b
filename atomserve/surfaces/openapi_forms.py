"""The forms in which a signature's requests and answers may be written, as OpenAPI media types."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from atomserve.signature import Field, Signature
from atomserve.specs import Kind
from atomserve.surfaces.openapi_schemas import BYTES, COMPONENTS, Namespace, Schema

NPY = "application/x-npy"
OCTETS = "application/octet-stream"

REQUEST_TYPES: Mapping[Kind, tuple[str, ...]] = {
    "image": ("image/png", "image/jpeg", "image/webp", "image/bmp"),
    "audio": ("audio/wav", "audio/flac", "audio/ogg"),
    "video": ("video/mp4", "video/webm", "video/x-matroska", "video/quicktime"),
    "tensor": (NPY,),
}
"""What a raw body, or a form's file, may be beside ``application/octet-stream``."""

ANSWER_TYPES: Mapping[Kind, tuple[str, ...]] = {
    "blob": (OCTETS,),
    "image": ("image/png", "image/jpeg", "image/webp"),
    "audio": ("audio/wav", "audio/flac", "audio/ogg"),
    "video": ("video/*",),
    "tensor": (NPY,),
}
"""What an answer of one field may be beside JSON and msgpack."""

SHAPE = {"type": "string", "pattern": "^[0-9]+(,[0-9]+)*$", "examples": ["2,3"]}


class Forms:
    """One model's bodies; ``components`` holds the definitions that they refer to."""

    def __init__(self, model: str, signature: Signature) -> None:
        self.signature = signature
        self._namespace = Namespace(model, signature.definitions)
        self.components = self._namespace.components()

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

    def items(self) -> tuple[Schema, Schema]:
        """Return the JSON Schemas of one item of a session's client, and of one answer."""
        return self._object(self._json), self._json(self.signature.output)

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
        if "default" not in schema:
            return _query(field.name, schema, "optional there")
        # A page would send a declared default beside every body.
        default = msgspec.json.encode(schema.pop("default")).decode()
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
        # Before OpenAPI 3.2 the schema of a stream is understood as that of one item.
        answer, failure = self._json(output), {"$ref": f"{COMPONENTS}Problem"}
        number = {"type": "string", "pattern": "^[0-9]+$", "examples": ["0"]}
        return {
            "text/event-stream": {
                "schema": {
                    "oneOf": [
                        _event("message", answer, id=number),
                        _event("end"),
                        _event("error", failure),
                        _event("shutdown", failure, retry={"type": "integer"}),
                    ]
                }
            },
            "application/x-ndjson": {
                "schema": {
                    "oneOf": [
                        _record("data", answer),
                        _record("end", {"const": True}),
                        _record("error", failure),
                    ]
                }
            },
        }

    def _json(self, field: Field) -> Schema:
        schema: Schema = self._namespace.moved(field.schema)
        return schema

    def _msgpack(self, field: Field) -> Schema:
        schema: Schema = self._namespace.moved(field.schema, msgpack=True)
        return schema

    def _part(self, field: Field) -> Schema:
        if field.media_type and field.kind != "text":
            return {**BYTES, "contentMediaType": field.media_type}
        return self._json(field)


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


def _event(name: str, data: Schema | None = None, **members: Schema) -> Schema:
    properties = {"event": {"const": name}, **members}
    if data is not None:
        properties["data"] = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": data,
        }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _record(key: str, schema: Schema) -> Schema:
    return {"type": "object", "properties": {key: schema}, "required": [key]}
