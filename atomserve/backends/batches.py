"""Slots for wrappers that take several requests at once: what one ``run`` brings is one batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from atomserve.backends.bisection import Parts
from atomserve.backends.clerks import Clerk, Group, Item, ended
from atomserve.backends.runner import Runner
from atomserve.backends.threads import Life
from atomserve.engine.jobs import Job
from atomserve.engine.loops import Mailbox
from atomserve.engine.options import Options
from atomserve.errors import BadAnswer, PluginError


class BatchSlot:
    """One copy of a wrapper behind ``capacity`` threads that only ever call it, and a clerk.

    The clerk's thread decodes the next batch while one runs, and encodes the answers of the last:
    the wrapper never waits for either. A lone request for an idle thread is not handed around.
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
        self._ready: SimpleQueue[list[Group] | Job | None] = SimpleQueue()
        self.life = Life(mailbox)
        name = f"atomserve {runner.model}"
        # Daemons: a plugin that never returns must not keep the process from ending.
        self._threads = [
            threading.Thread(
                target=self._work if n else self._live, args=(n,), name=name, daemon=True
            )
            for n in range(options.capacity)
        ]
        self._clerk = Clerk(runner, mailbox, self._begin, key=options.batch_key)

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
        if len(jobs) == 1 and self._given <= self._options.capacity:
            self._ready.put(jobs[0])
        else:
            self._clerk.take(jobs)

    def drop(self, job: Job) -> None:
        """Leave ``job`` out of its batch, if that has not begun."""

    def start(self) -> None:
        """Start the first thread: it loads, runs the examples and reports in ``life``."""
        self._threads[0].start()

    def stop(self) -> None:
        """Let each thread end after what it was given; the first one unloads."""
        self._clerk.take(None)

    def _ready_now(self) -> None:
        self._loaded = True
        self._on_room()

    def _freed(self) -> None:
        self._given -= 1
        self._on_room()

    # In the clerk's thread.

    def _begin(self, groups: list[Group] | None) -> None:
        if groups:
            self._ready.put(groups)
        elif groups is None:
            for _ in self._threads:
                self._ready.put(None)
        else:
            self._mailbox.post(self._freed)

    # In the wrapper's threads.

    def _live(self, place: int) -> None:
        try:
            self._check_key()
            self._runner.load()
            for _ in self._runner.examples():
                pass
        except PluginError as exc:
            self.life.report(exc)
        else:
            self._clerk.start()
            for thread in self._threads[1:]:
                thread.start()
            self._mailbox.post(self._ready_now)
            self.life.report()
            self._work(place)
            for thread in self._threads[1:]:
                thread.join()
            self._clerk.finish()
        self._runner.unload()
        self.life.end()

    def _check_key(self) -> None:
        # The class was checked; this is the operator's word.
        if not (key := self._options.batch_key):
            return
        names = [field.name for field in self._runner.signature.inputs if field.scalar]
        if key not in names:
            where = f"models.{self._runner.model}.batch_key"
            known = ", ".join(names) or "none"
            raise PluginError(f"{where}: {key!r} is no scalar input; expected of: {known}")

    def _work(self, place: int) -> None:
        while self._step(place):
            pass

    def _step(self, place: int) -> bool:
        # A function of its own: while it waits, nothing holds the last batch.
        if (groups := self._ready.get()) is None:
            return False
        alone = isinstance(groups, Job)
        if isinstance(groups, Job):
            groups = self._clerk.decoded([groups])
        wanted = next((item for group in groups for item in self._wanted(group.items)), None)
        if wanted is not None:
            wanted.job.reply.begun(place)
        for group in groups:
            self._bisect(group, self._clerk.encode if alone else self._clerk.send)
        self._mailbox.post(self._freed)
        return True

    def _bisect(self, group: Group, send: Callable[[Sequence[Item], Sequence[Any]], None]) -> None:
        parts = Parts(group.items, bisect=self._options.bisect)
        while (part := parts.take()) is not None:
            if not (part := self._wanted(part)):
                continue
            parts.ran()
            try:
                answers = self._call(part, group)
            except BadAnswer as exc:
                self._clerk.fail(part, exc)
            except BaseException as exc:  # noqa: BLE001 - a plugin's code must not end its thread
                if not parts.split(part):
                    self._clerk.fail(part, exc)
            else:
                send(part, answers)

    def _call(self, part: Sequence[Item], group: Group) -> Sequence[Any]:
        argument, group.argument = group.argument, None
        contexts = [item.job.context for item in part]
        if argument is None or len(part) < len(group.items):
            argument = self._runner.calls.argument([item.request for item in part], contexts)
        return self._runner.answer_batch(argument, contexts)

    def _wanted(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return those that somebody still waits for, and end the others."""
        now = time.monotonic()
        gone = [item for item in items if ended(item.job, self._mailbox, now)]
        return [item for item in items if item not in gone] if gone else items
