"""The application that an API process serves: models behind surfaces behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from atomserve.backends.local import ThreadBackend
from atomserve.backends.prepared import Prepared, prepare
from atomserve.backends.processes import ProcessBackend
from atomserve.codecs.athena.service import DIALECT, Service
from atomserve.engine.backend import Backend
from atomserve.engine.engine import Engine, Watcher
from atomserve.engine.models import Model
from atomserve.errors import NotFound
from atomserve.guard.guard import Dress, Guard
from atomserve.guard.problems import Refusal, problem_response
from atomserve.guard.resets import reset
from atomserve.hosting.foreign import Foreign, load_app
from atomserve.hosting.hosted import HostedApp
from atomserve.hosting.reserved import Reserved
from atomserve.orders import Orders
from atomserve.plugins import Source, by_name, check_tables
from atomserve.settings import Cors, Settings
from atomserve.signature import Signature
from atomserve.surfaces import docs, health, metrics, native, openapi, status
from atomserve.surfaces.admin.calls import Calls
from atomserve.surfaces.admin.listener import admin_guard
from atomserve.surfaces.athena.endpoint import AthenaEndpoint
from atomserve.surfaces.athena.keys import read_keys
from atomserve.surfaces.athena.sockets import Sockets
from atomserve.surfaces.linker import Conventions
from atomserve.surfaces.requests import Entry
from atomserve.surfaces.routing import route
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

    ``sources`` run in this process, models as threads of it; ``expected`` more models will be
    offered by the supervisor, whose workers run them.

    Raises:
        PluginError: a plugin cannot be imported or validated.
        ConfigError: its configuration does not fit.
        MissingExtra: it needs what is not installed.
    """
    foreign = [load_app(source, settings) for source in sources if source.kind == "app"]
    models = [(source, prepare(source, settings)) for source in sources if source.kind != "app"]
    named = by_name((model.name, source) for source, model in models)
    if not expected:
        check_tables(settings, named)
    app = App(
        settings,
        access,
        expected=len(models) + expected,
        foreign=foreign[0] if foreign else None,  # `atomserve.plugins.resolve` allows but one
    )
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

    Requests to a model go by a dict straight to its endpoint; all others through Starlette, or,
    where a ``foreign`` application is hosted, to that if their path is not one of ours.
    """

    def __init__(
        self,
        settings: Settings,
        access: AccessLog | None = None,
        *,
        expected: int,
        foreign: Foreign | None = None,
    ) -> None:
        self.engine = Engine(expected=expected, readiness=settings.readiness)
        self._settings = settings
        registry = Registry()
        self._waits = metrics.waits(registry)
        self._whole = status.Whole(self.engine, registry, lambda: self.in_flight)
        self._endpoints: dict[str, ASGIApp] = {}
        self._refusals: dict[str, Refusal] = {}
        self._sockets = Sockets(
            origins=settings.cors.origins,
            largest=settings.limits.body,
            stall=settings.limits.send_stall,
        )
        self._keys = read_keys(settings.aiges.keys_file)
        calls = Calls()
        self._linker: Conventions | None = None
        if settings.linker.conventions:
            self._linker = Conventions(settings.linker, prefix=settings.prefix)
        self.orders = Orders(
            self._whole,
            calls,
            add=self.add,
            load=partial(_load, settings=settings),
            told=None if foreign is None else foreign.told,
        )
        self.admin = admin_guard(settings, calls, self.engine, access)
        self._hosted = None if foreign is None else self._host(foreign, settings)
        routes = self._routes(settings, alone=foreign is not None and not expected)
        self._reserved = Reserved(routes)
        # A redirect would name the scheme and host that a proxy shows us, not the client's.
        self._others = Router(routes, lifespan=self._lifespan, redirect_slashes=False)
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
            refusal=self._linker.refusal if self._linker else problem_response,
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
        predict: ASGIApp = native.Predict(entry(f"{path}/predict"), silence=settings.event_silence)
        if self._linker:
            predict = self._linker.endpoint(predict)
        self._endpoints[f"{path}/predict"] = predict
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
        if scope["type"] == "lifespan":
            return await self._others(scope, receive, send)
        path = scope["path"]
        endpoint = self._endpoints.get(path)
        if endpoint is None and self._hosted is not None and path not in self._reserved:
            endpoint = self._hosted
            # An application with CORS of its own leaves them alone where the operator decides.
            scope["atomserve.cors"] = bool(self._settings.cors.origins)
        if endpoint is not None:
            return await endpoint(scope, receive, send)
        if scope["type"] == "websocket":
            raise NotFound(f"no WebSocket is served under {scope['path']!r}")
        await route(self._others, scope, receive, send)
        return None

    def takes(self, model: str) -> str:
        """Say what requests to ``model`` are, as far as that is known; "app" is no model at all."""
        if self._hosted is not None and model == self._hosted.name:
            return "app"
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
        if self.engine.draining:
            return
        self.engine.draining = True
        self._sockets.drain()
        self._guard.draining = True

    def abort(self) -> None:
        """Let everything in flight fail as ``draining``."""
        self.engine.abort()
        if self._hosted is not None:
            self._hosted.abort()

    def signatures(self) -> dict[str, Signature]:
        """Return the signature of each model that has loaded."""
        models = self.engine.models.values()
        return {model.name: model.signature for model in models if model.signature is not None}

    def _host(self, foreign: Foreign, settings: Settings) -> HostedApp:
        hosted = HostedApp(foreign.name, foreign.app, patience=settings.unload_timeout)
        self.engine.welcome(hosted)
        return hosted

    def _routes(self, settings: Settings, *, alone: bool) -> list[Route]:
        """Return what is served beside the models; ``alone``: there are none, but an app."""
        prefix = settings.prefix
        checks = status.Checks(self.engine, self._whole)
        routes = [
            *health.routes(checks),
            *(self._linker.routes(checks) if self._linker else ()),
            *metrics.routes(self._whole),
            *status.routes(self._whole, prefix),
        ]
        if alone:  # its models, and its docs, are its own
            return routes
        routes += native.routes(self.engine, self._whole, prefix)
        if settings.docs:
            title = settings.title or ", ".join(self.engine.models) or "atomserve"
            document = openapi.routes
            if self._linker:
                document = partial(document, edit=self._linker.documented)
            routes += document(
                self.signatures,
                prefix=prefix,
                title=title,
                version=version("atomserve"),
                description=settings.description or "",
            )
            routes += docs.routes(prefix=prefix, title=title)
        return routes

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        hosting = nullcontext() if self._hosted is None else self._hosted.running()
        async with self.engine.running(), self.admin, self.orders.running(), hosting:
            yield


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
