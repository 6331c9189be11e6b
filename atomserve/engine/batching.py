"""When a batch is large enough to go: what waiting costs against what company brings."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from statistics import median

import msgspec

RECENT = 15
"""Batches that an expectation rests on."""
GAPS = 128
"""Arrivals that an expectation rests on."""
BURST = 0.4
"""Gaps of less than this part of the mean are those of clients who come back after a batch. Of
independent clients the typical gap is 0.6 of the mean: company will come, yet not because of the
batch, and all that waiting for it brings is a later start."""
TYPICAL = 0.45
"""Which gap is typical: under half, since two clients who miss each other's batches come each once
after an end and never before the next."""
SILENCE = 2.0
"""Times the 95th percentile of gaps, after which nobody is expected any more."""
FADE = 0.97
"""What is left of a batch's weight in the fit after each further one."""
LATE = 0.95


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's bounds on a model's batches; ``parallel`` is how many run at once."""

    max_size: int = 32
    max_delay: float = 0.005
    max_cost: float = math.inf
    target: float | None = None
    parallel: int = 1


class Service:
    """How long a batch takes, learnt from those that ran: ``fixed`` + ``each`` * size."""

    __slots__ = ("_mean", "_spread", "_together", "_weight", "each", "fixed", "tail")

    def __init__(self) -> None:
        self.fixed = 0.0
        self.each = 0.0
        self.tail = 1.0
        """The 95th percentile of the time that a batch takes to what is expected."""
        self._weight = 0.0
        self._mean = (0.0, 0.0)  # of sizes, of seconds
        self._spread = 0.0  # of sizes around their mean
        self._together = 0.0  # of sizes and seconds around theirs

    def __repr__(self) -> str:
        return f"<Service: {self.fixed * 1e3:.2f} ms + {self.each * 1e3:.3f} ms each>"

    @property
    def known(self) -> bool:
        return self._weight > 0

    def took(self, size: int, seconds: float) -> None:
        """A batch of ``size`` jobs ran for ``seconds``."""
        if self.known:
            ratio = seconds / max(self.of(size), 1e-9)
            step = 0.05 * self.tail
            self.tail = max(1.0, self.tail + step * (LATE if ratio > self.tail else LATE - 1))
        old = self._weight * FADE
        self._weight = old + 1.0
        share = 1.0 / self._weight
        off = (size - self._mean[0], seconds - self._mean[1])
        self._mean = (self._mean[0] + off[0] * share, self._mean[1] + off[1] * share)
        self._spread = self._spread * FADE + off[0] * off[0] * old * share
        self._together = self._together * FADE + off[0] * off[1] * old * share
        self._fit()

    def _fit(self) -> None:
        size, seconds = self._mean
        # Sizes that hardly differ say nothing of the slope: it stays what it was.
        if self._spread > 0.05 * self._weight:
            self.each = max(0.0, self._together / self._spread)
        self.each = min(self.each, seconds / max(size, 1.0))
        self.fixed = max(0.0, seconds - self.each * size)

    def of(self, size: float) -> float:
        """Return the expected time of a batch of ``size``."""
        return self.fixed + self.each * size

    def fitting(self, seconds: float) -> int:
        """Return the largest size whose batches take at most ``seconds``, but for few."""
        left = seconds / self.tail - self.fixed
        if left < self.each:
            return 1
        return 1 << 30 if self.each <= 0.0 else int(left / self.each)


class Company:
    """Who may come: how many are away that were here lately, and how soon the next one comes."""

    __slots__ = (
        "_all",
        "_back",
        "_ended",
        "_gaps",
        "_peak",
        "_peaks",
        "_returns",
        "interval",
        "since",
    )

    def __init__(self) -> None:
        self.since = -math.inf
        """When the last one came, or the last batch ended: from then on silence counts."""
        self.interval = math.inf
        """Mean seconds between arrivals, pauses included."""
        self._gaps: deque[float] = deque(maxlen=GAPS)
        self._all: deque[float] = deque(maxlen=GAPS)
        self._returns: deque[float] = deque(maxlen=RECENT)
        self._ended = False
        self._peaks: deque[int] = deque(maxlen=RECENT)
        self._peak = 0
        self._back = -math.inf

    def came(self, now: float, in_hand: int) -> None:
        """A job arrived, with which ``in_hand`` are here."""
        gap = now - self.since
        if gap != math.inf:
            self._all.append(gap)
            (self._returns if self._ended else self._gaps).append(gap)
        if self._back != -math.inf:
            pause = now - self._back
            known = self.interval != math.inf
            self.interval += (pause - self.interval) / 64 if known else 0.0
            self.interval = self.interval if known else pause
        self._back = now
        self._ended = False
        self.since = now
        self._peak = max(self._peak, in_hand)

    def left(self, now: float, in_hand: int) -> None:
        """A batch ended: its clients may come back."""
        # Nobody came for so long; to leave that out would make all gaps look short.
        self._all.append(max(now - self.since, self.interval))
        self.since = now
        self._ended = True
        self._peaks.append(self._peak)
        self._peak = in_hand

    def away(self, in_hand: int) -> int:
        """Return how many more than ``in_hand`` were here lately, at most."""
        return max(self._peak, max(self._peaks, default=0)) - in_hand

    @property
    def returns(self) -> bool:
        """Clients come back together, after the batch that answered them."""
        return bool(self._all) and _part(self._all, TYPICAL) < BURST * self.interval

    @property
    def first(self) -> float:
        """Expected seconds from now, or from the last end, to the next arrival."""
        return median(self._returns) if self._ended and self._returns else self.gap

    @property
    def silence(self) -> float:
        """Seconds without an arrival after which nobody is expected any more."""
        longest = _part(self._gaps, LATE) if self._gaps else 0.0
        return SILENCE * max(longest, self.first)

    @property
    def gap(self) -> float:
        """Expected seconds between arrivals that follow one another."""
        if self._gaps:
            return median(self._gaps)
        return median(self._returns) if self._returns else math.inf


def _part(values: Collection[float], part: float) -> float:
    return sorted(values)[int(part * len(values))]


class Batching:
    """Decides for one model when the jobs that wait are a batch."""

    __slots__ = ("bounds", "company", "service")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.service = Service()
        self.company = Company()

    def __repr__(self) -> str:
        return f"<Batching: up to {self.size} within {self.delay * 1e3:g} ms, {self.service}>"

    @property
    def size(self) -> int:
        """The most jobs that a batch may have now."""
        bounds, service = self.bounds, self.service
        if bounds.target is None or not service.known:
            return bounds.max_size
        # Half the goal: a job may just have missed the batch before its own.
        size = max(service.fitting(bounds.target / 2), self._needed())
        return max(1, min(size, bounds.max_size))

    @property
    def delay(self) -> float:
        """The longest that a free slot may wait for company now."""
        bounds, service = self.bounds, self.service
        if bounds.target is None or not service.known:
            return bounds.max_delay
        left = bounds.target - 2 * service.tail * service.of(self.size)
        return max(0.0, min(left, bounds.max_delay))

    def _needed(self) -> int:
        """Return the smallest size with which the slots keep up with what arrives."""
        busy = self.bounds.parallel * self.company.interval - self.service.each
        return self.bounds.max_size if busy <= 0 else math.ceil(self.service.fixed / busy)

    def full(self, waiting: int, cost: float) -> bool:
        return waiting >= self.size or cost >= self.bounds.max_cost

    def wait_until(self, waiting: int, in_hand: int, asked: float, now: float) -> float | None:
        """Return until when a free slot waits for company of ``waiting`` jobs; None is to go.

        ``in_hand`` are all jobs here, running ones included; since ``asked`` a slot is free.
        """
        company, fixed = self.company, self.service.fixed
        away = min(company.away(in_hand), self.size - waiting)
        if away <= 0 or not company.returns:
            return None
        first, gap = company.first, company.gap
        # With k more in T seconds the slots do more per second if k * fixed > waiting * T.
        pays = first * waiting < fixed or (first + (away - 1) * gap) * waiting < away * fixed
        until = min(asked + self.delay, company.since + company.silence)
        return until if pays and until > now else None
