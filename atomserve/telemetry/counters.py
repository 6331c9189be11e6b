"""Counters, gauges and histograms of one process, and snapshots of them that add up over many.

A `Registry` is an object that is passed; nothing here is global. Whoever counts keeps the child of
its labels (`Family.child`) and adds to that: no lookup, no lock, less than 100 ns. All of it
happens on one thread, the event loop's.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, TypeVar

import msgspec

MOST = 300
"""Series of one family; what comes later is counted together, as `OTHER`."""
OTHER = "_other"
"""The value of every label of the series that takes what is over the bound."""

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
Readings = Iterable[tuple[Labels, float]]

_NAME = re.compile(r"[a-z][a-z0-9_]*").fullmatch


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        """Count ``amount`` more."""
        self.value += amount

    def point(self, labels: Labels) -> Point:
        return Point(labels, self.value)


class Histogram:
    """How many values fell under each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0

    def observe(self, value: float) -> None:
        """Count ``value`` in its bucket, which includes its bound."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def point(self, labels: Labels) -> Point:
        return Point(labels, self._sum, tuple(self._counts))


class Point(msgspec.Struct, frozen=True, array_like=True):
    """One series of a snapshot: ``value`` is a histogram's sum, ``counts`` its buckets' counts."""

    labels: Labels
    value: float
    counts: tuple[int, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, omit_defaults=True):
    """One family at one moment, as data that crosses processes."""

    name: str
    kind: Kind
    help: str
    labels: Labels
    points: tuple[Point, ...]
    bounds: tuple[float, ...] = ()


C = TypeVar("C", bound=Counter | Histogram)


class Family(Generic[C]):
    """All series of one name, at most ``most``, and one for what is beyond."""

    def __init__(self, about: Snapshot, make: Callable[[], C], most: int) -> None:
        self._about = about
        self._make = make
        self._most = most
        self._children: dict[Labels, C] = {}

    def __repr__(self) -> str:
        return f"<Family {self._about.name}: {len(self._children)} of {self._most} series>"

    def child(self, *labels: str) -> C:
        """Return the series with these values of the labels, to be kept by whoever counts."""
        child = self._children.get(labels)
        return self._begin(labels) if child is None else child

    def snapshot(self) -> Snapshot:
        points = tuple(child.point(labels) for labels, child in self._children.items())
        return msgspec.structs.replace(self._about, points=points)

    def _begin(self, labels: Labels) -> C:
        names = self._about.labels
        if len(labels) != len(names):
            raise ValueError(f"{self._about.name} has the labels {names}, not {labels}")
        if len(self._children) >= self._most:
            labels = (OTHER,) * len(names)
        return self._children.setdefault(labels, self._make())


class Registry:
    """The families of one process, by name."""

    def __init__(self, *, most: int = MOST) -> None:
        self._most = most
        self._families: dict[str, Callable[[], Snapshot]] = {}

    def __repr__(self) -> str:
        return f"<Registry: {', '.join(self._families)}>"

    def counter(self, name: str, help: str, *labels: str) -> Family[Counter]:
        """Begin a family of counters."""
        family = Family(self._about(name, "counter", help, labels), Counter, self._most)
        self._families[name] = family.snapshot
        return family

    def histogram(
        self, name: str, help: str, *labels: str, bounds: Sequence[float]
    ) -> Family[Histogram]:
        """Begin a family of histograms whose buckets end at ``bounds``, and at infinity."""
        fixed = tuple(map(float, bounds))
        if not fixed or list(fixed) != sorted(set(fixed)):
            raise ValueError(f"{name}: bounds must be there, and rise")
        about = self._about(name, "histogram", help, labels, fixed)
        family = Family(about, lambda: Histogram(fixed), self._most)
        self._families[name] = family.snapshot
        return family

    def watch(
        self,
        name: str,
        help: str,
        *labels: str,
        read: Callable[[], Readings],
        kind: Literal["gauge", "counter"] = "gauge",
    ) -> None:
        """Begin a family whose values are kept elsewhere: ``read`` tells them at each snapshot."""
        about = self._about(name, kind, help, labels)

        def snapshot() -> Snapshot:
            points = tuple(Point(values, value) for values, value in read())
            return msgspec.structs.replace(about, points=points)

        self._families[name] = snapshot

    def snapshot(self) -> list[Snapshot]:
        """Return all families as they are now."""
        return [snapshot() for snapshot in self._families.values()]

    def _about(
        self, name: str, kind: Kind, help: str, labels: Labels, bounds: tuple[float, ...] = ()
    ) -> Snapshot:
        if not all(map(_NAME, (name, *labels))):
            raise ValueError(f"{name} {labels}: lower-case letters, digits and underscores")
        if (kind == "counter") != name.endswith("_total"):
            raise ValueError(f"{name}: a counter's name ends in _total, and no other's")
        if name in self._families:
            raise ValueError(f"there is a family {name} already")
        return Snapshot(name, kind, help, labels, (), bounds)


def merge(snapshots: Iterable[Sequence[Snapshot]]) -> list[Snapshot]:
    """Add up what several processes counted: series by series, in the order of their appearance.

    Raises:
        ValueError: two families of one name do not have the same form.
    """
    forms: dict[str, Snapshot] = {}
    points: dict[str, dict[Labels, Point]] = {}
    for family in (family for process in snapshots for family in process):
        form = msgspec.structs.replace(family, points=())
        if forms.setdefault(family.name, form) != form:
            raise ValueError(f"{family.name} has another form in another process")
        series = points.setdefault(family.name, {})
        for point in family.points:
            before = series.get(point.labels)
            series[point.labels] = point if before is None else _sum(before, point)
    return [
        msgspec.structs.replace(form, points=tuple(points[name].values()))
        for name, form in forms.items()
    ]


def folded(family: Snapshot, most: int) -> Snapshot:
    """Keep the first ``most`` series of ``family``, and add up the others as `OTHER`."""
    kept = {point.labels: point for point in family.points[:most]}
    other = (OTHER,) * len(family.labels)
    for point in family.points[most:]:
        before = kept.get(other)
        moved = msgspec.structs.replace(point, labels=other)
        kept[other] = moved if before is None else _sum(before, moved)
    return msgspec.structs.replace(family, points=tuple(kept.values()))


def _sum(one: Point, other: Point) -> Point:
    counts = tuple(map(sum, zip(one.counts, other.counts, strict=True)))
    return Point(one.labels, one.value + other.value, counts)
