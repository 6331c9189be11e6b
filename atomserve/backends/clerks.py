"""The thread beside a batch wrapper's own: it decodes what comes next and encodes what is done."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import structlog

from atomserve.backends.runner import Runner
from atomserve.engine.jobs import Job
from atomserve.engine.loops import Mailbox
from atomserve.errors import Abandoned, AtomError, DeadlineExceeded

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


def ended(job: Job, mailbox: Mailbox, now: float) -> bool:
    """Say whether nobody waits for ``job`` any more, and end it then."""
    if job.reply.ended:
        mailbox.post(job.reply.fail, Abandoned())
        return True
    if job.expired(now):
        error = DeadlineExceeded("the deadline passed before the request ran")
        mailbox.post(job.reply.fail, error)
        return True
    return False


class Clerk:
    """Turns batches of jobs into groups for ``on_ready``, and the wrapper's answers into replies.

    ``on_ready`` is called in the clerk's thread, once for each batch; what comes next goes before
    what is done. ``key`` is the input that must be equal within a group.
    """

    def __init__(
        self,
        runner: Runner,
        mailbox: Mailbox,
        on_ready: Callable[[list[Group] | None], None],
        *,
        key: str,
    ) -> None:
        self._runner = runner
        self._mailbox = mailbox
        self._on_ready = on_ready
        self._key = key
        self._undecoded: deque[Sequence[Job] | None] = deque()
        self._unsent: deque[tuple[Sequence[Item], Sequence[Any]]] = deque()
        self._bell: SimpleQueue[bool] = SimpleQueue()
        name = f"atomserve {runner.model} clerk"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __repr__(self) -> str:
        return f"<Clerk: {len(self._undecoded)} to decode, {len(self._unsent)} to encode>"

    def start(self) -> None:
        self._thread.start()

    def take(self, jobs: Sequence[Job] | None) -> None:
        """Decode a batch; None is passed on in its turn."""
        self._undecoded.append(jobs)
        self._bell.put(True)

    def send(self, items: Sequence[Item], answers: Sequence[Any]) -> None:
        """Encode the answers to ``items``."""
        self._unsent.append((items, answers))
        self._bell.put(True)

    def encode(self, items: Sequence[Item], answers: Sequence[Any]) -> None:
        """Encode the answers to ``items`` at once; called in any thread."""
        for item, answer in zip(items, answers, strict=True):
            self._send(item.job, answer)

    def fail(self, items: Sequence[Item], exc: BaseException) -> None:
        """End ``items`` because of ``exc``; called in any thread."""
        error = self._runner.failure(exc, [item.job.context.request_id for item in items])
        for item in items:
            self._mailbox.post(item.job.reply.fail, error)

    def finish(self) -> None:
        """Wait until everything is done."""
        self._bell.put(False)
        self._thread.join()

    def _work(self) -> None:
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
            jobs = self._undecoded.popleft()
            self._on_ready(None if jobs is None else self.decoded(jobs))

    def decoded(self, jobs: Sequence[Job]) -> list[Group]:
        """Return the groups that ``jobs`` make; called in any thread."""
        now = time.monotonic()
        items = []
        for job in jobs:
            if ended(job, self._mailbox, now):
                continue
            try:
                items.append(Item(job, self._runner.request(job)))
            except AtomError as exc:
                self._mailbox.post(job.reply.fail, exc)
        try:
            return [group for each in self._alike(items) for group in self._groups(each)]
        except BaseException as exc:  # noqa: BLE001 - a key is compared as the plugin's class says
            self.fail(items, exc)
            return []

    def _alike(self, items: Sequence[Item]) -> Iterator[Sequence[Item]]:
        found: dict[Hashable, list[Item]] = {}
        for item in items:
            kind = self._runner.calls.kind(item.request, self._key)
            found.setdefault(kind, []).append(item)
        for alike in found.values():
            for places in self._runner.calls.parts([item.request for item in alike]):
                yield [alike[place] for place in places]

    def _groups(self, items: Sequence[Item]) -> Iterator[Group]:
        """Yield one group of ``items``; where that fails, of each alone: only the guilty fail."""
        try:
            yield self._group(items)
        except BaseException as exc:  # noqa: BLE001 - stacking copies the plugin's own objects
            if len(items) == 1:
                self.fail(items, exc)
                return
            for item in items:
                yield from self._groups([item])

    def _group(self, items: Sequence[Item]) -> Group:
        contexts = [item.job.context for item in items]
        return Group(items, self._runner.calls.argument([item.request for item in items], contexts))

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
