"""One hosted application: its lifespan entered, its requests passed on, its end bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from atomserve.errors import Draining, NotReady
from atomserve.guard.client import Client, ClientGone, client_of
from atomserve.guard.exchange import Exchange
from atomserve.guard.handshakes import SWITCHING, Handshake
from atomserve.hosting.lifespan import Lifespan
from atomserve.loading import cause_of

ROUTE = "app"
"""The route of all its requests in metrics and access records: its own paths are unbounded."""
CLOSE_RESTART = 1012
OBEDIENCE = 0.1
"""Seconds that an aborted request's code gets to end, before its client is answered without it."""

State = Literal["loading", "ready", "failed"]
Watcher = Callable[[str, str, str], None]

log = structlog.get_logger("atomserve.app")


class HostedApp:
    """Runs ``app`` on the loop of this process, from `running`'s beginning to its end.

    It is ``loading`` until its lifespan has begun. An app whose start fails, or whose lifespan
    ends by itself, is ``failed`` for good. At the end it has ``patience`` seconds.
    """

    def __init__(self, name: str, app: ASGIApp, *, patience: float) -> None:
        self.name = name
        self.state: State = "loading"
        self.detail = ""
        self._app = app
        self._lifespan = Lifespan(app)
        self._patience = patience
        self._changed: Watcher = _unwatched
        self._running: dict[anyio.CancelScope, Client] = {}
        self._aborted = False
        self._tasks: anyio.abc.TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<HostedApp {self.name}: {self.state}, {len(self._running)} requests>"

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher`` with name, state and detail at each change."""
        self._changed = watcher

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Enter its lifespan without waiting for it; leave it, bounded, at the block's end."""
        self._changed(self.name, self.state, self.detail)
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._live)
            tasks.start_soon(self._greet)
            try:
                yield
            finally:
                with anyio.move_on_after(self._patience, shield=True) as bound:
                    if self.state == "ready":
                        await self._lifespan.shut_down()
                if bound.cancelled_caught:
                    log.warning("app.not_stopped", app=self.name, seconds=self._patience)
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request or WebSocket on.

        Raises:
            NotReady: it has not started, or failed to.
            Draining: it was aborted.
            ClientGone: whatever it raised since its client left.
        """
        client = client_of(scope)
        client.route = ROUTE
        if self._aborted:
            raise Draining
        if self.state != "ready":
            soon = 1.0 if self.state == "loading" else None
            raise NotReady(f"the app {self.name!r} is {self.state}", retry_after=soon)
        with anyio.CancelScope() as running:
            self._running[running] = client
            try:
                return await self._lifespan(scope, receive, send)
            except WebSocketDisconnect:  # of a client that has left, as clients do
                return None
            except Exception as exc:
                if client.gone:
                    raise ClientGone("the client left") from exc
                raise
            except SystemExit as exc:  # one request must not end the process
                raise RuntimeError("the app called sys.exit") from exc
            finally:
                del self._running[running]
        return await self._break_off(client)

    def abort(self) -> None:
        """Let everything in flight end now, as ``draining``."""
        self._aborted = True
        for running in self._running:
            running.cancel()
        if self._running and self._tasks is not None:
            self._tasks.start_soon(self._answer_the_rest)

    async def _live(self) -> None:
        """Run its lifespan; one that it has not is no failure."""
        lifespan = self._lifespan
        try:
            await lifespan.run()
        except (Exception, SystemExit) as exc:
            if lifespan.stopping:
                log.error("app.stop_failed", app=self.name, exc_info=exc)
            elif lifespan.started.is_set():
                self._fail("its lifespan ended", exc)
            elif lifespan.failure or isinstance(exc, SystemExit):
                self._fail("its start failed", exc)
            else:  # as the specification says of whatever raises at the mere question
                log.info("app.without_lifespan", app=self.name, reason=cause_of(exc))
                lifespan.started.set()

    async def _greet(self) -> None:
        await self._lifespan.started.wait()
        if self.state == "loading":
            self._become("ready")

    def _fail(self, what: str, exc: BaseException) -> None:
        log.error("app.failed", app=self.name, exc_info=exc)
        self._become("failed", f"{what}: {cause_of(exc)}")

    def _become(self, state: State, detail: str = "") -> None:
        self.state, self.detail = state, detail
        self._changed(self.name, state, detail)

    async def _break_off(self, client: Client) -> None:
        """End what was cancelled: a WebSocket by its close code, all else as ``draining``."""
        if isinstance(client, Handshake) and client.status == SWITCHING:
            if not client.ended:
                await client.send({"type": "websocket.close", "code": CLOSE_RESTART})
            return
        if isinstance(client, Exchange) and client.finished:
            return
        raise Draining

    async def _answer_the_rest(self) -> None:
        """Answer whose code cannot be cancelled, such as a plain function in a thread."""
        await anyio.sleep(OBEDIENCE)
        for client in list(self._running.values()):
            if isinstance(client, Exchange) and not (client.status or client.gone):
                try:
                    await client.answer(Draining(), client.send)
                except ClientGone:
                    continue


def _unwatched(*_: str) -> None:
    pass
