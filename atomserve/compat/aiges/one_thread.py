"""A thread that calls a wrapper as a slot's would, while another watches the time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

FAILURES = (Exception, SystemExit, GeneratorExit)
"""What a wrapper may raise; an interruption is the user's, and ends the command."""


class OneThread:
    """Calls what it is given, one after the other; what hangs is left behind."""

    def __init__(self) -> None:
        self.stuck = False
        """Whether a call has not come back."""
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        # Not a daemon: threads that the wrapper starts would be daemons, too.
        self._thread = threading.Thread(target=self._run, name="wrapper")
        self._thread.start()

    def close(self) -> None:
        """Let the thread end, and wait for that unless it is stuck."""
        self._calls.put(None)
        if not self.stuck:
            self._thread.join()

    def call(
        self,
        act: Callable[[], T],
        patience: float | None = None,
        *,
        progress: Callable[[], int] = lambda: 0,
    ) -> T:
        """Return or raise what ``act`` does.

        Raises TimeoutError when that takes ``patience`` seconds, or as many without ``progress``.
        """
        done: Future[T] = Future()
        self._calls.put((act, done))
        while True:
            before = progress()
            try:
                return done.result(patience)
            except TimeoutError:
                if done.done():
                    raise
                if progress() == before:
                    self.stuck = True
                    raise TimeoutError(f"has not come back within {patience:g} s") from None

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            act, done = call
            try:
                done.set_result(act())
            except BaseException as exc:  # noqa: BLE001 - it is raised where it is waited for
                done.set_exception(exc)
