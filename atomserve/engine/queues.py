"""The order in which waiting jobs leave: tenants by deficit round robin, then urgency, deadline."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush

from atomserve.engine.jobs import Job

OLDEST_EVERY = 8
"""Each so many jobs the longest-waiting one is taken, whatever its urgency: nobody starves."""
LOOSE = 16
"""Forgotten entries that a heap may hold beside as many as there are jobs."""

Entry = tuple[int, float, int, Job]
"""Urgency, deadline, number: what a job is ordered by."""


class Line:
    """The waiting jobs of one tenant that may share a batch.

    As long as each job's deadline is no earlier than that of the one before and all are of one
    urgency, which is the rule, the order of arrival is the order; a heap is made when it is not.
    """

    __slots__ = ("_heap", "_latest", "_taken", "_urgency", "jobs")

    oldest_every = OLDEST_EVERY

    def __init__(self) -> None:
        self.jobs: OrderedDict[Job, int] = OrderedDict()
        """The jobs in the order of their arrival, with their numbers; restored ones before."""
        self._heap: list[Entry] | None = None
        self._latest = -math.inf
        self._urgency = 0
        self._taken = 0

    def add(self, job: Job, number: int) -> None:
        deadline = job.context.deadline
        if deadline is None:
            deadline = math.inf
        if self._heap is None:
            if not self.jobs or (job.urgency == self._urgency and deadline >= self._latest):
                self._urgency, self._latest = job.urgency, deadline
                self.jobs[job] = number
                return
            self._heap = self._entries()
        self.jobs[job] = number
        heappush(self._heap, (job.urgency, deadline, number, job))

    def restore(self, job: Job, number: int) -> None:
        """Put ``job`` before all others."""
        if not self.jobs:
            self._latest, self._urgency = -math.inf, job.urgency
        self.jobs[job] = number
        self.jobs.move_to_end(job, last=False)
        if self._heap is not None:
            heappush(self._heap, _entry(job, number))

    def front(self) -> Entry:
        """Return the entry of the most urgent job."""
        if self._heap is None:
            job = next(iter(self.jobs))
            return _entry(job, self.jobs[job])
        while self.jobs.get(self._heap[0][3]) != self._heap[0][2]:
            heappop(self._heap)
        return self._heap[0]

    def next(self) -> Job:
        """Return the job that `take` would give."""
        if self._heap is None or (self._taken + 1) % self.oldest_every == 0:
            return next(iter(self.jobs))
        return self.front()[3]

    def oldest(self) -> int:
        """Return the number of the job that waits longest."""
        return next(iter(self.jobs.values()))

    def take(self) -> Job:
        if self._heap is None:
            return self.jobs.popitem(last=False)[0]
        self._taken += 1
        if self._taken % self.oldest_every == 0:
            job, _ = self.jobs.popitem(last=False)
        else:
            job = self.front()[3]
            heappop(self._heap)
            del self.jobs[job]
        self._tidy()
        return job

    def take_plain(self, most: int) -> list[Job]:
        """Return the next ``most`` jobs at most; none unless the order is that of arrival."""
        if self._heap is not None:
            return []
        jobs = self.jobs
        if len(jobs) == 1:
            return [jobs.popitem()[0]]
        if most >= len(jobs):
            taken = list(jobs)
            jobs.clear()
            return taken
        return [jobs.popitem(last=False)[0] for _ in range(most)]

    def drop(self, job: Job) -> bool:
        """Forget ``job``; say whether it was there."""
        if self.jobs.pop(job, None) is None:
            return False
        if self._heap is not None:
            self._tidy()
        return True

    def _tidy(self) -> None:
        """Let go of what the heap remembers of jobs that left another way."""
        if not self.jobs:
            self._heap = None
        elif self._heap is not None and len(self._heap) > 2 * len(self.jobs) + LOOSE:
            self._heap = self._entries()

    def _entries(self) -> list[Entry]:
        entries = [_entry(job, number) for job, number in self.jobs.items()]
        heapify(entries)
        return entries


class Tenant:
    """One tenant's waiting jobs and how much it may take in its turn."""

    __slots__ = ("deficit", "lines", "name", "turns", "waiting", "weight")

    def __init__(self, name: str, weight: float, deficit: float) -> None:
        self.name = name
        self.weight = weight
        self.deficit = deficit
        self.turns = 0
        self.waiting = 0
        self.lines: dict[Hashable, Line] = {}

    def __repr__(self) -> str:
        return f"<Tenant {self.name or '-'}: {self.waiting} waiting, {self.deficit:g} to take>"

    def first_key(self) -> Hashable:
        """Return the key whose turn it is."""
        if len(self.lines) == 1:
            return next(iter(self.lines))
        if self.turns % OLDEST_EVERY == OLDEST_EVERY - 1:
            return min(self.lines, key=lambda key: self.lines[key].oldest())
        return min(self.lines, key=lambda key: self.lines[key].front())

    def newest(self) -> Job:
        """Return the job that came last."""
        lines = (next(reversed(line.jobs.items())) for line in self.lines.values())
        return max(lines, key=lambda item: item[1])[0]


class Queue:
    """All waiting jobs of a lane; ``weight`` says how much a tenant gets beside the others."""

    __slots__ = ("_latest", "_next", "_restored", "_ring", "_weight", "tenants", "waiting")

    line = Line

    def __init__(self, weight: Callable[[str], float] = lambda _: 1.0) -> None:
        self.waiting = 0
        self.tenants: dict[str, Tenant] = {}
        """Those with a job that waits; when none waits, the last one that did."""
        self._ring: deque[Tenant] = deque()
        self._weight = weight
        self._latest = 1.0
        """What the last job cost that was taken in a turn."""
        self._next = 0
        self._restored = 0

    def __iter__(self) -> Iterator[Job]:
        for tenant in self.tenants.values():
            for line in tenant.lines.values():
                yield from line.jobs

    def add(self, job: Job) -> None:
        # Spelt out for the tenant that has jobs here already: this is done for each request.
        self._next += 1
        tenant = self.tenants.get(job.context.tenant)
        line = None if tenant is None else tenant.lines.get(job.key)
        if tenant is None or line is None:
            self._line(job).add(job, self._next)
        else:
            tenant.waiting += 1
            self.waiting += 1
            line.add(job, self._next)

    def restore(self, job: Job) -> None:
        """Put ``job`` before all others of its tenant."""
        self._restored -= 1
        self._line(job).restore(job, self._restored)

    def drop(self, job: Job) -> bool:
        """Forget ``job``; say whether it was there."""
        tenant = self.tenants.get(job.context.tenant)
        line = tenant.lines.get(job.key) if tenant is not None else None
        if tenant is None or line is None or not line.drop(job):
            return False
        self._left(tenant, line, job.key)
        return True

    def take(self, key: Hashable, most: float = math.inf) -> Job | None:
        """Return the next job of ``key``; None without one, or if its cost is over ``most``."""
        tenant = self._turn(key)
        if tenant is None:
            return None
        line = tenant.lines[key]
        if most != math.inf and line.next().cost > most:
            return None
        job = line.take()
        if len(self._ring) > 1:
            # Nothing is left over: `_top_up` gave as much as the job costs.
            tenant.deficit, self._latest = 0.0, job.cost
        self._left(tenant, line, key)
        return job

    def take_first(self, most: int = 1) -> list[Job]:
        """Return the next job, of whatever key; up to ``most`` where their order is plain."""
        tenant = self._ring[0]
        if len(self._ring) == 1 and len(tenant.lines) == 1:
            [line] = tenant.lines.values()
            if jobs := line.take_plain(most):
                tenant.waiting -= len(jobs)
                self.waiting -= len(jobs)
                return jobs
        job = self.take(self.first_key()) if self.waiting else None
        return [] if job is None else [job]

    def first_key(self) -> Hashable:
        """Return the key of the job whose turn it is; there must be one."""
        ring = self._ring
        if len(ring) == 1:
            return ring[0].first_key()
        while True:
            for _ in range(len(ring)):
                tenant = ring[0]
                key = tenant.first_key()
                if tenant.deficit >= tenant.lines[key].next().cost:
                    return key
                ring.rotate(-1)
            self._top_up(tenant.first_key() for tenant in ring)

    def count_turn(self) -> None:
        """A batch was cut: from now on the keys' next turn counts."""
        for tenant in self.tenants.values():
            tenant.turns += 1

    def share(self, name: str) -> float:
        """Return which part of all is the tenant's while those wait that do now."""
        weight = self._weight(name)
        others = sum(
            each.weight for each in self.tenants.values() if each.waiting and each.name != name
        )
        return weight / (weight + others)

    def most_waiting(self) -> Tenant:
        """Return the tenant with the most jobs for its weight."""
        return max(self.tenants.values(), key=lambda tenant: tenant.waiting / tenant.weight)

    def before(self, job: Job) -> float:
        """Estimate how many jobs would leave before ``job``, if it were to wait."""
        tenant = self.tenants.get(job.context.tenant)
        if tenant is None:
            own = 0
        else:
            lines = tenant.lines.values()
            own = sum(each.urgency <= job.urgency for line in lines for each in line.jobs)
        return min(self.waiting, (own + 1) / self.share(job.context.tenant) - 1)

    def _line(self, job: Job) -> Line:
        """Count ``job`` in, and return the line for it."""
        tenant = self.tenants.get(job.context.tenant)
        if tenant is None:
            tenant = self._join(job.context.tenant)
        line = tenant.lines.get(job.key)
        if line is None:
            if not tenant.waiting:
                tenant.lines.clear()
            line = tenant.lines[job.key] = self.line()
        tenant.waiting += 1
        self.waiting += 1
        return line

    def _join(self, name: str) -> Tenant:
        if not self.waiting:
            self.tenants.clear()
            self._ring.clear()
        weight = self._weight(name)
        # What the last one had: a newcomer need not wait for a second round.
        tenant = self.tenants[name] = Tenant(name, weight, self._latest * weight)
        self._ring.append(tenant)
        return tenant

    def _left(self, tenant: Tenant, line: Line, key: Hashable) -> None:
        self.waiting -= 1
        tenant.waiting -= 1
        # The last one of all stays as it is: most often it is the next one, too.
        if not line.jobs and self.waiting:
            del tenant.lines[key]
            if not tenant.waiting:
                del self.tenants[tenant.name]
                self._ring.remove(tenant)

    def _turn(self, key: Hashable) -> Tenant | None:
        """Return the tenant of ``key`` whose turn it is; others keep their places in the ring."""
        ring = self._ring
        if len(ring) == 1:
            line = ring[0].lines.get(key)
            return ring[0] if line is not None and line.jobs else None
        skipped: list[Tenant] = []
        found: Tenant | None = None
        passed = 0
        while ring:
            tenant = ring[0]
            if (line := tenant.lines.get(key)) is None:
                skipped.append(ring.popleft())
            elif tenant.deficit >= line.next().cost:
                found = tenant
                break
            elif passed < len(ring):
                ring.rotate(-1)
                passed += 1
            else:
                self._top_up(key for _ in ring)
                passed = 0
        ring.extendleft(reversed(skipped))
        return found

    def _top_up(self, keys: Iterable[Hashable]) -> None:
        """Give all in the ring, by their weights, what the first of them to go still lacks.

        No more than that: with what one costly job needs, cheap ones would go on without end.
        ``keys`` are those of the jobs that they would have taken next.
        """
        costs = [
            tenant.lines[key].next().cost for tenant, key in zip(self._ring, keys, strict=True)
        ]
        lacks = [
            (cost - tenant.deficit) / tenant.weight
            for tenant, cost in zip(self._ring, costs, strict=True)
        ]
        least = min(lacks)
        for tenant, cost, lack in zip(self._ring, costs, lacks, strict=True):
            # What is reached is reached, however the numbers are rounded.
            tenant.deficit = cost if lack == least else tenant.deficit + least * tenant.weight
        self._ring.rotate(-1)


def _entry(job: Job, number: int) -> Entry:
    if number < 0:
        return -1, -math.inf, number, job  # It waited its time before it lost its slot.
    deadline = job.context.deadline
    return job.urgency, math.inf if deadline is None else deadline, number, job
