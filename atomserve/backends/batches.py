"""Slots for wrappers that take several requests at once: what one ``run`` brings is one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import structlog

from atomserve.backends.bisection import Parts
from atomserve.backends.runner import Runner
from atomserve.backends.threads import Life
from atomserve.engine.jobs import Job
from atomserve.engine.loops import Mailbox
from atomserve.engine.options import Options
from atomserve.errors import Abandoned, AtomError, BadAnswer, DeadlineExceeded, PluginError

log = structlog.get_logger("atomserve.backends")


class Item:
    """A job of a batch with its decoded request."""

    __slots__ = ("job", "request")

    def __init__(self, job: Job, request: Any) -> None:
        self.job = job
        self.request = request


class Group:
    """What one call of the wrapper may hold, and the argument that was made of it beforehand."""

    __slots__ = ("argument", "items")

    def __init__(self, items: Sequence[Item], argument: Any) -> None:
        self.items = items
        self.argument = argument


class BatchSlot:
    """One copy of a wrapper behind ``capacity`` threads that only ever call it, and a clerk.

    The clerk's thread decodes the next batch while one runs, and encodes the answers of the last:
    the wrapper never waits for either.
    """

    quick = False

    def __init__(
        self, runner: Runner, options: Options, mailbox: Mailbox, on_room: Callable[[], None]
    ) -> None:
        self._runner = runner
        self._options = options
        self._mailbox = mailbox
        self._on_room = on_room
        self._given = 0
        self._loaded = False
        self._undecoded: deque[Sequence[Job] | None] = deque()
        self._unsent: deque[tuple[Sequence[Item], Sequence[Any]]] = deque()
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._ready: SimpleQueue[list[Group] | None] = SimpleQueue()
        self.life = Life(mailbox)
        name = f"atomserve {runner.model}"
        # Daemons: a plugin that never returns must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._work if n else self._live, name=name, daemon=True)
            for n in range(options.capacity)
        ]
        self._clerk = threading.Thread(target=self._keep, name=f"{name} clerk", daemon=True)

    def __repr__(self) -> str:
        return f"<BatchSlot: {self._given} batches, {self._options.capacity} threads>"

    @property
    def room(self) -> int:
        """Batches that could start now."""
        return max(0, self._options.capacity - self._given) if self._loaded else 0

    @property
    def ahead(self) -> int:
        """Full batches that may come although nothing is free: one waits decoded at most."""
        if not self._loaded:
            return 0
        return min(1, max(0, self._options.capacity + 1 - self._given))

    @property
    def busy(self) -> int:
        """Batches that the wrapper works on, or is about to."""
        return 0 if self.life.error is not None else self._given

    def run(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.holder = self
        self._given += 1
        self._ask(jobs)

    def drop(self, job: Job) -> None:
        """Leave ``job`` out of its batch, if that has not begun."""

    def start(self) -> None:
        """Start the first thread: it loads, runs the examples and reports in ``life``."""
        self._threads[0].start()

    def stop(self) -> None:
        """Let each thread end after what it was given; the first one unloads."""
        self._ask(None)

    def _ask(self, jobs: Sequence[Job] | None) -> None:
        self._undecoded.append(jobs)
        self._bell.put(True)

    def _ready_now(self) -> None:
        self._loaded = True
        self._on_room()

    def _freed(self) -> None:
        self._given -= 1
        self._on_room()

    # In the wrapper's threads.

    def _live(self) -> None:
        try:
            self._runner.check_key(self._options.batch_key)
            self._runner.load()
            for _ in self._runner.examples():
                pass
        except PluginError as exc:
            self.life.report(exc)
        else:
            for thread in (self._clerk, *self._threads[1:]):
                thread.start()
            self._mailbox.post(self._ready_now)
            self.life.report()
            self._work()
            for thread in self._threads[1:]:
                thread.join()
            self._bell.put(False)
            self._clerk.join()
        self._runner.unload()
        self.life.end()

    def _work(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        # A function of its own: while it waits, nothing holds the last batch.
        if (groups := self._ready.get()) is None:
            return False
        for group in groups:
            for item in self._wanted(group.items):
                item.job.reply.begun()
        for group in groups:
            self._bisect(group)
        self._mailbox.post(self._freed)
        return True

    def _bisect(self, group: Group) -> None:
        parts = Parts(group.items, bisect=self._options.bisect)
        while (part := parts.take()) is not None:
            if not (part := self._wanted(part)):
                continue
            parts.ran()
            try:
                answers = self._call(part, group)
            except BadAnswer as exc:
                self._fail(part, exc)
            except BaseException as exc:  # noqa: BLE001 - a plugin's code must not end its thread
                if parts.split(part):
                    log.warning("batch.split", model=self._runner.model, size=len(part))
                else:
                    self._fail(part, exc)
            else:
                self._unsent.append((part, answers))
                self._bell.put(True)

    def _call(self, part: Sequence[Item], group: Group) -> Sequence[Any]:
        argument, group.argument = group.argument, None
        contexts = [item.job.context for item in part]
        if argument is None or len(part) < len(group.items):
            argument = self._runner.argument([item.request for item in part], contexts)
        return self._runner.answer_batch(argument, contexts)

    def _fail(self, part: Sequence[Item], exc: BaseException) -> None:
        error = self._runner.failure(exc, [item.job.context.request_id for item in part])
        for item in part:
            self._mailbox.post(item.job.reply.fail, error)

    def _wanted(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return those that somebody still waits for, and end the others."""
        now = time.monotonic()
        gone = [item for item in items if self._over(item.job, now)]
        return [item for item in items if item not in gone] if gone else items

    def _over(self, job: Job, now: float) -> bool:
        if job.reply.ended:
            self._mailbox.post(job.reply.fail, Abandoned())
            return True
        if job.expired(now):
            error = DeadlineExceeded("the deadline passed before the request ran")
            self._mailbox.post(job.reply.fail, error)
            return True
        return False

    # In the clerk's thread.

    def _keep(self) -> None:
        while self._bell.get():
            self._decode_all()
            while self._unsent:
                self._send_all(*self._unsent.popleft())

    def _send_all(self, items: Sequence[Item], answers: Sequence[Any]) -> None:
        for item, answer in zip(items, answers, strict=True):
            self._send(item.job, answer)
            self._decode_all()

    def _decode_all(self) -> None:
        while self._undecoded:
            if (jobs := self._undecoded.popleft()) is not None:
                self._decode(jobs)
            else:
                for _ in self._threads:
                    self._ready.put(None)

    def _decode(self, jobs: Sequence[Job]) -> None:
        now = time.monotonic()
        items = []
        for job in jobs:
            if self._over(job, now):
                continue
            try:
                items.append(Item(job, self._runner.request(job)))
            except AtomError as exc:
                self._mailbox.post(job.reply.fail, exc)
        try:
            groups = [self._group(each) for each in self._alike(items)]
        except BaseException as exc:  # noqa: BLE001 - stacking copies the plugin's own objects
            self._fail(items, exc)
            groups = []
        if groups:
            self._ready.put(groups)
        else:
            self._mailbox.post(self._freed)

    def _alike(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        found: dict[Hashable, list[Item]] = {}
        for item in items:
            kind = self._runner.kind(item.request, self._options.batch_key)
            found.setdefault(kind, []).append(item)
        yield from found.values()

    def _group(self, items: Sequence[Item]) -> Group:
        contexts = [item.job.context for item in items]
        return Group(items, self._runner.argument([item.request for item in items], contexts))

    def _send(self, job: Job, answer: Any) -> None:
        post, reply = self._mailbox.post, job.reply
        if reply.ended:
            post(reply.fail, Abandoned())
            return
        try:
            post(reply.answer, reply.prepared(self._runner.encode(answer, job)))
        except AtomError as exc:
            post(reply.fail, exc)
        except BaseException as exc:
            log.error("slot.failed", model=self._runner.model, exc_info=exc)
            post(reply.fail, AtomError("an internal error; it is in the log"))
