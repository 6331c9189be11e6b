"""JSON Schema of a wrapper's Athena requests, from what it declares."""

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
