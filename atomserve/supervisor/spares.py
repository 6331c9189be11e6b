"""A model's spare: one more worker that has loaded, and waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from atomserve.supervisor.worker import Seat, Worker

Load = Callable[[Seat], Awaitable[Worker | None]]


class Spare:
    """Keeps a worker at hand that takes the seat of another at once, and is replaced itself."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self._seat = Seat(0)
        self._gone = anyio.Event()

    def __repr__(self) -> str:
        return f"<Spare: {self.worker}>"

    async def keep(self, load: Load, seat: Seat) -> None:
        """Have a worker loaded whenever there is none, until ``load`` gives none any more."""
        self._seat = seat
        while (worker := await load(seat)) is not None:
            self.worker, self._gone = worker, anyio.Event()
            await self._gone.wait()

    def take(self, seat: Seat) -> Worker | None:
        """Return the worker for ``seat``, if there is one; its successor gets what that dealt."""
        worker, self.worker = self.worker, None
        if worker is not None:
            self._seat.deal, seat.deal = seat.deal, worker.deal
            self._gone.set()
        return worker

    def bury(self, worker: Worker) -> None:
        """Replace ``worker``, which has ended, if it was the spare."""
        if worker is self.worker:
            self.worker = None
            self._gone.set()
