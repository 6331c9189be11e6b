"""Sessions of stream wrappers have a thread each, and nothing of one reaches another."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atomserve.compat.aiges.binding import Bound
from atomserve.compat.aiges.sessions import SessionManager
from atomserve.compat.aiges.shim.aiges.dto import SessionCreateResponse
from atomserve.compat.aiges.shim.aiges.sdk import WrapperBase
from atomserve.compat.aiges.stream_threads import Session, StreamHandleThread

PATIENCE = 10.0


class Echo(StreamHandleThread):
    """Calls back what is written; "end" is the session's last."""

    def infer(self, req: Any) -> None:
        worker = self.session_thread
        worker.callback_fn(req, worker.sid)
        if req == "end":
            worker.reset()


@pytest.fixture
def manager() -> Iterator[SessionManager]:
    made = SessionManager()
    made.patience = PATIENCE
    yield made
    assert made.close(PATIENCE)


def started(
    manager: SessionManager, sid: str, callback: Callable[..., Any] = lambda *_: 0
) -> Session:
    """Do what wrappers do in `wrapperCreate`."""
    handle = manager.get_idle_handle()
    assert handle is not None
    session = manager.get_session(handle=handle)
    assert session is not None
    session.setup_sid(sid)
    session.setup_params({"sid": sid})
    session.setup_callback_fn(callback)
    return session


def test_each_session_has_a_thread_until_there_is_none_left(manager: SessionManager) -> None:
    manager.patience = 0
    manager.init_wrapper_config({"a": "1"})
    manager.init_handle_pool("thread", "2", Echo)
    assert manager.initialized
    assert manager.wrapperConfig == {"a": "1"}
    first, second = manager.get_idle_handle(), manager.get_idle_handle()
    assert first != second
    assert manager.get_idle_handle() is None
    manager.push_back(first)
    assert manager.get_idle_handle() is not None


class Pooled(WrapperBase):
    def __init__(self, manager: SessionManager) -> None:
        super().__init__()
        self.session = manager

    def wrapperCreate(self, params: dict[str, Any], sid: str) -> SessionCreateResponse:
        handle = self.session.get_idle_handle()
        if handle is None:
            return SessionCreateResponse("", -1)
        if params.get("code"):
            return SessionCreateResponse(handle, params["code"])
        return SessionCreateResponse(handle + params["suffix"])


def test_a_create_that_fails_gives_its_thread_back(manager: SessionManager) -> None:
    manager.patience = 0
    manager.init_handle_pool("thread", 1, Echo)
    bound = Bound(Pooled(manager))
    for _ in range(3):
        with pytest.raises(KeyError):
            bound.create({}, sid="s")
        assert bound.create({"code": 7}, sid="s").error_code == 7
    assert bound.create({"suffix": ""}, sid="s").error_code == 0
    assert bound.create({"suffix": ""}, sid="t").error_code == -1


def test_a_handle_that_was_never_given_is_no_session(manager: SessionManager) -> None:
    manager.init_handle_pool("thread", 1, Echo)
    assert manager.get_session("other") is None
    manager.set_idle_session("other")
    manager.reset_session("other")
    assert SessionManager().get_idle_handle() is None


def test_a_mode_that_never_worked_is_threads(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.init_handle_pool("process", 1, Echo)
    assert manager.get_idle_handle() == "Process-0-Thread-0#1"
    assert "there is no mode 'process'" in caplog.text


def test_results_come_with_their_session(manager: SessionManager) -> None:
    got: queue.Queue[Any] = queue.Queue()
    manager.init_handle_pool("thread", 1, Echo)
    for sid in ("a", "b", "c"):
        session = started(manager, sid, lambda *result: got.put(result))
        session.in_q.put("x")
        session.in_q.put("end")
        assert [got.get(timeout=PATIENCE) for _ in range(2)] == [("x", sid), ("end", sid)]


def test_a_late_end_of_one_session_does_not_free_the_nexts_thread(manager: SessionManager) -> None:
    manager.init_handle_pool("thread", 1, Echo)
    old = started(manager, "old")
    old.in_q.put("end")
    new = started(manager, "new")
    assert new.handle != old.handle
    manager.set_idle_session(old.handle)
    manager.push_back(old.handle)
    old.reset()
    manager.patience = 0
    assert manager.get_idle_handle() is None
    assert not new.idle
    assert old.is_idle


def test_a_late_write_of_one_session_does_not_reach_the_next(manager: SessionManager) -> None:
    got: queue.Queue[Any] = queue.Queue()
    manager.init_handle_pool("thread", 1, Echo)
    old = started(manager, "old")
    old.reset()
    started(manager, "new", lambda *result: got.put(result)).in_q.put("mine")
    old.in_q.put("late")
    again = manager.get_session(old.handle)
    assert again is not None
    again.in_q.put("late, too")
    again.setup_sid("old")
    manager.get_session("Process-0-Thread-0").in_q.put("last")  # type: ignore[union-attr]
    found = [got.get(timeout=PATIENCE) for _ in range(2)]
    assert found == [("mine", "new"), ("last", "new")]


def test_what_a_cut_off_session_still_gives_does_not_reach_the_next(
    manager: SessionManager,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    got: list[Any] = []

    class Slow(StreamHandleThread):
        def infer(self, req: Any) -> None:
            begun.set()
            assert go_on.wait(PATIENCE)
            self.session_thread.callback_fn(req, self.session_thread.sid)

    manager.init_handle_pool("thread", 1, Slow)
    old = started(manager, "old", lambda *result: got.append(("old", *result)))
    old.in_q.put("secret")
    old.in_q.put("never begun")
    assert begun.wait(PATIENCE)
    manager.set_idle_session(old.handle)
    manager.patience = 0
    assert manager.get_idle_handle() is None  # its thread works for the old one still
    manager.patience = PATIENCE
    threading.Timer(0, go_on.set).start()
    started(manager, "new", lambda *result: got.append(("new", *result)))
    assert got == [("old", "secret", "old")]


def test_a_thread_that_fails_tells_its_session_and_is_replaced(
    manager: SessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    got: queue.Queue[Any] = queue.Queue()

    class Fails(Echo):
        def infer(self, req: Any) -> None:
            if req == "bad":
                raise ValueError("no such frame")
            super().infer(req)

    manager.init_handle_pool("thread", 1, Fails)
    started(manager, "a", lambda *result: got.put(result)).in_q.put("bad")
    response, sid = got.get(timeout=PATIENCE)
    assert (response.error_code, sid) == (-1, "a")
    started(manager, "b", lambda *result: got.put(result)).in_q.put("good")
    assert got.get(timeout=PATIENCE) == ("good", "b")
    assert "no such frame" in caplog.text


def test_a_session_that_was_not_begun_survives_its_thread(manager: SessionManager) -> None:
    got: queue.Queue[Any] = queue.Queue()
    waits, attempts = threading.Event(), []

    class Late(Echo):
        def init_model(self, *args: Any, **kwargs: Any) -> None:
            attempts.append(args)
            if len(attempts) == 1:
                assert waits.wait(PATIENCE)
                raise OSError("the model is not there yet")

    manager.init_handle_pool("thread", 1, Late)
    session = started(manager, "a", lambda *result: got.put(result))
    session.in_q.put("x")
    waits.set()
    assert got.get(timeout=PATIENCE) == ("x", "a")
    assert attempts == [(session.handle,)] * 2 or attempts[1] == (session.handle,)


def test_a_thread_that_never_starts_loses_its_session_and_no_more(manager: SessionManager) -> None:
    class Broken(StreamHandleThread):
        def init_model(self, *args: Any, **kwargs: Any) -> None:
            raise OSError("no model")

    manager.init_handle_pool("thread", 1, Broken)
    assert [manager.get_idle_handle() is not None for _ in range(3)] == [True] * 3


def test_a_class_that_cannot_be_made_fails_the_init(manager: SessionManager) -> None:
    class Wrong(StreamHandleThread):
        def __init__(self) -> None:
            raise AssertionError

    with pytest.raises(TypeError):
        manager.init_handle_pool("thread", 1, Wrong)


def test_results_can_be_read_instead(manager: SessionManager) -> None:
    class Writes(StreamHandleThread):
        def infer(self, req: Any) -> None:
            self.out_q.put(req + "!")

    manager.init_handle_pool("thread", 1, Writes)
    session = started(manager, "a")
    session.in_q.put("x")
    assert session.out_q.get(timeout=PATIENCE) == "x!"
    session.in_q.put("y")
    assert session.out_q.get(timeout=PATIENCE) == "y!"
    session.reset()
    assert started(manager, "b").out_q.empty()


def test_results_can_be_read_after_the_thread_has_ended_their_session(
    manager: SessionManager,
) -> None:
    over = threading.Event()

    class Ends(StreamHandleThread):
        def infer(self, req: Any) -> None:
            self.out_q.put(req + "!")
            self.session_thread.reset()
            over.set()

    manager.init_handle_pool("thread", 1, Ends)
    session = started(manager, "a")
    session.in_q.put("x")
    assert over.wait(PATIENCE)
    started(manager, "b")
    found = manager.get_session(session.handle)
    assert found is not None
    assert found.out_q.get_nowait() == "x!"


class Loop(StreamHandleThread):
    """The loop of most wrappers, with the flags that they set."""

    def __init__(self, session_thread: Any, in_q: Any, out_q: Any) -> None:
        super().__init__(session_thread, in_q, out_q)
        self.setDaemon(False)
        self.is_stopping = False

    def stop(self) -> None:
        self.is_stopping = True

    def run(self) -> None:
        while not self.is_stopping:
            try:
                req = self.in_q.get(timeout=5)
                self.session_thread.callback_fn(req, self.session_thread.sid)
            except queue.Empty:
                pass


class Catching(StreamHandleThread):
    """A loop that catches everything."""

    def run(self) -> None:
        while not self.is_stopping:
            try:
                req = self.in_q.get()
                self.session_thread.callback_fn(req, self.session_thread.sid)
            except:  # noqa: E722
                pass


class Polling(StreamHandleThread):
    """A loop that does not wait in its queue."""

    def run(self) -> None:
        while not self.is_stopping:
            try:
                req = self.in_q.get_nowait()
            except queue.Empty:
                self.join_later()
            else:
                self.session_thread.callback_fn(req, self.session_thread.sid)

    def join_later(self) -> None:
        threading.Event().wait(0.001)


class Asking(Polling):
    """A loop that asks before it takes."""

    def run(self) -> None:
        while not self.is_stopping:
            if self.in_q.empty():
                self.join_later()
                continue
            try:
                req = self.in_q.get_nowait()
            except queue.Empty:
                continue
            self.session_thread.callback_fn(req, self.session_thread.sid)


@pytest.mark.parametrize("loop", [Loop, Catching, Polling, Asking])
def test_every_loop_gives_its_thread_back(
    manager: SessionManager, loop: type[StreamHandleThread]
) -> None:
    got: queue.Queue[Any] = queue.Queue()
    manager.init_handle_pool("thread", 1, loop)
    for sid in ("a", "b", "c"):
        session = started(manager, sid, lambda *result: got.put(result))
        session.in_q.put("x")
        assert got.get(timeout=PATIENCE) == ("x", sid)
        manager.set_idle_session(session.handle)


@pytest.mark.parametrize("loop", [Loop, Catching, Polling, Asking])
def test_threads_end_with_their_pool(loop: type[StreamHandleThread]) -> None:
    got: queue.Queue[Any] = queue.Queue()
    manager = SessionManager()
    manager.init_handle_pool("thread", 4, loop)
    session = started(manager, "a", lambda *result: got.put(result))
    session.in_q.put("x")
    assert got.get(timeout=PATIENCE) == ("x", "a")
    assert manager.close(PATIENCE)
    assert manager.get_idle_handle() is None


def test_a_worker_shows_its_current_session(manager: SessionManager) -> None:
    manager.init_handle_pool("thread", 1, Echo)
    (worker,) = manager.handle_pool.workers.values()
    assert (worker.handle, worker.sid, worker.params) == ("Process-0-Thread-0", "", {})
    assert worker.is_idle
    session = started(manager, "a")
    assert (worker.handle, worker.sid, worker.params) == (session.handle, "a", {"sid": "a"})
    assert not worker.idle
    worker.reset()
    assert worker.idle


@pytest.mark.timeout(60)
def test_sessions_of_many_clients_do_not_mix(manager: SessionManager) -> None:
    manager.patience = 50.0
    manager.init_handle_pool("thread", 3, Echo)
    wrong: list[Any] = []

    def client(name: int) -> None:
        for number in range(60):
            sid, got = f"{name}-{number}", queue.Queue[Any]()
            session = started(manager, sid, lambda *result, got=got: got.put(result))
            session.in_q.put(sid)
            if number % 3:  # else the client goes away at once
                session.in_q.put("end")
                results = [got.get(timeout=PATIENCE) for _ in range(2)]
                if results != [(sid, sid), ("end", sid)]:
                    wrong.append(results)
            manager.set_idle_session(session.handle)

    clients = [threading.Thread(target=client, args=[name]) for name in range(6)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not wrong
    # None is left: every thread is to be had again.
    assert all(manager.get_idle_handle() for _ in range(3))
