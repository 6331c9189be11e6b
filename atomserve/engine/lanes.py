"""The bounded queue of one model in one API process: who may wait, who goes next, and when.

Pure decisions: nothing here waits, reads a clock or performs I/O.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from weakref import WeakKeyDictionary

from atomserve.engine.batching import Batching
from atomserve.engine.jobs import Job
from atomserve.engine.limits import AdaptiveLimit, Pace
from atomserve.engine.queues import Queue
from atomserve.engine.quotas import OTHERS, Bucket, Quotas
from atomserve.engine.suspects import Part
from atomserve.errors import AtomError, DeadlineExceeded, Overloaded, QuotaExceeded
from atomserve.settings import TenantSettings

EASY = 0.25
"""Part of the patience within which a job's wait says that more may be let in."""
UNKNOWN = 1.0
"""Seconds after which to retry while nothing is known of the service's times."""


class Group:
    """The waiting jobs that may share a batch."""

    __slots__ = ("asked", "cost", "since", "waiting")

    def __init__(self, since: float) -> None:
        self.waiting = 0
        self.cost = 0.0
        self.since = since
        """When its first job arrived."""
        self.asked: float | None = None
        """Since when a slot is free for it."""


class Batch:
    """What a slot was given, until its last job has ended."""

    __slots__ = ("given", "jobs", "size", "slot", "spoilt")

    def __init__(self, jobs: list[Job], given: float, slot: object) -> None:
        self.size = len(jobs)
        self.jobs = set(jobs)
        """Those that have not ended, as far as the lane knows."""
        self.given = given
        self.slot = slot
        self.spoilt = False
        """One of its jobs ended early: its time is not the wrapper's."""


class Lane:
    """The jobs of one model that wait for a slot.

    ``size`` is how many may; each of ``slots`` runs ``capacity`` jobs, or batches, at once. A job
    that waits longer than ``patience`` shows that too many are let in. ``part`` of the tenants'
    rates counts here.
    """

    def __init__(
        self,
        model: str,
        size: int,
        *,
        slots: int = 1,
        capacity: int = 1,
        patience: float = math.inf,
        tenants: Mapping[str, TenantSettings] | None = None,
        part: float = 1.0,
    ) -> None:
        self.model = model
        self.size = size
        self.batching: Batching | None = None
        self.due: float | None = None
        """When to ask `cut` again, if it found that waiting pays."""
        self._tenants = tenants or {}
        self._queue = Queue(self._weight)
        self._quotas = Quotas(self._tenants, part)
        self._patience = patience
        self._capacity = capacity
        self._parallel = slots * capacity
        self._running = 0
        self._followed: float | None = None
        """When the last job left, if others waited on."""
        self.limit = AdaptiveLimit(self._parallel, size + self._parallel)
        self.pace = Pace(self._parallel)
        self._groups: dict[Hashable, Group] = {}
        self._batches: dict[Job, Batch] = {}
        self._given: set[Batch] = set()
        # When the latest batches of each slot ended: one that was sent ahead began then.
        self._ends: WeakKeyDictionary[object, deque[float]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return self._queue.waiting

    def __repr__(self) -> str:
        return f"<Lane {self.model}: {len(self)} of {self.size} waiting>"

    def batch(self, batching: Batching) -> None:
        """From now on the jobs of one `cut` are one batch."""
        self.batching = batching
        floor = self._parallel * batching.bounds.max_size
        self.limit = AdaptiveLimit(floor, self.size + floor)

    @property
    def in_hand(self) -> int:
        """Jobs that wait or run."""
        return self._queue.waiting + self._running

    @property
    def full(self) -> bool:
        waiting = self._queue.waiting
        if waiting and waiting + self._running >= self.limit.places:
            return True
        return waiting >= self.size

    def refuses(self, tenant: str) -> bool:
        """Say whether one more job of ``tenant`` finds no place, not even another tenant's."""
        return self.full and not self._may_shed(tenant)

    def offer(self, job: Job, now: float = 0.0) -> None:
        """Let ``job`` wait.

        Raises:
            QuotaExceeded: its tenant asks more often than it may.
            Overloaded: no place is left for it, or it would wait beyond its deadline.
        """
        queue, waiting = self._queue, self._queue.waiting
        bucket = None
        if self._tenants:
            bucket = self._check_tenant(job.context.tenant, now)
        if waiting:
            deadline = job.context.deadline
            if deadline is not None and self.pace.until_answer(waiting) > deadline - now:
                self._check_wait(job, deadline - now)
            if waiting >= self.size or waiting + self._running >= self.limit.places:
                self._shed(job.context.tenant)
        if bucket is not None:
            bucket.spend()
        queue.add(job)
        job.holder = self
        if self.batching is not None:
            self._count_in(job, now)
            self.batching.company.came(now, self.in_hand)

    def refusal(self) -> Overloaded:
        """Say that this lane is full, and how long those that wait will take."""
        return Overloaded(
            f"{len(self)} requests wait for model {self.model!r} already: retry later or elsewhere",
            retry_after=self.pace.wait(len(self)) or UNKNOWN,
            limit=self.size,
        )

    def restore(self, job: Job, now: float = 0.0) -> None:
        """Let ``job``, which lost its slot, wait again, before all others."""
        self._lose(job)
        job.taken = None
        job.holder = self
        self._queue.restore(job)
        if self.batching is not None:
            self._count_in(job, now)

    def hasten(self, job: Job, urgency: int) -> None:
        """Make ``job``, if it waits here, as urgent as ``urgency``, which is more than it was."""
        if self._queue.drop(job):
            job.urgency = urgency
            self._queue.add(job)

    def drop(self, job: Job) -> None:
        """Forget ``job``; its place is free at once."""
        if self._queue.drop(job):
            self._count_out(job)
            self._left_unserved()

    def take(self, most: int, now: float) -> list[Job]:
        """Take at most ``most`` jobs; expired ones fail without being run."""
        batch: list[Job] = []
        queue = self._queue
        while queue.waiting and len(batch) < most:
            for job in queue.take_first(most - len(batch)):
                deadline = job.context.deadline
                # Spelt out for the live ones: this is done for each request.
                if job.reply.ended or (deadline is not None and deadline <= now):
                    self._live(job, now)
                    self._left_unserved()
                else:
                    job.taken = now
                    batch.append(job)
        if batch:
            self._running += len(batch)
            if now - batch[0].arrived > self._patience:
                self._look_at_wait(batch[0], now)
        return batch

    def cut(self, now: float, slot: object, *, free: bool) -> list[Job]:
        """Return the batch to run on ``slot`` now; empty when none is to go, see ``due``.

        If ``slot`` is not ``free`` the batch is sent ahead: only full ones are.
        """
        self.due = None
        while self._queue.waiting:
            key = self._ready(now) if free else self._full(now)
            if key is _NONE:
                break
            if batch := self._gather(key, now):
                record = Batch(batch, now, slot)
                self._given.add(record)
                for job in batch:
                    job.taken = now
                    self._batches[job] = record
                self._running += len(batch)
                self._look_at_wait(batch[0], now)
                return batch
        return []

    def together(self, jobs: Sequence[Job]) -> tuple[Sequence[Job], int]:
        """Return which of ``jobs`` ran with the last of them, and how many ran there at first.

        Those that have ended are left out, and the last may be one of them.
        """
        for job in reversed(jobs):
            batch = self._batches.get(job)
            # What is known may be of an earlier batch if nobody waits for the last one any more.
            if batch is not None and batch.given == jobs[-1].taken:
                live = [job for job in jobs if job in batch.jobs and not job.reply.ended]
                return live, batch.size
        return [], 0

    def finished(self, job: Job, now: float) -> None:
        """``job``, which was accepted, has ended, answered or not."""
        if job.taken is None:
            return
        if self.batching is None:
            self._running -= 1
            if not job.context.cancelled:
                if self._followed is None:
                    self.pace.took(now - job.taken)
                else:
                    # What followed may have come later, to a slot that was free.
                    self.pace.followed(now - max(self._followed, job.taken))
                self._rise(job)
            self._followed = now if self._queue.waiting else None
            return
        self._end(job, now)

    def settle(self, now: float) -> None:
        """Count out what has ended, although those who wait for it have not been told yet.

        They would be missed among those who are away, and a smaller batch be sent without them.
        """
        for batch in list(self._given):
            if all(job.reply.ended for job in batch.jobs):
                for job in list(batch.jobs):
                    self._end(job, now)

    def clear(self, error: AtomError) -> None:
        """Fail every waiting job with ``error``."""
        while self._queue.waiting:
            for job in self._queue.take_first():
                self._count_out(job)
                job.reply.fail(error)
        self._left_unserved()

    def _weight(self, tenant: str) -> float:
        settings = self._tenants.get(tenant) or self._tenants.get(OTHERS)
        return 1.0 if settings is None else settings.weight

    def _check_tenant(self, name: str, now: float) -> Bucket | None:
        """Refuse what is beyond the tenant's rate or share; return where to spend a token."""
        bucket = self._quotas.bucket(name, now)
        if bucket is not None and (wait := bucket.wait(now)):
            raise QuotaExceeded(retry_after=wait, limit=int(bucket.most))
        settings = self._tenants.get(name) or self._tenants.get(OTHERS)
        tenant = self._queue.tenants.get(name)
        if settings is not None and settings.share is not None and tenant is not None:
            places = max(1, int(self.size * settings.share))
            if tenant.waiting >= places:
                raise QuotaExceeded(
                    "as many of the caller's requests wait as may",
                    retry_after=self.pace.wait(tenant.waiting) or UNKNOWN,
                    limit=places,
                )
        return bucket

    def _check_wait(self, job: Job, left: float) -> None:
        """Refuse ``job`` at once if it would only wait for its deadline, ``left`` seconds away."""
        wait = self.pace.until_answer(self._queue.before(job))
        if wait > left:
            raise Overloaded(
                f"model {self.model!r} would answer in {wait:.3g} s, after the request's "
                "deadline: retry later or elsewhere",
                retry_after=wait - left,
                limit=self.size,
                remaining=max(0, self.size - len(self)),
            )

    def _may_shed(self, name: str) -> bool:
        """Say whether ``name``, with one more, would still hold less than another tenant does."""
        queue = self._queue
        if not queue.waiting:
            return False
        tenant = queue.tenants.get(name)
        own = 0 if tenant is None else tenant.waiting
        most = queue.most_waiting()
        return (own + 1) / self._weight(name) < most.waiting / most.weight

    def _shed(self, name: str) -> None:
        """Make room for a job of ``name`` at the cost of who holds most, or refuse it."""
        if not self._may_shed(name):
            raise self.refusal()
        victim = self._queue.most_waiting().newest()
        self.drop(victim)
        victim.reply.fail(self.refusal())

    def _live(self, job: Job, now: float) -> bool:
        """Say whether ``job``, just taken, is still to be run; an expired one fails."""
        if job.reply.ended:
            return False
        deadline = job.context.deadline
        if deadline is not None and deadline <= now:
            self._look_at_wait(job, now)
            job.reply.fail(DeadlineExceeded("the deadline passed while the request waited"))
            return False
        return True

    def _look_at_wait(self, job: Job, now: float) -> None:
        wait = now - job.arrived
        if wait > self._patience:
            self.limit.late(now, wait, self.in_hand)

    def _rise(self, job: Job) -> None:
        """Let more in, if there is a limit, since ``job`` has been answered."""
        if self.limit.places != math.inf and job.taken is not None:
            self.limit.good(easy=job.taken - job.arrived < EASY * self._patience)

    def _left_unserved(self) -> None:
        """A job left the queue otherwise than to a slot: if it was the last, none waits on."""
        if not self._queue.waiting:
            self._followed = None

    def _ready(self, now: float) -> Hashable:
        """Return the key of which a batch goes to a free slot now, else `_NONE`."""
        first = self._queue.first_key()
        for key in (first, *(key for key in self._groups if key != first)):
            group = self._groups[key]
            assert self.batching is not None
            if isinstance(key, Part) or self.batching.full(group.waiting, group.cost):
                return key
            if group.asked is None:
                group.asked = now
            until = self.batching.wait_until(group.waiting, self.in_hand, group.asked, now)
            if until is None:
                return key
            self.due = until if self.due is None else min(self.due, until)
        return _NONE

    def _full(self, now: float) -> Hashable:
        """Return the key of which a batch is sent ahead of a busy slot, else `_NONE`."""
        batching = self.batching
        assert batching is not None
        full = [k for k, each in self._groups.items() if batching.full(each.waiting, each.cost)]
        if not full:
            return _NONE
        # Others' full batches must not keep the slot from ever being free for a smaller one.
        first = self._queue.first_key()
        overdue = now - self._groups[first].since >= batching.bounds.max_delay
        return first if first in full or overdue else full[0]

    def _gather(self, key: Hashable, now: float) -> list[Job]:
        assert self.batching is not None
        batch: list[Job] = []
        size, left = self.batching.size, self.batching.bounds.max_cost
        self._queue.count_turn()
        while len(batch) < size:
            # One job alone may cost more than the budget: it would never go otherwise.
            job = self._queue.take(key, left if batch else math.inf)
            if job is None:
                break
            self._count_out(job)
            if self._live(job, now):
                batch.append(job)
                left -= job.cost
        if group := self._groups.get(key):
            group.since, group.asked = now, None
        return batch

    def _count_in(self, job: Job, now: float) -> None:
        group = self._groups.get(job.key)
        if group is None:
            group = self._groups[job.key] = Group(now)
        group.waiting += 1
        group.cost += job.cost

    def _count_out(self, job: Job) -> None:
        group = self._groups.get(job.key)
        if group is not None:
            group.waiting -= 1
            group.cost -= job.cost
            if not group.waiting:
                del self._groups[job.key]

    def _lose(self, job: Job) -> None:
        """Count ``job`` out of what runs, since its slot is gone."""
        self._followed = None
        batch = self._batches.pop(job, None)
        if batch is not None:
            batch.jobs.discard(job)
            batch.spoilt = True
            if not batch.jobs:
                self._given.discard(batch)
        if job.taken is not None and (batch is not None or self.batching is None):
            self._running -= 1

    def _end(self, job: Job, now: float) -> None:
        """Count ``job`` out of its batch, once."""
        batch = self._batches.pop(job, None)
        if batch is None:
            return
        self._running -= 1
        self._rise(job)
        batch.jobs.discard(job)
        batch.spoilt |= job.context.cancelled
        if not batch.jobs:
            self._given.discard(batch)
            self._learn(batch, now)

    def _learn(self, batch: Batch, now: float) -> None:
        """Learn from the time that ``batch`` took since it was given, or since the one before."""
        assert self.batching is not None
        ends = self._ends.setdefault(batch.slot, deque(maxlen=self._capacity))
        began = max(batch.given, ends[0]) if len(ends) == self._capacity else batch.given
        ends.append(now)
        if not batch.spoilt:
            self.batching.service.took(batch.size, now - began)
            size = self.batching.size
            self.pace.batch(size, self.batching.service.of(size))
        self.batching.company.left(now, self.in_hand)


_NONE = object()
