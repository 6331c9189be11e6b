"""Subjects measured by turns, so that all of them meet the same machine, and what that showed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")
Figures = dict[str, list[float]]


def arguments(doc: str | None, **defaults: float) -> Any:
    """Read the command line: an option for each default, the module's own sentence as the help."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def by_turns(subjects: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure each subject once a round; the first round warms them up and does not count."""
    found: dict[str, list[T]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, measure in subjects.items():
            figure = measure()
            if number:
                found[name].append(figure)
    return found


@dataclass(frozen=True)
class Claim:
    """``subject`` is ``least`` (or, if ``most``, at most that) times what ``other`` is."""

    subject: str
    other: str
    least: float = 0.0
    most: float = float("inf")

    def line(self, figures: Figures) -> str:
        ratios = ratios_of(figures, self.subject, self.other)
        found = median(ratios)
        met = "met" if self.least <= found <= self.most else "MISSED"
        bound = f">= {self.least:g}" if self.least else f"<= {self.most:g}"
        return (
            f"{self.subject} : {self.other} = {found:.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), must be {bound}: {met}"
        )


def ratios_of(figures: Figures, subject: str, other: str) -> list[float]:
    """Return the ratio of each round."""
    return [a / b for a, b in zip(figures[subject], figures[other], strict=True)]


def report(
    figures: Figures,
    unit: str,
    *,
    reference: str,
    digits: int = 0,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Print one line for each subject; the spread of its ratios tells how noisy it was."""
    width = max(map(len, figures))
    for name, values in figures.items():
        ratios = ratios_of(figures, name, reference)
        print(
            f"{name:{width}} {median(values):9.{digits}f} {unit} "
            f"({min(values):.{digits}f} to {max(values):.{digits}f}) "
            f"{median(ratios):6.2f} x {reference} ({min(ratios):.2f} to {max(ratios):.2f})"
            f"{notes.get(name, '')}"
        )


def judge(figures: Figures, *claims: Claim) -> None:
    """Print whether each claim holds, as far as its subjects were there."""
    for claim in claims:
        if claim.subject in figures and claim.other in figures:
            print(claim.line(figures))
