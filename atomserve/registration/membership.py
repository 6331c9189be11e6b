"""When an instance registers, beats and withdraws: decided of the time given, without I/O."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf
from typing import Literal, NamedTuple

from atomserve.settings import RegistrationSettings

State = Literal["waiting", "registered", "lost", "withdrawn"]
Call = Literal["register", "heartbeat", "withdraw"]

STATES: tuple[State, ...] = ("waiting", "registered", "lost", "withdrawn")
GROWTH = 4.0
"""How many times as long each wait after a failure is; few tries reach the longest."""
SPREAD = 0.5
"""By how much of itself a wait is longer at random."""


class Step(NamedTuple):
    """The next call, if there is one, and when it is time for it or to ask again."""

    call: Call | None
    at: float


class Membership:
    """The place of one instance in a control plane's list.

    Whoever makes the calls asks for the next `step`, tells when it begins, and how it ended.
    """

    def __init__(
        self,
        settings: RegistrationSettings,
        *,
        epoch: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.state: State = "waiting"
        self.trouble = ""
        """Why the last call failed; empty if it did not."""
        self.epoch = epoch
        self.claimed = False
        """Whether the control plane may believe that the instance is there."""
        self._settings = settings
        self._chance = chance
        self._ready = False
        self._due = 0.0
        self._begun = -inf
        self._first = True
        self._leave_at = inf
        self._failures = 0

    def __repr__(self) -> str:
        trouble = f", {self.trouble}" if self.trouble else ""
        return f"<Membership {self.state}: epoch {self.epoch}{trouble}>"

    @property
    def stopping(self) -> bool:
        """Whether the instance goes for good."""
        return self._leave_at == -inf

    @property
    def over(self) -> bool:
        """Whether no call comes any more."""
        return self.stopping and not self.claimed

    def step(self, now: float) -> Step:
        """Return what is to be done next."""
        if self._leave_at <= now:
            return Step("withdraw", now) if self.claimed else Step(None, inf)
        if self.state == "registered":
            call: Call | None = "heartbeat"
        else:
            call = "register" if self._ready else None
        at = inf if call is None else self._due
        return Step(None, self._leave_at) if self._leave_at < at else Step(call, at)

    def become_ready(self, ready: bool, now: float) -> None:
        """Take it that requests are welcome from now on, or not."""
        self._ready = ready
        if self.stopping:
            return
        grace = self._settings.unready_grace
        self._leave_at = inf if ready or grace is None else now + grace
        if ready and self._first:
            self._first = False
            self._due = now + self._settings.start_jitter * self._chance()
        if ready and self.state == "withdrawn":
            self.state = "waiting"

    def stop(self) -> None:
        """Withdraw as soon as may be, and do nothing after that."""
        self._leave_at = -inf
        if not self.claimed:
            self.state = "withdrawn"

    def begin(self, call: Call, now: float) -> None:
        """Take it that ``call`` is on its way."""
        self._begun = now
        if call == "register":
            # Whatever comes of it: the control plane may hear it, and act on it late.
            self.epoch += 1
            self.claimed = True

    def succeed(self, call: Call) -> None:
        """Take it that the control plane agreed."""
        self.trouble = ""
        if call == "withdraw":
            self._end()
            return
        self.state = "registered"
        self._due = self._begun + self._settings.heartbeat
        if call == "heartbeat":  # a registration alone does not show that the two agree
            self._failures = 0

    def fail(self, call: Call, trouble: str, now: float, *, forgotten: bool = False) -> None:
        """Take it that ``call`` failed; ``forgotten``, because the control plane knows nothing."""
        if self.stopping and call != "withdraw":  # that is what comes now, whatever this was
            return
        self.trouble = trouble
        if call == "withdraw":  # it is not tried again: without heartbeats it ends by itself
            self._end()
            return
        if call == "heartbeat":
            self.state = "lost"
        # Who is told again and again to register gets no answer by that each time.
        at_once = forgotten and not self._failures
        self._due = now if at_once else now + self._backoff()
        self._failures += 1

    def _end(self) -> None:
        self.state = "withdrawn"
        self.claimed = False
        if self._ready and not self.stopping:  # it came back meanwhile
            self.state = "waiting"

    def _backoff(self) -> float:
        """Return how long to wait after the failures so far and one more."""
        first, longest = self._settings.backoff_min, self._settings.backoff_max
        usual: float = first * GROWTH ** min(self._failures, 32)
        return min(longest, usual * (1 + SPREAD * self._chance()))
