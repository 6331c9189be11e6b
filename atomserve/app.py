"""The application that an API process serves: models behind surfaces behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from atomserve.backends.local import ThreadBackend
from atomserve.backends.prepared import Prepared, prepare
from atomserve.backends.processes import ProcessBackend
from atomserve.codecs.athena.service import DIALECT, ROOT, Service
from atomserve.engine.backend import Backend
from atomserve.engine.engine import Engine, Watcher
from atomserve.engine.models import Model
from atomserve.errors import AtomError, MethodNotAllowed, NotFound
from atomserve.guard.client import client_of
from atomserve.guard.guard import Dress, Guard
from atomserve.guard.problems import Refusal
from atomserve.guard.resets import reset
from atomserve.orders import Orders
from atomserve.plugins import Source, by_name, check_tables
from atomserve.settings import Cors, Settings
from atomserve.signature import Signature
from atomserve.surfaces import docs, health, metrics, native, openapi, status
from atomserve.surfaces.athena.endpoint import AthenaEndpoint, nowhere
from atomserve.surfaces.athena.keys import read_keys
from atomserve.surfaces.athena.sockets import Sockets
from atomserve.surfaces.requests import Entry
from atomserve.surfaces.sessions import SessionEndpoint
from atomserve.telemetry.counters import Registry
from atomserve.telemetry.logs import AccessLog
from atomserve.telemetry.requests import RequestCounts

EXPOSED = ("X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy", "Cache-Status")
"""Header fields of answers that pages of other origins may read."""


def create(
    settings: Settings,
    sources: Sequence[Source],
    access: AccessLog | None = None,
    *,
    expected: int = 0,
) -> App:
    """Build the application; nothing runs before its lifespan begins.

    ``sources`` run as threads of this process; ``expected`` more models will be offered by the
    supervisor, whose workers run them.

    Raises:
        PluginError: a plugin cannot be imported or validated.
        ConfigError: its configuration does not fit.
    """
    models = [(source, prepare(source, settings)) for source in sources]
    named = by_name((model.name, source) for source, model in models)
    if not expected:
        check_tables(settings, named)
    app = App(settings, access, expected=len(models) + expected)
    for _, model in models:
        app.add(model.name, thread_backend(model))
    return app


def thread_backend(model: Prepared) -> ThreadBackend:
    """Make the backend that serves ``model`` in threads of this process."""
    return ThreadBackend(model.make_runner, model.options)


def _load(source: Source, *, settings: Settings) -> tuple[str, Backend]:
    model = prepare(source, settings)
    return model.name, thread_backend(model)


class App:
    """An ASGI application that can be watched, drained and aborted.

    Requests to a model go by a dict straight to its endpoint; all others through Starlette.
    """

    def __init__(
        self, settings: Settings, access: AccessLog | None = None, *, expected: int
    ) -> None:
        self.engine = Engine(expected=expected, readiness=settings.readiness)
        self._settings = settings
        registry = Registry()
        self._waits = metrics.waits(registry)
        self._whole = status.Whole(self.engine, registry, lambda: self.in_flight)
        self._endpoints: dict[str, ASGIApp] = {}
        self._refusals: dict[str, Refusal] = {}
        self._services = f"{settings.prefix}{ROOT}"
        self._sockets = Sockets(
            origins=settings.cors.origins,
            largest=settings.limits.body,
            stall=settings.limits.send_stall,
        )
        self._keys = read_keys(settings.aiges.keys_file)
        self.orders = Orders(self._whole, add=self.add, load=partial(_load, settings=settings))
        self._others = self._router(settings)
        inner: ASGIApp = self._dispatch
        dress: Dress | None = None
        if settings.cors.origins:
            inner = cors = _with_cors(inner, settings.cors)
            dress = partial(_dressed, cors)
        self._guard = Guard(
            inner,
            limits=settings.limits,
            access=access,
            counts=RequestCounts(registry),
            trusted_proxies=settings.trusted_proxies,
            reset=reset,
            dress=dress,
            refusals=self._refusals,
        )
        metrics.watch(registry, self.engine, self._guard, access)

    def add(self, name: str, backend: Backend) -> Model:
        """Serve one more model."""
        settings = self._settings
        model = self.engine.add(name, backend)
        model.waited = self._waits.child(name).observe
        path = f"{settings.prefix}/v1/models/{name}"
        entry = partial(Entry, model, tenant_header=settings.tenant_header or "")
        if isinstance(backend, ProcessBackend):  # threads run wrappers of our own kind alone
            self._speak(entry, backend.signature.dialects)
        self._endpoints[f"{path}/predict"] = native.Predict(
            entry(f"{path}/predict"), silence=settings.event_silence
        )
        self._endpoints[f"{path}/session"] = SessionEndpoint(
            entry(f"{path}/session"),
            origins=settings.cors.origins,
            largest=settings.limits.body,
            stall=settings.limits.send_stall,
        )
        return model

    def _speak(self, entry: Callable[[str], Entry], dialects: dict[str, Any]) -> None:
        """Let a model be asked in the dialects that it speaks, too; ``entry`` makes a way in."""
        if DIALECT not in dialects:
            return
        service = msgspec.convert(dialects[DIALECT], Service)
        path = f"{self._settings.prefix}{service.path}"
        endpoint = AthenaEndpoint(entry(path), service, self._sockets, self._keys)
        self._endpoints.setdefault(path, endpoint)
        self._refusals.setdefault(path, endpoint.refusal())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        await self._guard(scope, receive, send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] != "lifespan" else None
        if endpoint is not None:
            return await endpoint(scope, receive, send)
        if self._refusals and scope.get("path", "").startswith(self._services):
            return await nowhere(scope, receive, send)
        if scope["type"] == "websocket":
            raise NotFound(f"no WebSocket is served under {scope['path']!r}")
        scope["app"] = self  # Starlette's routes raise only inside of an application.
        try:
            await self._others(scope, receive, send)
        except HTTPException as exc:
            raise _refusal(scope, exc) from exc
        finally:
            if scope["type"] == "http":
                client_of(scope).route = getattr(scope.get("route"), "path", "")
        return None

    def takes(self, model: str) -> str:
        """Say what requests to ``model`` are, as far as that is known."""
        signature = self.engine.models[model].signature
        return "call" if signature is None else signature.takes

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher(model, state, detail)`` on the loop at each change."""
        self.engine.watch(watcher)

    @property
    def ready(self) -> bool:
        return self.engine.ready

    @property
    def in_flight(self) -> int:
        """Requests and WebSockets that have begun and not ended."""
        return self._guard.in_flight

    async def idle(self) -> None:
        """Return when nothing is in flight."""
        await self._guard.idle()

    def begin_drain(self) -> None:
        """Answer not ready from now on, and ask clients to close their connections."""
        self.engine.draining = True
        self._sockets.drain()
        self._guard.draining = True

    def abort(self) -> None:
        """Let everything in flight fail as ``draining``."""
        self.engine.abort()

    def signatures(self) -> dict[str, Signature]:
        """Return the signature of each model that has loaded."""
        models = self.engine.models.values()
        return {model.name: model.signature for model in models if model.signature is not None}

    def _router(self, settings: Settings) -> Router:
        prefix = settings.prefix
        routes = [
            *health.routes(status.Checks(self.engine)),
            *metrics.routes(self._whole),
            *status.routes(self._whole, prefix),
            *native.routes(self.engine, self._whole, prefix),
        ]
        if settings.docs:
            title = ", ".join(self.engine.models) or "atomserve"
            routes += openapi.routes(
                self.signatures, prefix=prefix, title=title, version=version("atomserve")
            )
            routes += docs.routes(prefix=prefix, title=title)

        @asynccontextmanager
        async def lifespan(_: object) -> AsyncIterator[None]:
            async with self.engine.running(), self.orders.running():
                yield

        # A redirect would name the scheme and host that a proxy shows us, not the client's.
        return Router(routes, lifespan=lifespan, redirect_slashes=False)


def _refusal(scope: Scope, exc: HTTPException) -> AtomError:
    if exc.status_code == 405:
        allow = (exc.headers or {}).get("Allow", "GET").split(", ")
        return MethodNotAllowed(f"{scope['path']} takes {', '.join(allow)}", allow=allow)
    return NotFound(f"nothing is served under {scope['path']!r}")


def _with_cors(app: ASGIApp, cors: Cors) -> CORSMiddleware:
    return CORSMiddleware(
        app,
        allow_origins=cors.origins,
        allow_methods=cors.methods,
        allow_headers=cors.headers,
        allow_credentials=cors.credentials,
        max_age=cors.max_age,
        expose_headers=EXPOSED,
    )


def _dressed(cors: CORSMiddleware, scope: Scope, send: Send) -> Send:
    return partial(cors.send, send=send, request_headers=Headers(scope=scope))
