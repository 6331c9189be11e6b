"""How answers come back to whoever waits for them: one future, or a bounded stream.

Bare futures instead of AnyIO's events: a reply is made for every request
(`benchmarks/engine_rate.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from atomserve.engine.jobs import Answer
from atomserve.errors import AtomError


class One:
    """The reply of a unary job; await it for the answer, or its error."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._future.__await__()

    @property
    def ended(self) -> bool:
        return self._future.done()

    def then(self, told: Callable[[Answer | AtomError], None]) -> None:
        """Call ``told`` with the answer or the error, in the loop turn after it came."""

        def tell(future: asyncio.Future[Answer]) -> None:
            error = future.exception()
            told(error if isinstance(error, AtomError) else future.result())

        self._future.add_done_callback(tell)

    def begun(self, place: int) -> None:
        """Nobody needs to know."""

    def prepared(self, answer: Answer) -> Answer:
        return answer.copied()

    def answer(self, answer: Answer) -> None:
        if not self._future.done():
            self._future.set_result(answer)

    def end(self) -> None:
        """A unary job ends by its answer."""

    def fail(self, error: AtomError) -> None:
        if not self._future.done():
            self._future.set_exception(error)


class Many:
    """The reply of a streaming job: iterate over its answers; a failure is raised at its place.

    How many may wait unread is the slot's to bound.
    """

    __slots__ = ("_arrived", "_ended", "_error", "_queue")

    def __init__(self) -> None:
        self._queue: deque[Answer] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._ended = False
        self._error: AtomError | None = None

    @property
    def ended(self) -> bool:
        return self._ended

    def begun(self, place: int) -> None:
        """Nobody needs to know."""

    def prepared(self, answer: Answer) -> Answer:
        return answer.copied()

    def answer(self, answer: Answer) -> None:
        if not self._ended:
            self._queue.append(answer)
            self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def fail(self, error: AtomError) -> None:
        if not self._ended:
            self._error = error
            self.end()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def __aiter__(self) -> Many:
        return self

    async def __anext__(self) -> Answer:
        while not self._queue:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._queue.popleft()
