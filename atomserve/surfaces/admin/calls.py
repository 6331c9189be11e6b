"""What this process asks the supervisor for an administrator, and waits for."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import anyio
import msgspec

from atomserve import control
from atomserve.errors import AtomError, DeadlineExceeded, NotReady, all_errors

Make = Callable[[int], control.Administration]


class Calls:
    """Asks the supervisor, by `attach`'s report; `hear` gets each answer."""

    def __init__(self) -> None:
        self._report: Callable[..., None] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, anyio.Event] = {}
        self._told: dict[int, control.Told] = {}

    def __repr__(self) -> str:
        return f"<Calls: {len(self._asked)} waiting>"

    def attach(self, report: Callable[..., None]) -> None:
        """From now on ask by ``report``."""
        self._report = report

    async def ask(self, make: Make, *descriptors: int, patience: float) -> msgspec.Raw:
        """Return the answer to what ``make`` makes of a number; copies of ``descriptors`` go along.

        Raises:
            AtomError: it is refused, or not answered within ``patience`` seconds.
        """
        if self._report is None:
            raise NotReady("no supervisor runs")
        number = next(self._numbers)
        answered = self._asked[number] = anyio.Event()
        try:
            self._report(make(number), descriptors)
            with anyio.move_on_after(patience):
                await answered.wait()
            told = self._told.pop(number, None)
        finally:
            del self._asked[number]
        if told is None:
            raise DeadlineExceeded(f"the supervisor has not answered within {patience:g} s")
        if told.code:
            raise all_errors().get(told.code, AtomError)(told.detail)
        return told.document

    def hear(self, told: control.Told) -> None:
        """Take an answer, if somebody still waits for it."""
        if told.number in self._asked:
            self._told[told.number] = told
            self._asked[told.number].set()
