"""JSON Schema and OpenAPI of a wrapper's Athena requests, from what it declares."""

from __future__ import annotations

from atomserve.compat.aiges.declared import Declared
from atomserve.compat.aiges.legacy_schema import Document
from atomserve.compat.aiges.schema import schema_v2

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(wrapper: Declared) -> Document:
    """Return a JSON Schema whose definitions ``request`` and ``response`` are the wrapper's."""
    document = schema_v2(wrapper)
    definitions = {"request": document["schemainput"], "response": document["schemaoutput"]}
    return {"$schema": DIALECT, "title": wrapper.service_id, "$defs": definitions}


def openapi(wrapper: Declared) -> Document:
    """Return an OpenAPI 3.1 document of the wrapper's Athena path."""
    document = schema_v2(wrapper)
    answer = {"description": "The result", "content": _json("Response")}
    failure = {"description": "What went wrong: `header.code` and `header.message`"}
    operation = {
        "operationId": f"call_{wrapper.service_id}",
        "requestBody": {"required": True, "content": _json("Request")},
        "responses": {"200": answer, "default": failure},
    }
    return {
        "openapi": "3.1.1",
        "info": {"title": wrapper.service_id, "version": wrapper.version or "1"},
        "paths": {wrapper.path: {"post": operation}},
        "components": {
            "schemas": {"Request": document["schemainput"], "Response": document["schemaoutput"]}
        },
    }


def _json(name: str) -> Document:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
