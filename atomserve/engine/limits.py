"""How many jobs a model may have in its hands, and how long one more would wait."""

from __future__ import annotations

import math

LESS = 0.9
STEADY = 0.03
"""Weight of the newest sample: jobs that shared a hop leave together, after a pause."""


class AdaptiveLimit:
    """A bound on jobs in hand that falls when they wait too long and rises while they do not.

    There is none (``inf``) until the first job waited too long, nor after it has risen to
    ``ceiling``; it never falls below ``floor``, what the slots hold when none waits.

    What made jobs late may be over: below the limit at which they were, and after as many answers
    in a row that came easily, it doubles rather than rises by one.
    """

    __slots__ = ("_bad", "_easy", "_fell", "ceiling", "floor", "places")

    def __init__(self, floor: int, ceiling: int) -> None:
        self.floor = floor
        self.ceiling = ceiling
        self.places = math.inf
        self._fell = -math.inf
        self._bad = 0.0
        """Where it last fell from."""
        self._easy = 0
        """Answers in a row that hardly waited."""

    def __repr__(self) -> str:
        return f"<AdaptiveLimit: {self.places:g} of {self.floor} to {self.ceiling}>"

    def late(self, now: float, wait: float, in_hand: int) -> None:
        """Fall, for a job that waited ``wait`` seconds, which is too long.

        At most once in that time: what was done must first have its effect.
        """
        self._easy = 0
        if now - self._fell >= wait:
            self._fell = now
            self._bad = min(self.places, in_hand)
            self.places = max(self.floor, LESS * self._bad)

    def good(self, *, easy: bool = False) -> None:
        """A job was answered: rise by one for each limit's worth of these.

        If it waited far less than would be too long, which is ``easy``, the limit may double.
        """
        if self.places != math.inf:
            self._easy = self._easy + 1 if easy else 0
            doubles = easy and (self.places < self._bad or self._easy > self.places)
            self.places += 1.0 if doubles else 1.0 / max(1.0, self.places)
            if self.places >= self.ceiling:
                self.places = math.inf


class Pace:
    """How fast jobs leave a model that is never idle; ``parallel`` are in work at once."""

    __slots__ = ("_parallel", "own", "seconds")

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self.seconds = 0.0
        """Between two jobs that leave; 0 while nothing is known."""
        self.own = 0.0
        """For one job, or its batch, in a slot."""

    def took(self, seconds: float) -> None:
        """A job was in a slot for ``seconds`` while none waited."""
        # Had anything waited, all slots would have been busy.
        self._learn(seconds / self._parallel)

    def followed(self, seconds: float) -> None:
        """A job left ``seconds`` after the one before while others waited all the time."""
        self._learn(seconds)

    def _learn(self, each: float) -> None:
        self.seconds += (each - self.seconds) * (STEADY if self.seconds else 1.0)
        self.own = self.seconds * self._parallel

    def batch(self, size: int, seconds: float) -> None:
        """Batches of ``size`` take ``seconds``."""
        self.own = seconds
        self.seconds = seconds / size / self._parallel

    def wait(self, waiting: float) -> float:
        """Return the seconds until ``waiting`` jobs have left; 0 while nothing is known."""
        return waiting * self.seconds

    def until_answer(self, before: float) -> float:
        """Return the seconds until one more job is answered that ``before`` others precede.

        What runs now is counted as if it had just begun.
        """
        return before * self.seconds + self.own / self._parallel + self.own
