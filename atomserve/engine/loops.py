"""The raw edges of the event loop: posts from threads, calls at the end of a turn, timers.

Bare asyncio instead of AnyIO: each of these happens for every request, and AnyIO offers no
one-way post from a thread (`benchmarks/engine_rate.py` shows what that costs).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol


class Timer(Protocol):
    """A call that waits for its time."""

    def cancel(self) -> None: ...


class Mailbox:
    """Runs on its event loop, in order, what threads post; one wake-up serves many posts.

    ``post`` never blocks and may be called from any thread, also after the loop has closed.
    """

    __slots__ = ("_loop", "_posts", "_thread", "_woken")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._posts: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._woken = False

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        self._posts.append((function, args))
        if not self._woken:
            self._woken = True
            try:
                if get_ident() == self._thread:  # A loop that runs need not be woken by a byte.
                    self._loop.call_soon(self._drain)
                else:
                    self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                self._posts.clear()  # The loop has closed: nobody is left to be told.

    def _drain(self) -> None:
        # Cleared first: what is posted from now on wakes the loop again.
        self._woken = False
        posts = self._posts
        try:
            for _ in range(len(posts)):
                function, args = posts.popleft()
                function(*args)
        finally:
            if posts and not self._woken:
                self._woken = True
                self._loop.call_soon(self._drain)


class EndOfTurn:
    """Calls ``function`` once at the end of a loop turn, however often it was asked for."""

    __slots__ = ("_asked", "_function", "_loop")

    def __init__(self, function: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._function = function
        self._asked = False

    def ask(self) -> None:
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._asked = False
        self._function()


def call_later(seconds: float, function: Callable[..., Any], *args: Any) -> Timer:
    """Call ``function`` on the running loop after ``seconds``, unless cancelled before."""
    return asyncio.get_running_loop().call_later(seconds, function, *args)
