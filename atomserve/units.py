"""Durations, sizes and rates as people write them: ``250ms``, ``64MiB``, ``1KiB/s``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated

import msgspec
from msgspec import Meta

_WRITTEN = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]{1,3})?) *([A-Za-z/]*)", re.ASCII)


class Unit(msgspec.Struct, frozen=True):
    """How one kind of number is written: the first suffix is what a plain number means."""

    noun: str
    suffixes: Mapping[str, Fraction]
    example: str
    whole: bool = True

    def parse(self, written: str | float) -> float:
        """Return the number in seconds or bytes; raise ValueError for anything else."""
        if isinstance(written, bool) or not isinstance(written, str | int | float):
            raise ValueError(f"not a {self.noun}")
        if not isinstance(written, str):
            return self._checked(Fraction(written) if math.isfinite(written) else None)
        match = _WRITTEN.fullmatch(written.strip())
        if match is None:
            raise ValueError(f"not a {self.noun}")
        number, suffix = match.groups()
        factors = {known.lower(): factor for known, factor in self.suffixes.items()}
        factor = factors.get(suffix.lower()) if suffix else Fraction(1)
        return self._checked(None if factor is None else Fraction(number) * factor)

    def show(self, value: float) -> str:
        """Write ``value`` in the largest unit that says it exactly; `parse` gives it back."""
        plain = next(iter(self.suffixes))
        for suffix, factor in sorted(self.suffixes.items(), key=lambda item: -item[1]):
            written = f"{round(Fraction(value) / factor)}{suffix}"
            if value and self.parse(written) == value:
                return written
        return f"{value or 0!r}{plain}"

    def _checked(self, exact: Fraction | None) -> float:
        if exact is None or (self.whole and exact.denominator != 1):
            raise ValueError(f"not a {self.noun}")
        try:
            return int(exact) if self.whole else float(exact)
        except OverflowError as exc:
            raise ValueError(f"not a {self.noun}") from exc


_SECOND = Fraction(1)
DURATION = Unit(
    "duration",
    {
        "s": _SECOND,
        "us": _SECOND / 1_000_000,
        "ms": _SECOND / 1000,
        "m": _SECOND * 60,
        "h": _SECOND * 3600,
        "d": _SECOND * 86_400,
    },
    example="250ms, 5s, 2m",
    whole=False,
)
_BYTES = {
    "B": Fraction(1),
    **{f"{prefix}iB": Fraction(1024**power) for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": Fraction(1000**power) for power, prefix in enumerate("KMGT", 1)},
}
SIZE = Unit("size", _BYTES, example="512KiB, 64MiB, 1GB")
RATE = Unit(
    "rate",
    {f"{suffix}/s": factor for suffix, factor in _BYTES.items()} | _BYTES,
    example="1KiB/s, 1MB/s",
)

Seconds = Annotated[float, Meta(ge=0, extra={"unit": DURATION})]
"""A duration in seconds; 0 is allowed."""
Timeout = Annotated[float, Meta(gt=0, extra={"unit": DURATION})]
"""A duration in seconds for something that cannot be done in none."""
Bytes = Annotated[int, Meta(ge=1, extra={"unit": SIZE})]
"""A size in bytes."""
Rate = Annotated[int, Meta(ge=0, extra={"unit": RATE})]
"""Bytes per second."""
