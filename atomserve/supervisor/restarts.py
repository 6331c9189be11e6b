"""Whether and when what has died is started again."""

from __future__ import annotations

from atomserve.units import DURATION

SLOWEST = 10.0
"""Most seconds between a death and the next start."""


class Restarts:
    """Decides whether a process that died is started again, and when."""

    def __init__(self, limit: str = "5/60s") -> None:
        self.most = 0
        self._within = 0.0
        self._deaths: list[float] = []
        self.allow(limit)

    def allow(self, limit: str) -> None:
        """Bear as many deaths within a time as ``limit`` says, such as ``5/60s``."""
        most, _, within = limit.partition("/")
        self.most, self._within = int(most), DURATION.parse(within)

    def __repr__(self) -> str:
        return f"<Restarts: {len(self._deaths)} deaths, {self.most} in {self._within:g} s at most>"

    def after_death(self, now: float) -> float | None:
        """Return the seconds to wait before the next start, or None to give up."""
        self._deaths = [at for at in self._deaths if now - at < self._within]
        self._deaths.append(now)
        if len(self._deaths) > self.most:
            return None
        # Doubling, but not beyond the pace at which the limit lets them die.
        return min(0.1 * 2.0 ** min(len(self._deaths) - 1, 10), self._within / self.most, SLOWEST)
