"""One worker process as the supervisor sees it, and the seat that it is in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import anyio
import structlog

from atomserve import control
from atomserve.settings import Settings
from atomserve.supervisor.children import HASTE, Child, Reprieve
from atomserve.supervisor.holdings import Holdings
from atomserve.supervisor.output import Output

LAST_WORDS = 0.5
"""Seconds that a hung worker gets to write where it hangs, before it is killed."""

log = structlog.get_logger("atomserve.supervisor")


class Inherited(NamedTuple):
    """What workers get as the supervisor found it: its log, and how many files may be open."""

    log_fd: int
    open_files: int


class Worker:
    """A running worker: what it has said of itself, and why it ends.

    ``settled`` tells that it has loaded or ended, ``leaving`` that its slot needs another.
    """

    def __init__(self, child: Child, seat: Seat) -> None:
        self.child = child
        self.deal = seat.deal
        self.slot = seat.index
        self.model = ""
        self.holdings = Holdings(child)
        self.state: Literal["starting", "loading", "ready", "retiring", "ended"] = "starting"
        self.dismissed = False
        """Whether its end was ordered, and is no reason to give the model up."""
        self.doomed = False
        """Whether it is being killed, because it hung or its job was cancelled."""
        self.seated = False
        """Whether it ever had a slot's seat, and so jobs."""
        self.excused = anyio.Event()
        """Set when its death is not to be held against the model."""
        self.unlinked = False
        """Whether an API process cannot use it, and it has to leave."""
        self.tired = ""
        """Why it wants to be replaced, if it does."""
        self.cause = "died"
        self.detail = ""
        self.began = anyio.current_time()
        self.startup = anyio.CancelScope()
        self.settled = anyio.Event()
        self.leaving = anyio.Event()

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        settings: Settings,
        source: Any,
        *,
        seat: Seat,
        inherited: Inherited,
    ) -> Worker:
        """Start a process for ``source`` that shall be in ``seat``.

        Raises:
            OSError: the system cannot start one more process.
        """
        log_fd, open_files = inherited
        child = Child.start(command, (log_fd,), captured=True)
        child.post(
            control.ConfigureWorker(settings, source, seat.deal, log_fd, os.getpid(), open_files)
        )
        return cls(child, seat)

    def __repr__(self) -> str:
        return f"<Worker {self.pid} in slot {self.slot}: {self.state}>"

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def serving(self) -> bool:
        return self.state in ("ready", "retiring")

    @property
    def reason(self) -> str:
        """Why it ended, in one line."""
        if self.detail:
            return self.detail
        if self.child.killed_by_stranger:
            return f"{self.child.fate}: out of memory?"
        return self.child.fate

    @property
    def facts(self) -> dict[str, object]:
        """Which one it is, for the log."""
        return {"model": self.model, "slot": self.slot, "pid": self.pid}

    def begin(self) -> None:
        """Let it serve, unless it has ended."""
        if self.state != "ended":
            self.state = "ready"
        self.settled.set()

    async def attend(self, hear: Callable[[control.Report], None]) -> None:
        """Listen to it, and log what its plugin writes, until it has ended."""
        output = Output(self.child.outputs, self._whose)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(output.follow)
            await self.child.attend(hear)
            tasks.cancel_scope.cancel()
        output.finish()
        self.child.close_outputs()
        self.state = "ended"
        self.holdings.close()

    async def settle(self, startup_timeout: float) -> None:
        """Return when it has loaded or ended; what takes too long is killed."""
        self.startup.deadline = self.began + startup_timeout
        with self.startup:
            await self.settled.wait()
        if not self.settled.is_set():
            limit = self.startup.deadline - self.began
            self.cause = "startup_timeout"
            self.detail = f"not loaded within startup_timeout ({limit:g} s)"
            self.child.kill()
            await self.settled.wait()

    async def retire(self, patience: float, awaited: Reprieve | None = None) -> None:
        """Let it end its jobs, unload and leave; kill it when ``patience`` seconds have passed.

        As long as it is ``awaited`` then, it gets as many again: a stream may have no limit, and
        whoever waits for a job says when that does not end.
        """
        self.dismissed = True
        if self.serving:
            self.state = "retiring"
            self.child.post(control.Retire())
            killed = await self.child.kill_after(patience, unless=awaited)
        else:  # it has nothing to unload, and may be deaf in a load
            killed = await self.stop()
        if killed:
            log.warning("worker.killed", **self.facts)

    async def stop(self) -> bool:
        """End it at once; return whether it had to be killed."""
        self.dismissed = True
        self.child.post(control.Stop())
        return await self.child.kill_after(HASTE)

    async def end_hung(self, cause: str) -> None:
        """Have it write where it hangs, unless its job was only cancelled, and kill it."""
        self.doomed = True
        self.cause = cause
        if cause == "cancelled":
            self.dismissed = True
            self.child.kill()
            return
        log.error("worker.hung", **self.facts)
        self.detail = "hung: it did not end a job in time"
        self.child.send_signal(signal.SIGABRT)
        await self.child.kill_after(LAST_WORDS)

    def _whose(self) -> dict[str, object]:
        return {"model": self.model, "slot": self.slot}


class Seat:
    """A slot's place for one worker, or the spare's behind them.

    ``deal`` is what the next process for it is started with: it decides the devices.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.deal = index
        self.worker: Worker | None = None
        self.restarts = -1

    def __repr__(self) -> str:
        return f"<Seat {self.index}: {self.worker}>"

    @property
    def serving(self) -> bool:
        return self.worker is not None and self.worker.serving

    def give(self, worker: Worker) -> Worker | None:
        """Let ``worker`` take it over from another; return that one if it still runs."""
        old, self.worker = self.worker, worker
        worker.slot = self.index
        worker.seated = True
        self.restarts += 1
        return old if old is not None and old.state != "ended" else None
