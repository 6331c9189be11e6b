"""The OpenAPI document of models that are served as linker_atom's services are."""

from __future__ import annotations

from typing import Any

from atomserve.errors import all_errors
from atomserve.surfaces.linker_errors import envelope
from atomserve.surfaces.openapi import DESCRIPTION as USUAL
from atomserve.surfaces.openapi_schemas import COMPONENTS

Object = dict[str, Any]

DESCRIPTION = """\
Every failure is an envelope, `{"code": 422, "msg": "Request Entity Error", "data": [...]}`, whose \
`code` is its status. `data` names the error, or lists what is wrong with the request. `Accept` \
chooses the form of an answer.
"""

ENVELOPE: Object = {
    "type": "object",
    "required": ["code", "msg", "data"],
    "properties": {
        "code": {"type": "integer", "description": "The answer's status"},
        "msg": {"type": "string"},
        "data": {"description": "What is wrong with the request, or which error it is"},
    },
}
PING: Object = {
    "operationId": "ping",
    "tags": ["server"],
    "summary": "Say whether requests are welcome",
    "responses": {
        status: {
            "description": text,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["is_alive"],
                        "properties": {"is_alive": {"type": "boolean"}},
                    }
                }
            },
        }
        for status, text in (("200", "They are"), ("503", "They are not"))
    },
}


def documented(document: Object, *, health_path: str) -> Object:
    """Return ``document`` with the health route, and with errors as they are told here."""
    components = document["components"]
    info = document["info"]
    return {
        **document,
        "info": {**info, "description": info["description"].replace(USUAL, DESCRIPTION)},
        "paths": {**document["paths"], health_path: {"get": PING}},
        "components": {
            **components,
            "schemas": {**components["schemas"], "Envelope": ENVELOPE},
            "responses": {
                name: {**failure, "content": _content(failure["content"])}
                for name, failure in components["responses"].items()
            },
        },
    }


def _content(usual: Object) -> Object:
    errors = all_errors()
    (told,) = usual.values()
    examples = {code: {"value": envelope(errors[code]())} for code in told["examples"]}
    return {"application/json": {"schema": {"$ref": f"{COMPONENTS}Envelope"}, "examples": examples}}
