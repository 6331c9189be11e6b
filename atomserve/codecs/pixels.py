"""How many pixels a request may have, and raw ones as a picture."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from atomserve.errors import TooLarge

Array = NDArray[np.uint8]


class Pixels:
    """Bounds on the pictures that are decoded for one request; any thread may claim."""

    def __init__(
        self, each: int = 40_000_000, together: int = 160_000_000, frames: int = 1
    ) -> None:
        self._each = each
        self._together = max(each, together)
        self.frames = frames
        self._claimed = 0
        self._lock = Lock()

    def check(self, width: int, height: int) -> None:
        """Raise `TooLarge` for a picture that has too many by itself."""
        if width * height > self._each:
            raise TooLarge(f"a picture of {width} x {height} pixels; expected at most {self._each}")

    def claim(self, width: int, height: int) -> None:
        """Count a picture before its pixels are there; raises as `check`, or if all have too many.

        Raises:
            TooLarge: it is, or all are, over the bound.
        """
        self.check(width, height)
        with self._lock:
            self._claimed += width * height
            if self._claimed > self._together:
                raise TooLarge(f"pictures of more than {self._together} pixels together")


def from_pixels(data: memoryview, height: int, width: int, pixels: Pixels) -> Array:
    """Return raw pixels, each blue, green and red, as RGB of shape (height, width, 3), read-only.

    Raises:
        TooLarge: more than ``pixels`` allows.
        ValueError: not as many bytes as that needs.
    """
    pixels.claim(width, height)
    array = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(height, width, 3)[..., ::-1])
    array.flags.writeable = False
    return array
