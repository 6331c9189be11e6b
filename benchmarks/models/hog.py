"""Pure Python that holds the GIL for seconds."""

from __future__ import annotations

import time

from atomserve import Wrapper


class Hog(Wrapper):
    """Compute for ``seconds``."""

    timeout = 600.0

    def predict(self, seconds: float) -> float:
        compute(seconds)
        return seconds


def compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
