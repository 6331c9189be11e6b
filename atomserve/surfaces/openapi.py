"""The OpenAPI 3.1 document of everything that is served, built from signatures alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from atomserve.signature import Signature
from atomserve.surfaces import openapi_common as common
from atomserve.surfaces.openapi_forms import Forms, raw_input

Models = Mapping[str, Signature]
Object = dict[str, Any]

LARGEST_EXAMPLE = 32 * 1024
LONGEST_ARGUMENT = 400
ENDINGS = {"image": "png", "audio": "wav", "video": "mp4", "tensor": "npy", "blob": "bin"}

DESCRIPTION = """\
Every failure is an [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem whose `code` is \
stable. `Accept` chooses the form of an answer.
"""

SESSION = """\
Upgrade to a WebSocket. Text frames hold one JSON envelope each, binary frames the same in msgpack.

- The client sends `{"data": {...}}`, an object of inputs, and at last `{"end": true}`.
- The server sends `{"data": ...}`, one answer each, then `{"end": true}` or `{"error": {...}}`, \
a problem.

It closes with 1000 (end), 1008 (policy), 1009 (too big), 1011 (failed), 1012 (restart) or 1013 \
(try later).
"""


def document(
    models: Models, *, prefix: str = "", title: str, version: str, description: str = ""
) -> Object:
    """Describe ``models``, served under ``prefix``, and the routes that every server has."""
    about = f"{description}\n\n{DESCRIPTION}" if description else DESCRIPTION
    paths: Object = {}
    schemas = common.schemas()
    for name, signature in models.items():
        forms = Forms(name, signature)
        schemas |= forms.components
        own = f"{prefix}/v1/models/{name}"
        paths[own] = {"get": _describe_model(name)}
        if signature.talks:
            paths[f"{own}/session"] = {"get": _session(name, signature, forms)}
        if signature.takes != "session":
            paths[f"{own}/predict"] = {"post": _predict(name, signature, forms, f"{own}/predict")}
    return {
        "openapi": "3.1.1",
        "info": {"title": title, "version": version, "description": about},
        # Relative to this document, so that it holds behind a proxy that cuts off a path.
        "servers": [{"url": "../" * prefix.count("/") or "./", "description": "This server"}],
        "tags": [_tag(name, signature) for name, signature in models.items()]
        + [{"name": "server", "description": "The models together, and how they are."}],
        "paths": {**paths, **common.server_paths(prefix, list(models))},
        "components": {"schemas": schemas, "responses": common.failures()},
    }


def routes(
    models: Callable[[], Models],
    *,
    prefix: str = "",
    title: str = "atomserve",
    version: str = "",
    description: str = "",
    edit: Callable[[Object], Object] = lambda document: document,
) -> list[Route]:
    """Serve the document of what ``models`` returns, encoded anew only when that changes.

    ``version`` is the server's own unless given. ``edit`` returns the document as it is served.
    """
    version = version or common.own_version()
    known: Object = {}
    body = b""

    async def openapi(request: Request) -> Response:
        nonlocal known, body
        current = dict(models())
        if not body or current != known:
            found = document(
                current, prefix=prefix, title=title, version=version, description=description
            )
            known, body = current, msgspec.json.encode(edit(found))
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-cache"})

    return [Route(f"{prefix}/openapi.json", openapi, name="openapi")]


def _tag(name: str, signature: Signature) -> Object:
    description = f"Version {signature.version}. {_summary(signature)}".strip()
    return {"name": name, "description": description}


def _summary(signature: Signature) -> str:
    return signature.description.partition("\n")[0]


def _predict(name: str, signature: Signature, forms: Forms, path: str) -> Object:
    content = forms.request()
    examples = _examples(signature)
    if examples:
        content["application/json"]["examples"] = examples
    curl = f"```sh\n{_curl(signature, path)}\n```"
    operation: Object = {
        "operationId": f"{name}.predict",
        "tags": [name],
        "summary": _summary(signature) or f"Ask {name}",
        "description": f"{signature.description}\n\n{curl}".strip(),
        "parameters": [*forms.query(), common.PRIORITY],
        "requestBody": {"content": content, "required": True},
        "responses": {
            "200": _answer(signature, forms),
            **common.failing(*common.statuses()),
        },
    }
    return operation


def _answer(signature: Signature, forms: Forms) -> Object:
    if not signature.streams:
        headers = {"Cache-Status": common.CACHE_STATUS}
        return {"description": "The answer", "headers": headers, "content": forms.answer()}
    description = (
        "A stream; the schema is that of one event, or of one line. Comments keep "
        "`text/event-stream` alive."
    )
    return {"description": description, "content": forms.answer()}


def _session(name: str, signature: Signature, forms: Forms) -> Object:
    sent, answer = forms.items()
    shapes = {"inputs": sent, "answer": answer}
    schemas = msgspec.json.format(msgspec.json.encode(shapes)).decode()
    return {
        "operationId": f"{name}.session",
        "tags": [name],
        "summary": _summary(signature) or f"Talk with {name}",
        "description": (
            f"{signature.description}\n\n{SESSION}\nJSON Schemas:\n\n```json\n{schemas}\n```"
        ).strip(),
        "parameters": [common.PRIORITY],
        "responses": {
            "101": {"description": "The connection is a WebSocket from here on."},
            **common.failing(*common.ANYWHERE, 404, 429),
        },
    }


def _describe_model(name: str) -> Object:
    return {
        "operationId": f"{name}.describe",
        "tags": [name],
        "summary": f"Say what {name} takes and how it is",
        "responses": {
            "200": common.json_answer("The model", "Model"),
            **common.failing(*common.ANYWHERE, 404),
        },
    }


def _examples(signature: Signature) -> Object:
    # A picture of megabytes, as base64, would make the document too heavy to be read or shown.
    return {
        f"example-{number}": {"summary": f"Example {number}", "value": inputs}
        for number, inputs in enumerate(signature.examples, 1)
        if len(msgspec.json.encode(inputs)) <= LARGEST_EXAMPLE
    }


def _curl(signature: Signature, path: str) -> str:
    url = f"http://localhost:8000{path}"
    streaming = ["-N"] if signature.streams else []
    inputs = signature.examples[0] if signature.examples else {}
    raw = raw_input(signature)
    if raw is None:
        content, body = "application/json", _argument(inputs, signature)
    else:
        content, body = raw.media_type, f"@{raw.name}.{ENDINGS[raw.kind]}"
        query = {
            field.name: _text(inputs.get(field.name, "..."))
            for field in signature.inputs
            if field.scalar and (field.required or field.name in inputs)
        }
        url += f"?{urlencode(query)}" if query else ""
    flag = "-d" if raw is None else "--data-binary"
    return shlex.join(["curl", *streaming, "-H", f"Content-Type: {content}", flag, body, url])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _argument(inputs: Mapping[str, Any], signature: Signature) -> str:
    text = msgspec.json.encode(inputs).decode()
    missing = any(field.required and field.name not in inputs for field in signature.inputs)
    return "@inputs.json" if missing or len(text) > LONGEST_ARGUMENT else text
