"""What the OpenAPI document says of Athena's path of a model that speaks it."""

from __future__ import annotations

from typing import Any

import msgspec

from atomserve.codecs.athena.service import DIALECT, Service
from atomserve.signature import Signature
from atomserve.surfaces.openapi_schemas import COMPONENTS

Object = dict[str, Any]

FAILURE = "AthenaFailure"

SESSION = """\
Upgrade to a WebSocket. Each text frame holds one envelope like the request's of POST; \
`header.status` is 0 in a session's first frame, 1 in between and 2 in its last.

The first frame is acknowledged; then come results, with numbers in `seq` and `status` and text \
as base64 unless the server is told otherwise. A result of status 2 is the last. With \
`?stream_mode=multiplex` several sessions share the WebSocket, told apart by `header.cid`.
"""


def service_of(signature: Signature) -> Service | None:
    """Return how a model is asked by Athena; None if it is not."""
    said = signature.dialects.get(DIALECT)
    return None if said is None else msgspec.convert(said, Service)


def paths(name: str, service: Service, prefix: str = "") -> Object:
    """Describe the path of the model ``name``; `components` has what this refers to."""
    item: Object = {}
    if service.once:
        item["post"] = _once(name, service)
    if service.stream:
        item["get"] = _session(name, service)
    return {prefix + service.path: item}


def components(name: str, service: Service) -> Object:
    """Return the schemas by component name."""
    return {
        _request(name): service.envelopes.request,
        _answer(name): service.envelopes.answer,
        FAILURE: _failure(),
    }


def _request(name: str) -> str:
    return f"{name}.AthenaRequest"


def _answer(name: str) -> str:
    return f"{name}.AthenaAnswer"


def _once(name: str, service: Service) -> Object:
    content: Object = _content(_request(name))
    if service.envelopes.example:
        example = {"summary": "Test values", "value": service.envelopes.example}
        content["application/json"]["examples"] = {"example": example}
    return {
        "operationId": f"{name}.athena",
        "tags": [name],
        "summary": f"Ask {name} in an Athena envelope",
        "requestBody": {"content": content, "required": True},
        "responses": {
            "200": {"description": "The answer", "content": _content(_answer(name))},
            **_failures(service),
        },
    }


def _session(name: str, service: Service) -> Object:
    schema = msgspec.json.format(msgspec.json.encode(service.envelopes.request)).decode()
    return {
        "operationId": f"{name}.athena_session",
        "tags": [name],
        "summary": f"Talk with {name} in Athena envelopes",
        "description": f"{SESSION}\nJSON Schema of a frame:\n\n```json\n{schema}\n```",
        "responses": {
            "101": {"description": "The connection is a WebSocket from here on."},
            **_failures(service),
        },
    }


def _failures(service: Service) -> Object:
    signed = {"description": "A signature is missing or wrong, where the server wants one."}
    told = {"description": "What went wrong", "content": _content(FAILURE)}
    usual = {"500": told} if service.compatible else {"default": told}
    return {"401": signed, **usual}


def _failure() -> Object:
    text, whole = {"type": "string"}, {"type": "integer"}
    header = {
        "type": "object",
        "properties": {
            "code": {"type": "integer", "description": "10000 to 10999"},
            "message": text,
            "sid": text,
            "user_code": {**whole, "description": "The wrapper's own code, where it gave one"},
        },
        "required": ["code", "message", "sid"],
    }
    return {
        "type": "object",
        "properties": {"header": header, "payload": {"type": "null"}},
        "required": ["header"],
    }


def _content(component: str) -> Object:
    return {"application/json": {"schema": {"$ref": COMPONENTS + component}}}
