"""Whether and when what has died is started again."""

from __future__ import annotations

from atomserve.units import DURATION

SLOWEST = 10.0
"""Most seconds between a death and the next start."""


class Restarts:
    """Decides whether a process that died is started again, and when."""

    def __init__(self, limit: str = "5/60s") -> None:
        self._most = 0
        self._within = 0.0
        self._deaths: list[float] = []
        self._not_before = 0.0
        self.allow(limit)

    def __repr__(self) -> str:
        return f"<Restarts: {len(self._deaths)} deaths, {self._most} in {self._within:g} s at most>"

    def allow(self, limit: str, *, least: int = 0) -> None:
        """Bear as many deaths within a time as ``limit`` says, such as ``5/60s``, or ``least``."""
        most, _, within = limit.partition("/")
        self._most, self._within = max(int(most), least), DURATION.parse(within)

    def after_death(self, now: float) -> float | None:
        """Return the seconds to wait before the next start, or None to give up."""
        self._deaths = [at for at in self._deaths if now - at < self._within]
        self._deaths.append(now)
        if len(self._deaths) > self._most:
            return None
        if now < self._not_before:  # several died together: one pause
            return self._not_before - now
        # Doubling, but not beyond the pace at which the limit lets them die.
        doubled = 0.1 * 2.0 ** min(len(self._deaths) - 1, 10)
        delay = min(doubled, self._within / self._most, SLOWEST)
        self._not_before = now + delay
        return delay

    def pause(self, now: float) -> float:
        """Return the seconds that are left of the wait."""
        return max(0.0, self._not_before - now)
