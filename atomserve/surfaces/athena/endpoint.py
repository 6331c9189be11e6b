"""``/v1/private/{serviceId}``: POST for a single request, a WebSocket for sessions, one path."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from uuid import uuid4

import msgspec
from starlette.types import Receive, Scope, Send

from atomserve.codecs.athena.answers import once_error
from atomserve.codecs.athena.errors import failure_of
from atomserve.codecs.athena.service import DIALECT, Ask, Service, write_ask
from atomserve.context import RawHeaders
from atomserve.engine.jobs import Payload
from atomserve.errors import AtomError, BadRequest, MethodNotAllowed, ModelNotFound
from atomserve.guard.client import client_of
from atomserve.guard.problems import Answer, Refusal, headers_of
from atomserve.signature import Signature
from atomserve.surfaces.athena.signing import Asked, Key, Signed, Unsigned, check_signature, refused
from atomserve.surfaces.athena.sockets import Sockets
from atomserve.surfaces.bodies import read_body, send_answer
from atomserve.surfaces.requests import Entry, Head

NOBODY = Signed("", "")
NO_SERVICE = Service(path="", statuses="native")


class AthenaEndpoint:
    """One model's endpoint, a plain ASGI app; with ``keys`` every request has to be signed."""

    def __init__(self, entry: Entry, service: Service, sockets: Sockets, keys: Mapping[str, Key]):
        self._entry = entry
        self._sockets = sockets
        self._keys = keys
        self._known: Signature | None = None
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket; errors are raised, for the guard to tell."""
        client = self._entry.client(scope)
        sid = str(uuid4())
        client.refusal = self.refusal(sid)
        if scope["type"] == "websocket":
            await receive()  # websocket.connect
            service, signed = self._checked(scope, "GET")
            if not service.stream:
                raise BadRequest("takes no sessions: send the request by POST")
            return await self._sockets.serve(
                scope, receive, send, entry=self._entry, service=service, signed=signed
            )
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{self._entry.route} takes POST, and WebSockets")
        service, signed = self._checked(scope, "POST")
        if not service.once:
            raise BadRequest("takes sessions: open a WebSocket")
        head = Head(scope["headers"])
        ask = Ask(sid, signed.app_id, signed.digest)
        payload = Payload(form="athena", answer="athena", query=write_ask(ask))
        payload.body = await read_body(receive, head.length, self._entry.model.sink)
        call = self._entry.call(payload, head, client)
        await send_answer(send, await call.answer(), call.headers)
        return None

    def refusal(self, sid: str = "") -> Refusal:
        """Return how errors are told here."""
        return partial(tell, sid=sid, service=self._service)

    def _checked(self, scope: Scope, method: str) -> tuple[Service, Signed]:
        """Check who asks, and whether the model is there to be asked."""
        signed = NOBODY
        if self._keys:
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            query = scope["query_string"].decode("latin-1")
            headers = RawHeaders(scope["headers"])
            path = raw.partition(b"?")[0].decode("latin-1")
            asked = Asked(method, path, query, _with_host(headers))
            signed = check_signature(asked, self._keys, time.time())
        signature = self._entry.model.check(client_of(scope).tenant)
        if signature is not self._known:
            self._known = signature
            self._service = msgspec.convert(signature.dialects[DIALECT], Service)
        return self._service, signed


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse what is asked of a service that is not there, as its clients understand it."""
    client_of(scope).refusal = partial(tell, sid="", service=NO_SERVICE)
    raise ModelNotFound(f"no service is served under {scope['path']!r}")


def tell(error: AtomError, *, sid: str, service: Service) -> Answer:
    """Return the status, the headers and the body that tell an Athena client of ``error``."""
    if isinstance(error, Unsigned):
        status, body = refused(error)
    else:
        failure = failure_of(error)
        status, body = once_error(failure, sid or str(uuid4()), compatible=service.compatible)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *headers_of(error),
    ]
    return status, headers, body


def _with_host(headers: RawHeaders) -> Mapping[str, str]:
    """Return the headers with the host that HTTP/2 tells by another name."""
    if "host" not in headers and ":authority" in headers:
        return {**headers, "host": headers[":authority"]}
    return headers
