"""Whether and when what has died is started again."""

from __future__ import annotations

from typing import NamedTuple

from atomserve.units import DURATION

SLOWEST = 10.0
"""Most seconds between a death and the next start."""


class Death(NamedTuple):
    """When which process died, and whether that is a reason to give up."""

    at: float
    pid: int
    counts: bool


class Restarts:
    """Decides whether a process that died is started again, and when."""

    def __init__(self, limit: str = "5/60s") -> None:
        self._most = 0
        self._within = 0.0
        self._deaths: list[Death] = []
        self._not_before = 0.0
        self.allow(limit)

    def __repr__(self) -> str:
        return f"<Restarts: {len(self._deaths)} deaths, {self._most} in {self._within:g} s at most>"

    def allow(self, limit: str, *, least: int = 0) -> None:
        """Bear as many deaths within a time as ``limit`` says, such as ``5/60s``, or ``least``."""
        most, _, within = limit.partition("/")
        self._most, self._within = max(int(most), least), DURATION.parse(within)

    def after_death(self, now: float, pid: int = 0, *, counts: bool = True) -> float | None:
        """Return the seconds to wait before the next start, or None to give up.

        A death that does not count only makes the next start come later.
        """
        spent = self.spent(now)
        self._deaths.append(Death(now, pid, counts))
        if counts and spent:
            return None
        if now < self._not_before:  # several died together: one pause
            return self._not_before - now
        # Doubling, but not beyond the pace at which the limit lets them die.
        doubled = 0.1 * 2.0 ** min(len(self._deaths) - 1, 10)
        delay = min(doubled, self._within / self._most if counts else SLOWEST, SLOWEST)
        self._not_before = now + delay
        return delay

    def spent(self, now: float) -> bool:
        """Say whether one more death would be one too many."""
        self._forget(now)
        return sum(death.counts for death in self._deaths) >= self._most

    def died(self, pid: int) -> bool:
        """Say whether ``pid`` is one of those that died lately."""
        return any(death.pid == pid for death in self._deaths)

    def forgive(self, pid: int) -> None:
        """Take back that ``pid`` has died, and the wait for the next start."""
        if self.died(pid):
            self._deaths = [death for death in self._deaths if death.pid != pid]
            self._not_before = 0.0

    def pause(self, now: float) -> float:
        """Return the seconds that are left of the wait."""
        return max(0.0, self._not_before - now)

    def _forget(self, now: float) -> None:
        self._deaths = [death for death in self._deaths if now - death.at < self._within]
