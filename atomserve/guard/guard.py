"""The outermost ASGI application: no request reaches the others unless it is sane and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self

import anyio
from starlette.types import ASGIApp, Receive, Scope, Send

from atomserve.errors import Abandoned, AtomError, Internal
from atomserve.guard.admission import Proxies, RequestIds, body_length, check_fields, check_method
from atomserve.guard.bounds import Bounds
from atomserve.guard.client import Client, ClientGone
from atomserve.guard.exchange import Exchange
from atomserve.guard.failures import as_error, bare, log_failure
from atomserve.guard.handshakes import Handshake
from atomserve.guard.problems import Refusal, problem_response
from atomserve.settings import Limits
from atomserve.telemetry.logs import AccessLog
from atomserve.telemetry.requests import RequestCounts

YOUNG = 0.02
"""Seconds after which a request that is still running is watched: most are over before."""

_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})

Reset = Callable[[Send], Awaitable[None]]
Dress = Callable[[Scope, Send], Send]


class Guard:
    """Bounds what clients may do to ``app``; counts each request and tells of it in the access log.

    It runs while it is entered (``async with``), which it does by itself around the app's lifespan.
    ``reset`` breaks off an answer that cannot be finished, in the server's own way. ``dress`` puts
    on the answers that the guard gives itself what the app's own have on: CORS headers.
    ``refusal`` is how errors are told of where no surface has a way of its own; ``refusals`` are
    by path how those are that come before the app has a say.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        access: AccessLog | None = None,
        counts: RequestCounts | None = None,
        trusted_proxies: Sequence[str] = (),
        reset: Reset | None = None,
        dress: Dress | None = None,
        refusal: Refusal = problem_response,
        refusals: Mapping[str, Refusal] | None = None,
    ) -> None:
        self.app = app
        self.limits = limits
        self.in_flight = 0
        """Requests and WebSockets that have begun and not ended."""
        self._access = access
        self._counts = counts
        self._proxies = Proxies(trusted_proxies) if trusted_proxies else None
        self._reset = reset
        self._dress = dress
        self._refusal = refusal
        self._refusals = {} if refusals is None else refusals
        self._bounds = Bounds(limits)
        self._ids = RequestIds()
        self._young: dict[Exchange, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._empty: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<Guard: {self.in_flight} in flight, {self._bounds.held} bytes held>"

    @property
    def draining(self) -> bool:
        """Whether HTTP/1.1 answers ask their clients to close the connection."""
        return self._bounds.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._bounds.draining = value

    @property
    def bytes_held(self) -> int:
        """Bytes of request bodies that count against ``limits.bodies_in_flight``."""
        return self._bounds.held

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        while self.in_flight:
            if self._empty is None:
                self._empty = anyio.Event()
            await self._empty.wait()

    async def __aenter__(self) -> Self:
        self._bounds.tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        tasks, self._bounds.tasks = self._bounds.tasks, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._access is not None:
            self._access.flush()
        if tasks is None:
            return None
        tasks.cancel_scope.cancel()
        return await tasks.__aexit__(exc_type, exc, traceback)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._pass(scope, receive, send)
        exchange = Exchange(self._bounds, receive, send)
        self._begin(exchange)
        try:
            self._admit(exchange, scope)
            await self.app(scope, exchange.receive, exchange.send)
            if not exchange.finished:
                await exchange.finish()
        except Exception as exc:  # noqa: BLE001 - the app may be anybody's; it is logged and told
            await self._fail(exchange, bare(exc), scope, send)
        except asyncio.CancelledError:
            reason = exchange.interruption()
            if reason is None:
                raise
            await self._fail(exchange, reason, scope, send)
        finally:
            exchange.close()
            self._end(exchange, scope)
        return None

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        elif scope["type"] == "lifespan" and self._bounds.tasks is None:
            async with self:
                await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = monotonic()
        handshake = Handshake(scope, send)
        handshake.refusal = self._refusal
        scope["atomserve.client"] = handshake
        self.in_flight += 1
        try:
            fields = dict(scope["headers"])
            handshake.request_id = self._ids.of(fields)
            check_fields(scope["headers"], fields, self.limits)
            if self._proxies is not None:
                self._proxies.rewrite(scope)
            await self.app(scope, receive, handshake.send)
        except Exception as exc:  # noqa: BLE001 - as above
            await handshake.fail(bare(exc))
            if not handshake.ended and self._reset is not None:
                await self._reset(send)
        finally:
            self._count_out()
            self._record(handshake, scope, status=handshake.status, began=began)

    def _begin(self, exchange: Exchange) -> None:
        self.in_flight += 1
        self._young[exchange] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(YOUNG, self._watch_the_old)

    def _watch_the_old(self) -> None:
        # One timer for all, armed only while a request is young: one per request costs more.
        self._timer = None
        old = monotonic() - YOUNG
        while self._young:
            exchange = next(iter(self._young))
            if exchange.began > old:
                wait = max(exchange.began - old, YOUNG / 4)
                self._timer = asyncio.get_running_loop().call_later(wait, self._watch_the_old)
                return
            del self._young[exchange]
            exchange.watch()

    def _admit(self, exchange: Exchange, scope: Scope) -> None:
        """Judge a request by its head; raises what is to be answered instead of running the app."""
        headers = scope["headers"]
        version = scope["http_version"]
        scope["atomserve.client"] = exchange
        fields = dict(headers)
        exchange.request_id = self._ids.of(fields)
        exchange.plain = version[0] == "1"
        # Until its head has proved sane, a request is not believed to be framed as it says.
        exchange.closing = True
        exchange.refusal = self._refusal
        if self._refusals:
            exchange.refusal = self._refusals.get(scope["path"], self._refusal)
        check_fields(headers, fields, self.limits)
        check_method(scope["method"])
        exchange.bodiless = scope["method"] in _BODILESS
        exchange.expect(body_length(fields, version))
        exchange.closing = False
        if self._proxies is not None:
            self._proxies.rewrite(scope)

    async def _fail(self, exchange: Exchange, exc: Exception, scope: Scope, send: Send) -> None:
        """Tell the client, or the log, of what ended the app; break off what cannot be finished."""
        with suppress(ClientGone):
            if not (exchange.gone or exchange.status):
                error = exchange.failure or as_error(exc, exchange.request_id)
                answer = exchange.send if self._dress is None else self._dress(scope, exchange.send)
                await exchange.answer(error, answer)
            elif not (exchange.gone and isinstance(exc, AtomError | OSError)):
                exchange.code = exc.code if isinstance(exc, AtomError) else Internal.code
                log_failure(exc, exchange.request_id)
            if exchange.answered:
                await exchange.finish()
        if not exchange.finished and self._reset is not None:
            await self._reset(send)

    def _end(self, exchange: Exchange, scope: Scope) -> None:
        self._young.pop(exchange, None)
        if exchange.gone:
            exchange.code = exchange.code or Abandoned.code
            exchange.status = exchange.status or Abandoned.status
        self._count_out()
        self._record(
            exchange,
            scope,
            status=exchange.status,
            began=exchange.began,
            bytes_in=exchange.bytes_in,
            bytes_out=exchange.bytes_out,
        )

    def _count_out(self) -> None:
        self.in_flight -= 1
        if not self.in_flight and self._empty is not None:
            self._empty.set()
            self._empty = None

    def _record(
        self,
        client: Client,
        scope: Scope,
        *,
        status: int,
        began: float,
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> None:
        duration = monotonic() - began
        if self._counts is not None:
            self._counts.record(
                client.model,
                client.route,
                status,
                client.code,
                duration=duration,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
            )
        if self._access is None:
            return
        peer = scope.get("client")
        raw: bytes | None = scope.get("raw_path")
        self._access.record(
            request_id=client.request_id,
            method=scope.get("method", "GET"),
            path=scope["path"] if raw is None else raw.decode("latin-1"),
            status=status,
            duration=duration,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            client=peer[0] if peer else "",
            http_version=scope["http_version"],
            route=client.route,
            model=client.model,
            code=client.code,
        )
