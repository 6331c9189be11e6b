"""The pool of threads that stream wrappers take their sessions from."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from atomserve.compat.aiges.shim.aiges.core.types import THREAD_MODE
from atomserve.compat.aiges.stream_threads import Session, WorkerThread

_log = logging.getLogger("aiges")


class _Claims(threading.local):
    """The sessions that a thread has claimed since it began to be watched."""

    made: list[Session] | None = None

    def note(self, session: Session) -> None:
        if self.made is not None:
            self.made.append(session)


_claims = _Claims()


@contextmanager
def provisional() -> Iterator[Callable[[], None]]:
    """Let what this thread claims be given back: by the function it gives, or by an exception.

    A wrapper that fails between its claim and its answer is never told to destroy anything.
    """
    made: list[Session] = []
    _claims.made = made

    def give_back() -> None:
        for session in made:
            session.reset()

    try:
        yield give_back
    except BaseException:
        give_back()
        raise
    finally:
        _claims.made = None


class HandlePool:
    """The workers of one wrapper, by name."""

    def __init__(self, workers: dict[str, WorkerThread]) -> None:
        self.workers = workers


class SessionManager:
    """Hands out worker threads to sessions, one each; safe from any thread."""

    patience = 0.5
    """How long a new session waits for a thread that is about to be done, seconds."""

    def __init__(self, config: Any = None, mode: str = THREAD_MODE, nums: int = 0) -> None:
        self.initialized = False
        self.code = 0
        self.wrapperConfig: Any = config if config is not None else {}
        self.handle_pool = HandlePool({})
        self._changed = threading.Condition()
        self._frees = 0

    def init_wrapper_config(self, config: Any = None) -> None:
        """Keep the wrapper's configuration."""
        self.wrapperConfig = config if config is not None else {}

    def init_handle_pool(self, mode: str, nums: Any, ReqThreadCls: Any) -> None:
        """Start ``nums`` threads of the wrapper's class; processes were never supported."""
        if mode != THREAD_MODE:
            _log.warning("sessions run in threads: there is no mode %r", mode)
        names = [f"Process-0-Thread-{number}" for number in range(int(nums))]
        workers = {name: WorkerThread(name, ReqThreadCls, self._freed) for name in names}
        self.handle_pool = HandlePool(workers)
        for worker in workers.values():
            worker.start()
        self.initialized = True

    def get_idle_handle(self) -> str | None:
        """Claim a free thread and return the session's handle; None if all are taken."""
        workers = list(self.handle_pool.workers.values())
        end = time.monotonic() + self.patience
        while not all(worker.is_stopping for worker in workers):
            seen = self._frees
            for worker in workers:
                session = worker.claim()
                if session is not None:
                    _claims.note(session)
                    return session.handle
            with self._changed:
                left = max(0.0, end - time.monotonic())
                if self._frees == seen and not self._changed.wait(left):
                    return None
        return None

    def get_session(self, handle: Any) -> Session | None:
        """Return the session of ``handle``; None if no thread was ever called so."""
        worker = self._worker(handle)
        return None if worker is None else worker.session(str(handle))

    def set_idle_session(self, handle: Any) -> None:
        """End the session of ``handle``; harmless when it is over."""
        session = self.get_session(handle)
        if session is not None:
            session.reset()

    def reset_session(self, handle: Any) -> None:
        """End the session of ``handle``; harmless when it is over."""
        self.set_idle_session(handle)

    def push_back(self, handle: Any) -> None:
        """End the session of ``handle``; harmless when it is over."""
        self.set_idle_session(handle)

    def close(self, timeout: float = 1.0) -> bool:
        """Stop all threads, waiting ``timeout`` seconds in all; says whether they ended."""
        end = time.monotonic() + timeout
        workers = list(self.handle_pool.workers.values())
        for worker in workers:
            worker.stop()
        return all(worker.stop(max(0.0, end - time.monotonic())) for worker in workers)

    def _freed(self) -> None:
        with self._changed:
            self._frees += 1
            self._changed.notify_all()

    def _worker(self, handle: Any) -> WorkerThread | None:
        return self.handle_pool.workers.get(str(handle).partition("#")[0])
