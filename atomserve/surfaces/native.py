"""Our own HTTP dialect: list the models, read one's signature, let one predict."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from atomserve.codecs.negotiation import answer_form, request_form, stream_form
from atomserve.context import Context, RawHeaders
from atomserve.engine.engine import Engine
from atomserve.engine.jobs import Payload
from atomserve.engine.models import Model
from atomserve.errors import BadRequest, MethodNotAllowed, NotFound, UnsupportedMedia
from atomserve.guard.client import client_of
from atomserve.signature import Signature
from atomserve.surfaces.bodies import read_body, send_answer
from atomserve.surfaces.events import FORMATS, send_events
from atomserve.surfaces.status import Whole

GLANCE = 0.25
"""Seconds that the description of a model waits for the other processes."""
SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?").fullmatch


class Predict:
    """``POST /v1/models/{name}/predict``: one model's endpoint, a plain ASGI app."""

    def __init__(self, model: Model, route: str, *, silence: float) -> None:
        self._model = model
        self._route = route
        self._silence = silence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; errors are raised, for the guard to answer."""
        model, client = self._model, client_of(scope)
        client.model, client.route = model.name, self._route
        if scope.get("method") != "POST":  # a WebSocket's handshake has none
            raise MethodNotAllowed(f"{self._route} takes POST only", allow=("POST",))
        signature = model.check()
        if signature.takes == "session":
            raise BadRequest(f"model {model.name!r} takes sessions: open a WebSocket on /session")
        head = Head(scope["headers"])
        payload = head.payload(signature, scope["query_string"])
        payload.body = await read_body(receive, head.length, model.sink)
        context = Context(
            model=model.name, request_id=client.request_id, headers=RawHeaders(scope["headers"])
        )
        if signature.streams:
            form = FORMATS[stream_form(head.accept)]
            stream = model.stream(payload, context, wait=head.wait)
            client.on_gone(stream.abandon)
            return await send_events(send, stream, form, silence=self._silence)
        call = model.call(payload, context, wait=head.wait)
        client.on_gone(call.abandon)
        await send_answer(send, await call.answer())
        return None


class Head:
    """What a predict request's headers say of its body and of the answer wanted."""

    __slots__ = ("accept", "content_type", "length", "wait")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self.content_type = self.accept = ""
        self.length: int | None = None
        self.wait: float | None = None
        """Seconds that the client will wait."""
        for name, value in raw:
            if name == b"content-type":
                self.content_type = value.decode("latin-1")
            elif name == b"accept":
                other = value.decode("latin-1")
                self.accept = f"{self.accept},{other}" if self.accept else other
            elif name == b"content-length":
                self.length = int(value)
            elif name == b"request-timeout":
                self.wait = _seconds(value.decode("latin-1"))
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise UnsupportedMedia(
                    f"Content-Encoding {value.decode('latin-1')!r} is not taken: send it plain"
                )

    def payload(self, signature: Signature, query: bytes) -> Payload:
        """Begin the payload of a request whose body is still to be read."""
        form = request_form(signature, self.content_type, empty=self.length == 0)
        answer, answer_type = answer_form(signature, self.accept)
        return Payload(
            form=form,
            media_type=self.content_type,
            query=query.decode("latin-1"),
            answer=answer,
            answer_type=answer_type,
        )


def _seconds(text: str) -> float:
    if not SECONDS(text):
        raise BadRequest("Request-Timeout: expected seconds, for instance 2.5")
    return float(text)


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
