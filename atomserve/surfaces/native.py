"""Our own HTTP dialect: list the models, read one's signature, let one predict."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from atomserve.codecs.negotiation import stream_form
from atomserve.engine.engine import Engine
from atomserve.engine.models import Model
from atomserve.errors import BadRequest, MethodNotAllowed, NotFound
from atomserve.surfaces.bodies import read_body, send_answer
from atomserve.surfaces.events import FORMATS, send_events
from atomserve.surfaces.requests import Entry, Head
from atomserve.surfaces.status import Whole

GLANCE = 0.25
"""Seconds that the description of a model waits for the other processes."""


class Predict:
    """``POST /v1/models/{name}/predict``: one model's endpoint, a plain ASGI app."""

    def __init__(self, entry: Entry, *, silence: float) -> None:
        self._entry = entry
        self._silence = silence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors are raised, for the guard to answer."""
        entry = self._entry
        client = entry.client(scope)
        if scope.get("method") != "POST":  # a WebSocket's handshake has none
            raise MethodNotAllowed(f"{entry.route} takes POST only", allow=("POST",))
        model = entry.model
        signature = model.check(client.tenant)
        if signature.takes == "session":
            raise BadRequest(f"model {model.name!r} takes sessions: open a WebSocket on /session")
        head = Head(scope["headers"])
        payload = head.payload(signature, scope["query_string"])
        form = FORMATS[stream_form(head.accept)] if signature.streams else None
        payload.body = await read_body(receive, head.length, model.sink)
        if form is not None:
            stream = entry.stream(payload, head, client)
            return await send_events(send, stream, form, silence=self._silence)
        call = entry.call(payload, head, client)
        await send_answer(send, await call.answer(), call.headers)
        return None


def describe(model: Model, *, full: bool) -> dict[str, Any]:
    """Describe ``model`` for a client: its state, its signature if it has one yet."""
    found: dict[str, Any] = {"name": model.name, "state": model.state}
    if model.detail:
        found["detail"] = model.detail
    if model.signature is None:
        return found
    found["version"] = model.signature.version
    found["description"] = model.signature.description
    if full:
        options = model.options
        found["signature"] = model.signature
        found["capacity"] = options.capacity
        found["timeout"] = options.timeout
    return found


def routes(engine: Engine, whole: Whole, prefix: str) -> list[Route]:
    """Return the routes that list and describe models."""

    async def listing(_: Request) -> Response:
        return _json(
            {"models": [describe(m, full=False) for _, m in sorted(engine.models.items())]}
        )

    async def one(request: Request) -> Response:
        model = engine.model(request.path_params["name"])
        status, _ = await whole.look(GLANCE)
        found = status.models[model.name]
        at_work = {
            "queue": found.queue,
            "running": found.running,
            "slots": found.slots,
            "restarts": found.restarts,
            "arena_bytes": found.arena_bytes,
            "partial": status.partial,
        }
        return _json(describe(model, full=True) | at_work)

    async def nobody(request: Request) -> Response:
        # Of those that are served, the application knows these paths by heart.
        engine.model(request.path_params["name"])
        raise NotFound

    return [
        Route(f"{prefix}/v1/models", listing),
        Route(f"{prefix}/v1/models/{{name}}", one),
        Route(f"{prefix}/v1/models/{{name}}/predict", nobody, methods=["POST"]),
        Route(f"{prefix}/v1/models/{{name}}/session", nobody),
    ]


def _json(document: object) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")
