"""What must hold for any lane, checked from outside while a schedule runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simulator import Heard

from atomserve.engine.jobs import Job
from atomserve.engine.queues import OLDEST_EVERY


class Broken(AssertionError):
    """An invariant does not hold; the message is its name."""


def must(holds: bool, name: str) -> None:
    if not holds:
        raise Broken(name)


class Line:
    """The jobs of one tenant and key that wait, in the order of their arrival."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.taken = 0
        self.turns_of_oldest = 0


class Watch:
    """Keeps its own account of all jobs, and compares."""

    def __init__(self, *, queue: int, size: int, budget: float = math.inf) -> None:
        self.queue = queue
        self.size = size
        self.budget = budget
        self.lines: dict[tuple[str, object], Line] = {}
        self.before: dict[Job, int] = {}
        self.overtaken: dict[Job, int] = {}
        self.again: set[Job] = set()
        self.all: list[Job] = []

    def offered(self, job: Job) -> None: ...

    def accepted(self, job: Job) -> None:
        line = self.line(job)
        self.all.append(job)
        self.before[job] = len(line.jobs)
        self.overtaken[job] = 0
        line.jobs.append(job)
        waiting = sum(
            each not in self.again for every in self.lines.values() for each in every.jobs
        )
        must(waiting <= self.queue, "the queue is within its bound")

    def restored(self, job: Job) -> None:
        self.again.add(job)
        self.line(job).jobs.insert(0, job)

    def handed(self, jobs: Sequence[Job], now: float) -> None:
        must(len(jobs) <= self.size, "a batch has no more jobs than it may")
        cost = sum(job.cost for job in jobs)
        must(len(jobs) == 1 or cost <= self.budget + 1e-9, "a batch is within its budget")
        must(len({job.key for job in jobs}) <= 1, "a batch has one key")
        for job in jobs:
            reply = job.reply
            assert isinstance(reply, Heard)
            must(not job.expired(now), "no job runs after its deadline")
            must(not reply.ended, "no job runs that nobody waits for")
            line = self.line(job)
            must(job in line.jobs, "no job runs twice")
            self.taken(line, job)

    def taken(self, line: Line, job: Job) -> None:
        fresh = [each for each in line.jobs if each not in self.again]
        line.taken += 1
        if job in fresh:
            least = min(fresh, key=lambda each: (each.urgency, deadline(each)))
            if job is not least:
                line.turns_of_oldest += 1
                must(job is line.jobs[0], "order is kept")
                must(
                    line.turns_of_oldest * OLDEST_EVERY <= line.taken + OLDEST_EVERY,
                    "order is kept",
                )
        place = line.jobs.index(job)
        line.jobs.remove(job)
        for each in line.jobs[:place]:
            if job not in self.again and each not in self.again:
                self.overtaken[each] += 1
                bound = (OLDEST_EVERY - 1) * (self.before[each] + 1 + len(self.again))
                must(self.overtaken[each] <= bound, "nobody starves")

    def over(self, job: Job) -> None:
        reply = job.reply
        assert isinstance(reply, Heard)
        must(reply.answers <= 1, "no job is answered twice")
        line = self.line(job)
        if job in line.jobs:
            line.jobs.remove(job)

    def finish(self) -> None:
        for job in self.all:
            reply = job.reply
            assert isinstance(reply, Heard)
            must(reply.ended, "no job is lost")
            must(reply.answers <= 1, "no job is answered twice")

    def line(self, job: Job) -> Line:
        return self.lines.setdefault((job.context.tenant, job.key), Line())


def deadline(job: Job) -> float:
    return math.inf if job.context.deadline is None else job.context.deadline
