"""A worker process linked to a backend in this process, with a supervisor of ten lines between."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec

from atomserve import control
from atomserve.backends.processes import ProcessBackend
from atomserve.engine.engine import Engine
from atomserve.engine.models import Model
from atomserve.plugins import Source
from atomserve.settings import ModelSettings, Settings
from atomserve.signature import Signature


class Instance:
    """One model, its engine, and the worker processes that were started for it."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self.source = source
        self.settings = settings
        self.hung: list[tuple[int, int, str]] = []
        self.told = anyio.Event()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.channels: list[control.Channel[control.Report]] = []
        self.reports: list[control.Report] = []
        self.model: Model
        self.backend: ProcessBackend

    def tell_hung(self, slot: int, pid: int, reason: str) -> None:
        self.hung.append((slot, pid, reason))
        self.told.set()

    async def start(self, tasks: anyio.abc.TaskGroup, engine: Engine | None = None) -> None:
        """Start one more worker and link it when it has loaded."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "atomserve.backends.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(), 2),
                stdin=subprocess.DEVNULL,
            )
        self.processes.append(process)
        channel: control.Channel[control.Report] = control.Channel(ours, control.Report)
        self.channels.append(channel)
        slot = len(self.processes) - 1
        channel.post(
            control.ConfigureWorker(
                self.settings, msgspec.to_builtins(self.source), slot, 2, os.getpid()
            )
        )
        tasks.start_soon(channel.deliver)
        loaded = anyio.Event()
        tasks.start_soon(self._listen, process.pid, channel, engine, loaded)
        await loaded.wait()
        frames, side = socket.socketpair(), socket.socketpair(type=socket.SOCK_SEQPACKET)
        link = control.Link("it", slot, process.pid)
        channel.post(link, (frames[1].fileno(), side[1].fileno()))
        frames[1].close()
        side[1].close()
        await self.backend.link(slot, process.pid, frames[0], side[0])
        self.backend.become("ready", "")

    async def _listen(
        self,
        pid: int,
        channel: control.Channel[control.Report],
        engine: Engine | None,
        loaded: anyio.Event,
    ) -> None:
        async for report in channel:
            self.reports.append(report)
            match report:
                case control.Described(name, signature, options) if engine is not None:
                    found = msgspec.json.decode(signature, type=Signature)
                    self.backend = ProcessBackend(found, options, self.tell_hung)
                    self.model = engine.add(name, self.backend)
                case control.Loaded():
                    loaded.set()
                case control.Broken() | control.Fatal():
                    raise AssertionError(report)
        self.backend.cut(pid)


@asynccontextmanager
async def instance(
    file: Path | str, *, workers: int = 1, name: str = "it", **options: Any
) -> AsyncIterator[Instance]:
    """Serve the wrapper in ``file`` by ``workers`` processes."""
    source = Source(name=name, kind="file", target=str(file), spec=str(file))
    settings = Settings(models={name: msgspec.convert(options, ModelSettings)})
    found = Instance(source, settings)
    engine = Engine(expected=1)
    try:
        async with engine.running(), anyio.create_task_group() as tasks:
            await found.start(tasks, engine)
            for _ in range(workers - 1):
                await found.start(tasks)
            while found.model.state != "ready":
                await anyio.sleep(0.001)
            yield found
            tasks.cancel_scope.cancel()
    finally:
        for channel in found.channels:
            channel.close()
        for process in found.processes:
            process.kill()
            process.wait()
