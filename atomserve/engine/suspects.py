"""Who killed a worker: what ran together runs again in parts, until one job kills it alone.

A whole batch, then parts of it of about the square root of its size, then each job of the part
that killed: three lost workers find the guilty one among any number, and all others are answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import msgspec

from atomserve.engine.jobs import Job

MOST_KILLS = 3
"""Workers that one inquiry may cost."""


class Inquiry:
    """How many workers the jobs of one batch have cost."""

    __slots__ = ("kills",)

    def __init__(self) -> None:
        self.kills = 0


class Part:
    """The key of jobs that run with each other, and with nobody else."""

    __slots__ = ("inquiry",)

    def __init__(self, inquiry: Inquiry) -> None:
        self.inquiry = inquiry


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the jobs that ran when a worker was lost."""

    again: Sequence[Job] = ()
    guilty: Sequence[Job] = ()
    unclear: Sequence[Job] = ()
    """It may have been any of them, and enough workers were lost."""
    excused: bool = True
    """The worker's death is a part of the inquiry, and does not speak against its model."""


NOBODY = Verdict(excused=False)


def judge(jobs: Sequence[Job], ran: int) -> Verdict:
    """Say what becomes of ``jobs``, what is left of the ``ran`` that ran together, alone."""
    part = jobs[0].key if isinstance(jobs[0].key, Part) else None
    inquiry = Inquiry() if part is None else part.inquiry
    inquiry.kills += 1
    excused = inquiry.kills <= MOST_KILLS
    if part is None:
        return Verdict(again=_parted(jobs, inquiry, ceil(sqrt(ran))), excused=excused)
    if inquiry.kills >= MOST_KILLS:
        found = jobs if ran == 1 else ()
        return Verdict(guilty=found, unclear=() if found else jobs, excused=excused)
    return Verdict(again=_parted(jobs, inquiry, 1), excused=excused)


def judge_each(jobs: Sequence[Job]) -> Verdict:
    """Say what becomes of ``jobs`` that nobody can tell apart: each runs once more at most."""
    again = [job for job in jobs if not isinstance(job.key, Part)]
    unclear = [job for job in jobs if isinstance(job.key, Part)]
    return Verdict(again=_parted(again, Inquiry(), 1), unclear=unclear, excused=False)


def _parted(jobs: Sequence[Job], inquiry: Inquiry, size: int) -> Sequence[Job]:
    for start in range(0, len(jobs), size):
        part = Part(inquiry)
        for job in jobs[start : start + size]:
            job.key = part
    return jobs
