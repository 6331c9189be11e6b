"""Each request in the log: who sent it and what it says, then how long its answer took."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import monotonic

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atomserve.guard.client import client_of
from atomserve.surfaces.linker_parameters import MOST_READ, shown_body, shown_query
from atomserve.telemetry.profiles import Profiles
from atomserve.telemetry.shown import shown_headers

PROFILING = b"PROFILING"

log = structlog.get_logger()


class Told:
    """An endpoint whose requests are told in the log, and profiled where the operator says so.

    ``profiles`` is None where nothing is ever profiled; ``always`` has each request profiled, not
    only those that ask for it.
    """

    def __init__(
        self, app: ASGIApp, *, parameters: bool, profiles: Profiles | None, always: bool
    ) -> None:
        self._app = app
        self._parameters = parameters
        self._profiles = profiles
        self._always = always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = monotonic()
        client = client_of(scope)
        facts = {
            "request_id": client.request_id,
            "method": scope["method"],
            "path": scope["path"],
        }
        scope, asked = _without_our_own(scope)
        if self._parameters:
            receive = _overhear(scope, receive, facts)
        try:
            with self._profiled(facts, asked):
                await self._app(scope, receive, send)
        finally:
            took = round((monotonic() - began) * 1000, 3)
            log.info("linker.duration", **facts, duration_ms=took)
        return None

    def _profiled(self, facts: dict[str, str], asked: bool) -> AbstractContextManager[None]:
        if self._profiles is None or not (asked or self._always):
            return nullcontext()
        return self._profiles.profiled(**facts)


def asks_for_profile(query: bytes) -> bool:
    """Say whether a query string asks that its request be profiled."""
    return any(_asks(part) for part in query.split(b"&"))


def _asks(part: bytes) -> bool:
    name, _, value = part.partition(b"=")
    return name == PROFILING and value.lower() not in (b"", b"0", b"false", b"no", b"off")


def _without_our_own(scope: Scope) -> tuple[Scope, bool]:
    """Return the scope for an endpoint, which takes PROFILING for an input, and what it said."""
    query: bytes = scope["query_string"]
    if PROFILING not in query:
        return scope, False
    parts = query.split(b"&")
    rest = b"&".join(part for part in parts if part.partition(b"=")[0] != PROFILING)
    return {**scope, "query_string": rest}, asks_for_profile(query)


def _overhear(scope: Scope, receive: Receive, facts: dict[str, str]) -> Receive:
    """Log the headers now, and what the request says when the endpoint has read all of it."""
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
    ]
    peer = scope.get("client")
    host = peer[0] if peer else ""
    log.info("linker.headers", **facts, host=host, headers=shown_headers(headers))

    def told(body: bytes, size: int) -> None:
        said = shown_body(dict(headers).get("content-type", ""), body, size)
        if scope["query_string"]:
            said["query"] = shown_query(scope["query_string"])
        if said:
            log.info("linker.parameters", **facts, **said)

    return _Overheard(receive, told)


class _Overheard:
    """The ``receive`` of an endpoint; ``told`` gets the body's beginning and size at its end."""

    def __init__(self, receive: Receive, told: Callable[[bytes, int], None]) -> None:
        self._receive = receive
        self._told: Callable[[bytes, int], None] | None = told
        self._kept = bytearray()
        self._size = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        if self._told is None or message["type"] != "http.request":
            return message
        piece = message.get("body", b"")
        self._size += len(piece)
        if room := MOST_READ - len(self._kept):
            self._kept += piece[:room]
        if not message.get("more_body", False):
            told, self._told = self._told, None
            told(bytes(self._kept), self._size)
        return message
