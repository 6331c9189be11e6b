"""Snapshots written as text for Prometheus, in its own format or in OpenMetrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate

from atomserve.telemetry.counters import Point, Snapshot

TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text"
CONTENT_TYPES = {
    TEXT: "text/plain; version=0.0.4; charset=utf-8",
    OPENMETRICS: "application/openmetrics-text; version=1.0.0; charset=utf-8",
}

_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})
_IN_LABEL = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def write(families: Iterable[Snapshot], *, form: str = TEXT) -> str:
    """Write ``families`` in one of the `CONTENT_TYPES`."""
    lines = [line for family in families for line in _family(family, form)]
    if form == OPENMETRICS:
        lines.append("# EOF")
    return "\n".join([*lines, ""])


def _family(family: Snapshot, form: str) -> Iterator[str]:
    # OpenMetrics names a counter's family without the suffix that its samples have.
    name = family.name.removesuffix("_total") if form == OPENMETRICS else family.name
    help = family.help.translate(_IN_LABEL if form == OPENMETRICS else _IN_HELP)
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {family.kind}"
    for point in sorted(family.points, key=lambda point: point.labels):
        if family.kind == "histogram":
            yield from _histogram(family, point)
        else:
            yield f"{family.name}{_labels(family, point)} {_number(point.value)}"


def _histogram(family: Snapshot, point: Point) -> Iterator[str]:
    bounds = [*map(repr, family.bounds), "+Inf"]
    counts = list(accumulate(point.counts))
    for bound, count in zip(bounds, counts, strict=True):
        yield f"{family.name}_bucket{_labels(family, point, le=bound)} {count}"
    yield f"{family.name}_count{_labels(family, point)} {counts[-1]}"
    yield f"{family.name}_sum{_labels(family, point)} {_number(point.value)}"


def _labels(family: Snapshot, point: Point, **more: str) -> str:
    pairs = [*zip(family.labels, point.labels, strict=True), *more.items()]
    if not pairs:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_IN_LABEL)}"' for name, value in pairs) + "}"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
