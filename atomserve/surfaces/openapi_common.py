"""What every server's OpenAPI document holds: the server's own paths, shared schemas, failures."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from atomserve.errors import (
    Abandoned,
    AdminError,
    AtomError,
    ConfigError,
    PluginError,
    all_errors,
    problem,
)
from atomserve.surfaces.openapi_schemas import COMPONENTS
from atomserve.telemetry.exposition import CONTENT_TYPES

Object = dict[str, Any]

UNSENT = (Abandoned, ConfigError, PluginError, AdminError)
"""What nobody is told who asks a model."""
ANYWHERE = (400, 405, 408, 413, 431, 500, 503)
"""What the guard before every route may answer."""

PRIORITY: Object = {
    "name": "Priority",
    "in": "header",
    "description": "How urgent it is (RFC 9218): `u=0`, the first to be served, to `u=7`.",
    "schema": {"type": "string", "default": "u=3"},
}
CACHE_STATUS: Object = {
    "description": "Of a cacheable model, what its cache did (RFC 9211): `atomserve; hit; ttl=60`.",
    "schema": {"type": "string"},
}


def server_paths(prefix: str, models: Sequence[str]) -> Object:
    """Return the paths that are there without any model; no probe stands under ``prefix``."""
    names = {"enum": list(models)} if models else {"type": "string"}
    check = {"name": "check", "in": "path", "required": True, "schema": names}
    return {
        f"{prefix}/v1/models": {"get": _list_models()},
        f"{prefix}/v1/status": {"get": _status()},
        "/metrics": {"get": _metrics()},
        "/livez": {"get": _health("livez", "Say whether the server runs")},
        "/readyz": {"get": _health("readyz", "Say whether requests are welcome")},
        "/readyz/{check}": {
            "parameters": [{**check, "description": "A model's name."}],
            "get": _health("readyz.check", "Say whether one model is ready", 404),
        },
        "/startupz": {"get": _health("startupz", "Say whether the server has started")},
        "/healthz": {"get": _health("healthz", "Say the same as /readyz")},
        f"{prefix}/openapi.json": {
            "get": {
                "operationId": "openapi",
                "tags": ["server"],
                "summary": "Return this document",
                "responses": {
                    "200": {
                        "description": "This document",
                        "content": {"application/json": {"schema": {"type": "object"}}},
                    },
                    **failing(*ANYWHERE),
                },
            }
        },
    }


def _list_models() -> Object:
    return {
        "operationId": "list_models",
        "tags": ["server"],
        "summary": "List the models",
        "responses": {"200": json_answer("All models", "Models"), **failing(*ANYWHERE)},
    }


def _status() -> Object:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": "status",
        "tags": ["server"],
        "summary": "Say how all processes, models and slots are",
        "responses": {"200": {"description": "All", "content": content}, **failing(*ANYWHERE)},
    }


def _metrics() -> Object:
    content = {form: {"schema": {"type": "string"}} for form in CONTENT_TYPES}
    return {
        "operationId": "metrics",
        "tags": ["server"],
        "summary": "Tell Prometheus what all processes have counted",
        "responses": {"200": {"description": "All", "content": content}, **failing(*ANYWHERE)},
    }


def _health(operation: str, summary: str, *others: int) -> Object:
    content = {
        "text/plain": {"schema": {"type": "string"}},
        "application/json": {"schema": {"$ref": f"{COMPONENTS}Health"}},
    }
    verbose = {
        "name": "verbose",
        "in": "query",
        "allowEmptyValue": True,
        "schema": {"type": "string"},
        "description": "List each model; no value is needed.",
    }
    return {
        "operationId": operation,
        "tags": ["server"],
        "summary": summary,
        "parameters": [verbose],
        "responses": {
            **failing(*ANYWHERE, *others),
            "200": {"description": "Yes", "content": content},
            "503": {"description": "No", "content": content},
        },
    }


def json_answer(description: str, schema: str) -> Object:
    """Return a response whose body is the component ``schema``."""
    content = {"application/json": {"schema": {"$ref": COMPONENTS + schema}}}
    return {"description": description, "content": content}


def schemas() -> Object:
    """Return the shared schemas by component name."""
    text = {"type": "string"}
    whole = {"type": ["integer", "null"]}
    fault = {"type": "object", "properties": {"path": text, "message": text}}
    slot = {
        "type": "object",
        "properties": {
            "slot": {"type": ["integer", "null"], "description": "null: a spare"},
            "pid": whole,
            "state": text,
            "busy": whole,
            "requests": whole,
            "restarts": whole,
            "rss": {"type": ["integer", "null"], "description": "Bytes"},
            "arena_bytes": whole,
        },
        "required": ["slot", "pid", "state"],
    }
    model = {
        "type": "object",
        "properties": {
            "name": text,
            "state": {"enum": ["loading", "ready", "restarting", "failed", "stopped"]},
            "detail": text,
            "version": text,
            "description": text,
            "signature": {"type": "object"},
            "queue": {"type": "object"},
            "running": {"type": "integer", "description": "Jobs that slots have"},
            "capacity": {"type": "integer", "description": "Jobs that a slot may run at once"},
            "slots": {"type": "array", "items": slot},
            "restarts": {"type": "object", "description": "Replaced workers, by cause"},
            "arena_bytes": {"type": "integer", "description": "Bytes of large bodies"},
            "partial": {"type": "boolean", "description": "Not every process answered"},
            "timeout": {"type": "number", "description": "Seconds"},
        },
        "required": ["name", "state"],
    }
    models = {"type": "array", "items": {"$ref": f"{COMPONENTS}Model"}}
    one = {"type": "object", "properties": {"state": text, "detail": text}, "required": ["state"]}
    return {
        "Problem": {
            "type": "object",
            "description": "Problem details (RFC 9457)",
            "properties": {
                "type": {"type": "string", "format": "uri"},
                "title": text,
                "status": {"type": "integer"},
                "detail": text,
                "code": {"enum": sorted(error.code for error in _sent())},
                "error": {"type": "string", "description": "The same text as detail"},
                "instance": text,
                "errors": {"type": "array", "items": {**fault, "required": ["path", "message"]}},
            },
            "required": ["type", "title", "status", "detail", "code", "error"],
        },
        "Model": model,
        "Models": {"type": "object", "properties": {"models": models}, "required": ["models"]},
        "Health": {
            "type": "object",
            "properties": {
                "ok": {"type": "boolean"},
                "detail": text,
                "models": {"type": "object", "additionalProperties": one},
            },
            "required": ["ok", "detail", "models"],
        },
    }


def failures() -> Object:
    """Return one response component for each status that a failure may have."""
    return {f"Error{status}": _failure(status) for status in sorted(statuses())}


def failing(*statuses: int) -> Object:
    """Return references to the failures of these statuses."""
    return {
        str(status): {"$ref": f"#/components/responses/Error{status}"}
        for status in sorted(statuses)
    }


def statuses() -> set[int]:
    """Return every status that a failure may have."""
    return {error.status for error in _sent()}


def _failure(status: int) -> Object:
    errors = [error() for error in _sent() if error.status == status]
    content = {
        "schema": {"$ref": f"{COMPONENTS}Problem"},
        "examples": {error.code: {"value": problem(error)} for error in errors},
    }
    failure: Object = {
        "description": "\n".join(f"- `{error.code}`: {error.title}." for error in errors),
        "content": {"application/problem+json": content},
    }
    if status in (429, 503):
        after = {"schema": {"type": "integer"}, "description": "Seconds to wait, where known."}
        failure["headers"] = {"Retry-After": after}
    if status == 429:
        failure["headers"] |= {
            "RateLimit-Policy": {
                "schema": {"type": "string"},
                "description": 'The limit that was met, and its size: `"queue";q=32`.',
            },
            "RateLimit": {
                "schema": {"type": "string"},
                "description": "What is left of it, and the seconds until there is more: "
                '`"queue";r=0;t=2`.',
            },
        }
    if status == 405:
        failure["headers"] = {"Allow": {"schema": {"type": "string"}}}
    return failure


def _sent() -> list[type[AtomError]]:
    return [error for error in all_errors().values() if not issubclass(error, UNSENT)]


def own_version() -> str:
    """Return the version of the server."""
    try:
        return metadata.version("atomserve")
    except metadata.PackageNotFoundError:  # It runs from a source tree.
        return "0"
