"""Test doubles that several tests share."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import anyio
import anyio.abc

from atomserve import control
from atomserve.errors import PluginError


class FakeOrders:
    """What ``server.process.Orders`` asks for; little is ordered where no worker is."""

    def attach(self, report: Callable[[control.Report], None]) -> None:
        pass

    def remote(self, model: str) -> bool:
        return False

    def obey(self, order: control.Order) -> None:
        assert isinstance(order, control.RegistrationState), order

    async def link(self, *_: Any) -> None:
        raise AssertionError("there is no worker")


class FakeApplication:
    """What ``server.process.Application`` asks for, with faults to choose by ``options``."""

    def __init__(self, options: dict[str, Any]) -> None:
        if "bad_plugin" in options:
            raise PluginError(options["bad_plugin"])
        if options.get("crash"):
            os._exit(7)
        if seconds := options.get("slow_import"):
            time.sleep(seconds)
        self.options = options
        self.in_flight = 0
        self.ready = False
        self.draining = False
        self.aborted = anyio.Event()
        self._idle = anyio.Event()
        self._idle.set()
        self._tell: Callable[[str, str, str], None]
        self.orders = FakeOrders()

    def watch(self, callback: Callable[[str, str, str], None]) -> None:
        self._tell = callback

    def begin_drain(self) -> None:
        self.draining, self.ready = True, False

    def takes(self, model: str) -> str:
        return "call"

    def abort(self) -> None:
        self.aborted.set()

    async def idle(self) -> None:
        while self.in_flight:
            await self._idle.wait()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            async with anyio.create_task_group() as tasks:
                await self._live(tasks, receive, send)
            return
        self.in_flight += 1
        if self._idle.is_set():
            self._idle = anyio.Event()
        try:
            await self._answer(scope, send)
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def _live(self, tasks: anyio.abc.TaskGroup, receive: Any, send: Any) -> None:
        await receive()
        if "bad_model" in self.options:
            raise PluginError(self.options["bad_model"])
        if self.options.get("stuck_thread"):
            threading.Thread(target=time.sleep, args=(3600,)).start()
        tasks.start_soon(self._load)
        if "dies_after" in self.options:
            tasks.start_soon(self._die)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self.options.get("stuck_unload"):
            await anyio.sleep_forever()
        tasks.cancel_scope.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _load(self) -> None:
        self._tell("echo", "loading", "")
        await anyio.sleep(self.options.get("load", 0))
        self.ready = not self.draining
        self._tell("echo", "ready", "")

    async def _die(self) -> None:
        await anyio.sleep(self.options["dies_after"])
        raise RuntimeError("the engine died")

    async def _answer(self, scope: Any, send: Any) -> None:
        path, query = scope["path"], parse_qs(scope["query_string"].decode())
        status, body = 200, b""
        if path == "/readyz":
            status = 200 if self.ready else 503
        elif path == "/pid":
            body = str(os.getpid()).encode()
        elif path == "/count":
            body = str(self.in_flight).encode()
        elif path == "/die":
            os._exit(9)
        elif path == "/version":
            body = f"{scope['scheme']} {scope['http_version']}".encode()
        elif path == "/stray":
            body = str(subprocess.Popen(["sleep", "60"]).pid).encode()
        elif path == "/big":
            body = bytes(int(query["n"][0]))
        elif path == "/orphan":
            if os.fork() == 0:  # in between: its child is left to the first process
                if os.fork() == 0:
                    time.sleep(0.3)
                os._exit(0)
            os.wait()
        elif path == "/sleep":
            with anyio.move_on_after(float(query["s"][0])) as scope_:
                await self.aborted.wait()
            status, body = (200, b"slept") if scope_.cancelled_caught else (503, b"draining")
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-length", str(len(body)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": body})
