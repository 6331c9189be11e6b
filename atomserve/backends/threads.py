"""Slots that are threads: each owns its wrapper's threads and stays busy until they return."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

import anyio
import structlog

from atomserve.backends.servable import Servable
from atomserve.context import current_context
from atomserve.engine.jobs import Job, Payload
from atomserve.engine.loops import Mailbox
from atomserve.engine.options import Options
from atomserve.engine.streams import Credit
from atomserve.errors import Abandoned, AtomError, DeadlineExceeded, PluginError

log = structlog.get_logger("atomserve.backends")

T = TypeVar("T")

HOP = 16
"""Most short jobs that share one hop to the thread."""
SHORT = 0.001
"""Seconds: a slot whose 95th percentile is under this takes several jobs per hop."""
RARELY = 0.05


class Life:
    """What a slot's first thread tells the loop: loaded, or why not, and that it has ended."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.loaded = anyio.Event()
        self.ended = anyio.Event()
        self.error: PluginError | None = None

    def report(self, error: PluginError | None = None) -> None:
        """Called in the thread, once."""
        self.error = error
        self._mailbox.post(self.loaded.set)

    def end(self) -> None:
        """Called in the thread, last."""
        self._mailbox.post(self.ended.set)


class ThreadSlot:
    """One copy of a wrapper behind ``capacity`` threads of its own.

    A thread takes a hop of jobs, runs one after the other and posts each answer as it is there.
    A job nobody waits for any more is skipped; one that runs occupies its thread until it returns.
    """

    def __init__(
        self, runner: Servable, options: Options, mailbox: Mailbox, on_room: Callable[[], None]
    ) -> None:
        self._runner = runner
        self._capacity = options.capacity
        self._mailbox = mailbox
        self._on_room = on_room
        self._hops: SimpleQueue[Sequence[Job] | Callable[[], None] | None] = SimpleQueue()
        self._idle = 0
        self._late = 1.0  # Share of recent jobs over SHORT; a slot starts as a slow one.
        self._streams = False
        self._ways: dict[Job, _Way] = {}
        self.life = Life(mailbox)
        name = f"atomserve {runner.model}"
        # Daemons: a plugin that never returns must not keep the process from ending.
        self._threads = [
            threading.Thread(
                target=self._work if n else self._live, args=(n,), name=name, daemon=True
            )
            for n in range(options.capacity)
        ]

    def __repr__(self) -> str:
        return f"<ThreadSlot: {self._idle} of {self._capacity} threads idle>"

    @property
    def busy(self) -> int:
        """Threads that are in the wrapper's code, or about to be."""
        return 0 if self.life.error is not None else self._capacity - max(self._idle, 0)

    @property
    def room(self) -> int:
        idle = max(self._idle, 0)
        return idle * HOP if self.quick else idle

    ahead = 0

    @property
    def quick(self) -> bool:
        """Jobs are so short that several share a hop; none may wait behind a stream."""
        return self._late < RARELY and not self._streams

    def run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.holder = self
            if job.takes != "call":
                self._prepare_stream(job)
        each = -(-len(jobs) // self._idle)
        for start in range(0, len(jobs), each):
            self._idle -= 1
            self._hops.put(jobs[start : start + each])

    def do(self, act: Callable[[], T], done: Callable[[T], None]) -> None:
        """Have a thread run ``act``, which raises nothing, as it would run a job.

        It comes before all jobs that are not in a thread's hands yet; ``done`` gets on the loop
        what it returns.
        """
        self._idle -= 1  # below 0: the next thread that is free is not free for jobs
        self._hops.put(lambda: self._mailbox.post(done, act()))

    def _prepare_stream(self, job: Job) -> None:
        self._streams = True
        way = self._ways[job] = _Way()
        job.consumed = way.credit.earn
        if job.items is not None:
            job.items.attach(way.items.put)

    def drop(self, job: Job) -> None:
        """Make the thread's next step of ``job`` its last."""
        if (way := self._ways.get(job)) is not None:
            way.credit.close()
            if job.items is not None:
                job.items.close()
                way.items.put(None)  # once more: whoever has read the end may wait for answers

    def start(self) -> None:
        """Start the first thread: it loads, runs the examples and reports in ``life``."""
        self._threads[0].start()

    def stop(self) -> None:
        """Let each thread end after what it runs; the first one unloads."""
        for _ in self._threads:
            self._hops.put(None)

    def _live(self, place: int) -> None:
        try:
            self._runner.load()
            for _ in self._runner.examples():
                pass
        except PluginError as exc:
            self.life.report(exc)
        else:
            for thread in self._threads[1:]:
                thread.start()
            self._mailbox.post(self._ready)
            self.life.report()
            self._work(place)
            for thread in self._threads[1:]:
                thread.join()
        self._runner.unload()
        self.life.end()

    def _ready(self) -> None:
        self._idle = self._capacity
        self._on_room()

    def _freed(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._ways.pop(job, None)
        self._idle += 1
        self._on_room()

    def _work(self, place: int) -> None:
        while self._hop(place):
            pass

    def _hop(self, place: int) -> bool:
        # A function of its own: while it waits for the next hop, nothing holds the last one's jobs
        # and what their bodies lie in.
        if (jobs := self._hops.get()) is None:
            return False
        if callable(jobs):
            jobs()
            self._mailbox.post(self._freed, ())
            return True
        for job in jobs:
            self._step(job, place)
        self._mailbox.post(self._freed, jobs)
        return True

    def _step(self, job: Job, place: int) -> None:
        started = time.monotonic()
        post, reply = self._mailbox.post, job.reply
        if reply.ended:
            post(reply.fail, Abandoned())
            return
        if job.expired(started):
            post(reply.fail, DeadlineExceeded("the deadline passed before the request ran"))
            return
        reply.begun(place)
        token = current_context.set(job.context)
        try:
            if job.takes == "call":
                post(reply.answer, reply.prepared(self._runner.answer(job.payload)))
            else:
                self._stream(job)
        except AtomError as exc:
            post(reply.fail, exc)
        except BaseException as exc:
            log.error("slot.failed", model=job.context.model, exc_info=exc)
            post(reply.fail, AtomError("an internal error; it is in the log"))
        finally:
            current_context.reset(token)
        late = time.monotonic() - started > SHORT
        self._late += (late - self._late) / 32

    def _stream(self, job: Job) -> None:
        way, reply, post = self._ways[job], job.reply, self._mailbox.post
        if job.items is None:
            answers = self._runner.answers(job.payload)
        else:
            items = Incoming(way.items, partial(post, job.items.taken))
            answers = self._runner.session(items, job.payload.answer)
        try:
            for answer in answers:
                if reply.ended or not way.credit.spend(len(answer.head) + len(answer.body)):
                    raise Abandoned
                post(reply.answer, reply.prepared(answer))
            post(reply.end)
        finally:
            answers.close()


class _Way:
    """What a stream's or session's job shares between the loop and its thread."""

    def __init__(self) -> None:
        self.credit = Credit()
        self.items: SimpleQueue[Any] = SimpleQueue()


class Incoming:
    """A session's items as its thread reads them."""

    def __init__(self, queue: SimpleQueue[Any], taken: Callable[[], None]) -> None:
        self._queue = queue
        self._taken = taken
        self.put = queue.put

    def __iter__(self) -> Iterator[Payload]:
        while (item := self.get()) is not None:
            yield item

    def get(self, *, timeout: float | None = None) -> Any:
        found = self._queue.get(timeout=timeout)
        if type(found) is Payload:
            self._taken()
        return found
