"""Whether and when what has died is started again."""

from __future__ import annotations


class Restarts:
    """Decides whether a process that died is started again, and when."""

    def __init__(self, *, most: int = 5, within: float = 60.0) -> None:
        self.most = most
        self._within = within
        self._deaths: list[float] = []

    def __repr__(self) -> str:
        return f"<Restarts: {len(self._deaths)} deaths, {self.most} in {self._within:g} s at most>"

    def after_death(self, now: float) -> float | None:
        """Return the seconds to wait before the next start, or None to give up."""
        self._deaths = [at for at in self._deaths if now - at < self._within]
        self._deaths.append(now)
        if len(self._deaths) > self.most:
            return None
        return min(0.1 * 2.0 ** (len(self._deaths) - 1), 10.0)
