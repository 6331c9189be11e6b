"""Slots for wrappers whose ``predict`` is async: a thread with an event loop of its own.

Not the server's loop: a coroutine that blocks after all then hurts only its own model.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

import structlog

from atomserve.backends.runner import Runner
from atomserve.backends.threads import Life
from atomserve.context import current_context
from atomserve.engine.jobs import Job
from atomserve.engine.loops import Mailbox
from atomserve.engine.options import Options
from atomserve.engine.streams import LoopCredit
from atomserve.errors import Abandoned, AtomError, DeadlineExceeded, PluginError

log = structlog.get_logger("atomserve.backends")


class LoopSlot:
    """One copy of an async wrapper; up to ``capacity`` of its coroutines run at once."""

    def __init__(
        self, runner: Runner, options: Options, mailbox: Mailbox, on_room: Callable[[], None]
    ) -> None:
        self._runner = runner
        self._mailbox = mailbox
        self._on_room = on_room
        self._capacity = options.capacity
        self._idle = 0
        self._places = list(range(options.capacity))
        self._tasks: dict[Job, asyncio.Task[None]] = {}
        self._credits: dict[Job, LoopCredit] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self.life = Life(mailbox)
        name = f"atomserve {runner.model}"
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)

    def __repr__(self) -> str:
        return f"<LoopSlot: {self._idle} of {self._capacity} idle>"

    quick = False
    ahead = 0

    @property
    def busy(self) -> int:
        """Coroutines that run; unless they block, they end as soon as they are cancelled."""
        return 0 if self.life.error is not None else self._capacity - max(self._idle, 0)

    @property
    def room(self) -> int:
        return self._idle

    def run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.holder = self
            self._idle -= 1
            if job.takes == "stream":
                credit = self._credits[job] = LoopCredit()
                job.consumed = partial(self._post, credit.earn)
            self._post(self._begin, job)

    def drop(self, job: Job) -> None:
        """Cancel the coroutine of ``job``."""
        self._post(self._cancel, job)

    def start(self) -> None:
        """Start the thread: it loads, runs the examples and reports in ``life``."""
        self._thread.start()

    def stop(self) -> None:
        """Cancel what runs, then unload."""
        if self._stopping is not None:
            self._post(self._stopping.set)

    def _post(self, function: Callable[..., Any], *args: Any) -> None:
        assert self._loop is not None, "a slot is used only after it has loaded"
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            log.debug("slot.closed", model=self._runner.model)

    def _live(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._stopping = asyncio.Event()
            try:
                self._runner.load()
                for _ in self._runner.examples(lambda it: runner.run(it, context=copy_context())):
                    pass
            except PluginError as exc:
                self.life.report(exc)
            else:
                runner.run(self._serve(self._stopping))
            self._runner.unload()
        self.life.end()

    async def _serve(self, stopping: asyncio.Event) -> None:
        self._mailbox.post(self._ready)
        self.life.report()
        await stopping.wait()
        for task in self._tasks.values():
            task.cancel()

    def _ready(self) -> None:
        self._idle = self._capacity
        self._on_room()

    def _freed(self) -> None:
        self._idle += 1
        self._on_room()

    def _begin(self, job: Job) -> None:
        work: Coroutine[Any, Any, None] = self._work(job)
        task = self._tasks[job] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._done(job))

    def _cancel(self, job: Job) -> None:
        if (task := self._tasks.get(job)) is not None:
            task.cancel()

    def _done(self, job: Job) -> None:
        del self._tasks[job]
        self._credits.pop(job, None)
        self._mailbox.post(job.reply.fail, Abandoned())  # It may have been cancelled unbegun.
        self._mailbox.post(self._freed)

    async def _work(self, job: Job) -> None:
        post, reply = self._mailbox.post, job.reply
        if reply.ended:
            return
        if job.expired(time.monotonic()):
            post(reply.fail, DeadlineExceeded("the deadline passed before the request ran"))
            return
        place = self._places.pop()
        reply.begun(place)
        current_context.set(job.context)
        try:
            if job.takes == "call":
                answer = await self._runner.answer_async(job.payload)
                post(reply.answer, reply.prepared(answer))
            else:
                await self._stream(job)
        except AtomError as exc:
            post(reply.fail, exc)
        except asyncio.CancelledError:
            post(reply.fail, AtomError("the slot stopped"))
            raise
        except BaseException as exc:
            log.error("slot.failed", model=job.context.model, exc_info=exc)
            post(reply.fail, AtomError("an internal error; it is in the log"))
        finally:
            self._places.append(place)

    async def _stream(self, job: Job) -> None:
        credit, reply = self._credits[job], job.reply
        async for answer in self._runner.answers_async(job.payload):
            await credit.spend(len(answer.head) + len(answer.body))
            self._mailbox.post(reply.answer, reply.prepared(answer))
        self._mailbox.post(reply.end)
