"""A stream wrapper's thread, and the sessions that it works for one after the other.

Upstream frees a thread by name: a late Destroy of one session frees the next one's thread, and a
frame written late reaches the wrong client. Here each claim of a thread has a handle of its own,
and a thread is claimed again only after it came back to its queue, done with the session before.
What cannot be told apart is a wrapper that waits for a session's next frame in the middle of its
work: its thread is at its queue, and taken for done once the session is destroyed.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from atomserve.compat.aiges.shim.aiges.dto import Response

_log = logging.getLogger("aiges")
_FAILED = -1


class _Closed(SystemExit):
    """Ends a thread that waits on a queue of a closed pool, silently."""


class _Feed(queue.Queue[Any]):
    """What a stream thread reads; tells its worker when the thread takes one and comes back."""

    def __init__(self, worker: WorkerThread) -> None:
        super().__init__()
        self._worker = worker
        self.closed = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        with self.not_empty:
            self._worker._at_rest()
            while not self._qsize():
                if self.closed:
                    self.not_empty.wait(0.05)  # a loop that catches everything must not spin
                    raise _Closed
                left = None if end is None else end - time.monotonic()
                if not block or (left is not None and left <= 0):
                    raise queue.Empty
                self.not_empty.wait(left)
            self._worker._taken()
            item = self._get()
            self.not_full.notify()
            return item

    def empty(self) -> bool:
        """Say whether nothing is there; a released thread that polls this is sent to `get`."""
        return super().empty() and not self._worker._released

    def close(self) -> None:
        """Let waiting threads end."""
        with self.mutex:
            self.closed = True
            self.not_empty.notify_all()


class _Inlet(queue.Queue[Any]):
    """One session's side of a feed: what comes after the session's end is dropped."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self._session._write(item)


class Session:
    """One claim of a worker thread; what a wrapper gets for a handle.

    All of it is harmless once the session is over: nothing of it reaches the thread's next one.
    """

    def __init__(self, worker: WorkerThread, handle: str) -> None:
        self.handle = handle
        self.sid = ""
        self.params: dict[str, Any] = {}
        self.callback_fn: Callable[..., Any] | None = None
        self.in_q: queue.Queue[Any] = _Inlet(self)
        self.out_q: queue.Queue[Any] = queue.Queue()
        self._worker = worker

    def setup_sid(self, sid: str) -> None:
        """Set the session's own id."""
        self.sid = sid

    def setup_params(self, params: dict[str, Any]) -> None:
        """Set what the client asked for."""
        self.params = params

    def setup_callback_fn(self, callback: Callable[..., Any]) -> None:
        """Set what results are handed to, with the sid."""
        self.callback_fn = callback

    def reset(self) -> None:
        """End the session: its thread is free as soon as it is back at its queue."""
        self._worker._release(self)

    @property
    def idle(self) -> bool:
        """Whether the session is over."""
        return self._worker._session is not self

    @property
    def is_idle(self) -> bool:
        """Whether the session is over."""
        return self.idle

    def _write(self, item: Any) -> None:
        self._worker._write(self, item)


class StreamHandleThread(threading.Thread):
    """The base of the thread that a wrapper writes: override ``infer``, or the whole ``run``."""

    def __init__(self, session_thread: Any, in_q: queue.Queue[Any], out_q: Any) -> None:
        super().__init__(daemon=True)
        self.is_stopping = False
        self.session_thread = session_thread
        self.in_q = in_q
        self.out_q = out_q

    def setDaemon(self, daemonic: bool) -> None:
        """Set `daemon`, by the name that wrappers use."""
        self.daemon = daemonic

    def init_model(self, *args: Any, **kwargs: Any) -> Any:
        """Load what the thread needs; the worker's handle is given."""

    def infer(self, req: Any) -> Any:
        """Work on one write of the session that `session_thread` shows."""
        raise NotImplementedError(f"{type(self).__name__} has neither infer nor run")

    def stop(self) -> None:
        """Ask the thread to end."""
        self.is_stopping = True

    def run(self) -> None:
        """Give `infer` what is written, until stopped."""
        self.init_model(self.session_thread.handle)
        while not self.is_stopping:
            self.infer(self.in_q.get())


class WorkerThread:
    """One stream thread with its current session; what the thread sees as `session_thread`."""

    def __init__(
        self,
        name: str,
        thread_class: Callable[..., threading.Thread],
        freed: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.in_q = _Feed(self)
        self.is_stopping = False
        self._thread_class = thread_class
        self._freed = freed
        self._none = Session(self, name)
        self._claims = 0
        self._starting = threading.Lock()
        # All below is written under the feed's lock.
        self._session: Session | None = None
        self._last: Session | None = None
        self._released = False
        self._resting = True
        self._begun = False
        self._retried = False
        self._thread: threading.Thread | None = None

    @property
    def handle(self) -> str:
        """The current session's handle, or the worker's name."""
        return self._current.handle

    @property
    def sid(self) -> str:
        """The current session's id."""
        return self._current.sid

    @property
    def params(self) -> dict[str, Any]:
        """The current session's parameters."""
        return self._current.params

    @property
    def callback_fn(self) -> Callable[..., Any] | None:
        """What the current session's results are handed to."""
        return self._current.callback_fn

    @property
    def out_q(self) -> queue.Queue[Any]:
        """The results of the current session, for those that are read and not called back."""
        return self._current.out_q

    @property
    def idle(self) -> bool:
        """Whether the worker has no session."""
        return self._session is None

    @property
    def is_idle(self) -> bool:
        """Whether the worker has no session."""
        return self.idle

    def reset(self) -> None:
        """End the current session, as the stream thread does after its last result."""
        self._release(self._current)

    def start(self) -> None:
        """Start the stream thread, or another one where it has ended."""
        with self._starting:
            if self._thread is not None:
                return
            thread = self._thread_class(self, self.in_q, _Results(self))
            thread.run = self._guarded(thread.run)  # type: ignore[method-assign]
            self._thread = thread
            thread.start()

    def stop(self, timeout: float = 0.0) -> bool:
        """Ask the thread to end, wait for that up to ``timeout`` seconds, say whether it did."""
        self.is_stopping = True
        with self._starting:
            thread = self._thread
        if thread is None:
            return True
        getattr(thread, "stop", lambda: None)()
        self.in_q.close()
        thread.join(timeout)
        return not thread.is_alive()

    def claim(self) -> Session | None:
        """Start a session, if the worker has none."""
        with self.in_q.mutex:
            if self._session is not None or self.is_stopping:
                return None
            self._claims += 1
            session = self._session = Session(self, f"{self.name}#{self._claims}")
            self._released = self._begun = self._retried = False
        try:
            self.start()
        except BaseException:
            self._release(session)
            raise
        return session

    def session(self, handle: str) -> Session:
        """Return the session called ``handle``.

        The last one that is over may still have results to be read; an older one is empty.
        """
        current, last = self._current, self._last
        if handle in (current.handle, self.name):
            return current
        return last if last is not None and handle == last.handle else Session(self, handle)

    @property
    def _current(self) -> Session:
        return self._session or self._none

    def _write(self, session: Session, item: Any) -> None:
        with self.in_q.mutex:
            if session is self._session and not self._released:
                self.in_q._put(item)
                self.in_q.unfinished_tasks += 1
                self.in_q.not_empty.notify()

    def _release(self, session: Session) -> None:
        with self.in_q.mutex:
            if session is self._session:
                self._released = True
                self.in_q.queue.clear()
                if self._resting:
                    self._end()

    def _at_rest(self) -> None:
        """Note, under the feed's lock, that the thread is done with what it took."""
        self._resting = True
        if self._released:
            self._end()

    def _taken(self) -> None:
        """Note, under the feed's lock, that the thread works for the session now."""
        self._resting = False
        self._begun = True

    def _end(self) -> None:
        self._last = self._session or self._last
        self._session = None
        self._released = False
        self._freed()

    def _guarded(self, run: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                run()
            except _Closed:
                pass
            except Exception:  # noqa: BLE001 - a wrapper may raise anything
                _log.exception("%s: the stream thread failed", self.handle)
            finally:
                self._lost()

        return guarded

    def _lost(self) -> None:
        """Fail the session whose thread has ended; one that it had not begun gets another."""
        with self.in_q.mutex:
            self._thread = None
            self._resting = True
            session = None if self._released or self.is_stopping else self._session
            again = session is not None and not (self._begun or self._retried)
            self._retried = True
        if again:
            self.start()
            return
        if session is not None:
            _fail(session)
        with self.in_q.mutex:
            self.in_q.queue.clear()
            self._end()


def _fail(session: Session) -> None:
    try:
        if session.callback_fn is not None:
            session.callback_fn(Response().response_err(_FAILED), session.sid)
    except Exception:  # noqa: BLE001 - a wrapper may raise anything
        _log.exception("%s: the failure could not be told", session.handle)


class _Results(queue.Queue[Any]):
    """The stable queue that a stream thread writes its results to: the current session's."""

    def __init__(self, worker: WorkerThread) -> None:
        super().__init__()
        self._worker = worker

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self._worker.out_q.put(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return self._worker.out_q.get(block, timeout)
