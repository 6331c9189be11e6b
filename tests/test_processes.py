"""Workers as the engine sees them: real processes, killed for real; no HTTP, no supervisor."""

from __future__ import annotations

import os
import signal
import socket
import textwrap
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import anyio
import msgspec
import numpy as np
import pytest
from one_worker import Instance, instance

from atomserve.context import Context, RawHeaders
from atomserve.engine.jobs import Job, Payload
from atomserve.engine.replies import One
from atomserve.errors import (
    AtomError,
    BadAnswer,
    BadRequest,
    DeadlineExceeded,
    HeadersTooLarge,
    NotReady,
    PluginFailed,
    WorkerLost,
)
from atomserve.transport.arenas import Place
from atomserve.transport.frames import (
    Answered,
    BrokenFrame,
    Done,
    Ended,
    Failed,
    Ledger,
    Release,
    Took,
    Window,
)

pytestmark = pytest.mark.anyio

WRAPPER = """
    import os, sys, time, signal, ctypes, threading
    from typing import Annotated, Any, Iterator
    import numpy as np
    from atomserve import BadRequest, Blob, Tensor, Wrapper, current

    class It(Wrapper):
        def load(self, config: dict[str, Any]) -> None:
            self.kept: list[Any] = []

        def predict(self, act: str = "", n: int = 0) -> Any:
            return getattr(self, "do_" + act)(n)

        def do_add(self, n: int) -> int:
            return n + 1

        def do_pid(self, n: int) -> int:
            return os.getpid()

        def do_fail(self, n: int) -> int:
            raise ValueError("swordfish")

        def do_refuse(self, n: int) -> int:
            raise BadRequest("only on Tuesdays")

        def do_sleep(self, n: int) -> str:
            until = time.monotonic() + n
            while time.monotonic() < until and not current().cancelled:
                time.sleep(0.01)
            return "cancelled" if current().cancelled else "slept"

        def do_ignore(self, n: int) -> str:
            time.sleep(n)
            return "slept"

        def do_exit(self, n: int) -> None:
            os._exit(n)

        def do_crash(self, n: int) -> None:
            ctypes.string_at(0)

        def do_context(self, n: int) -> list[Any]:
            now = current()
            return [now.model, now.request_id, now.headers.get("x-a"), (now.remaining or 0) > 1]
"""


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    return write(tmp_path, WRAPPER)


def write(folder: Path, text: str) -> Path:
    path = folder / "it.py"
    path.write_text(textwrap.dedent(text))
    return path


async def ask(it: Instance, context: Context | None = None, **inputs: Any) -> Any:
    payload = Payload(body=msgspec.json.encode(inputs))
    answer = await it.model.call(payload, context or Context(model="it")).answer()
    return msgspec.json.decode(answer.body)


async def test_a_worker_answers_from_its_own_process(wrapper: Path) -> None:
    async with instance(wrapper) as it:
        assert await ask(it, act="add", n=1) == 2
        assert await ask(it, act="pid") == it.processes[0].pid


async def test_many_answers_each_reach_their_own_request(wrapper: Path) -> None:
    async with instance(wrapper, workers=2, queue_size=2000) as it:
        found: dict[int, int] = {}

        async def one(n: int) -> None:
            found[n] = await ask(it, act="add", n=n)

        async with anyio.create_task_group() as tasks:
            for n in range(1000):
                tasks.start_soon(one, n)
        assert found == {n: n + 1 for n in range(1000)}


async def test_no_job_waits_for_a_busy_worker_while_another_is_idle(wrapper: Path) -> None:
    async with instance(wrapper, workers=2) as it:
        for n in range(200):  # so quick that each worker is sent many ahead
            await ask(it, act="add", n=n)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(ask, it, act="sleep", n=5))
            while not any(slot.busy for slot in it.backend.slots):
                await anyio.sleep(0.001)
            with anyio.fail_after(2):
                assert [await ask(it, act="add", n=n) for n in range(9)] == list(range(1, 10))
            tasks.cancel_scope.cancel()


async def test_idle_workers_take_turns(wrapper: Path) -> None:
    async with instance(wrapper, workers=2) as it:
        while not all(slot.room for slot in it.backend.slots):
            await anyio.sleep(0.001)
        pids = [await ask(it, act="pid") for _ in range(20)]
        assert sorted(map(pids.count, set(pids))) == [10, 10]


async def test_errors_come_back_as_what_they_are(wrapper: Path) -> None:
    async with instance(wrapper) as it:
        with pytest.raises(PluginFailed) as caught:
            await ask(it, act="fail")
        assert caught.value.error_id
        assert "swordfish" not in str(caught.value)
        with pytest.raises(BadRequest, match="only on Tuesdays"):
            await ask(it, act="refuse")
        with pytest.raises(AtomError) as wrong:
            await ask(it, act="add", n="x")
        assert (wrong.value.status, wrong.value.errors[0].path) == (422, "$.n")


async def test_the_context_crosses_the_process(wrapper: Path) -> None:
    async with instance(wrapper, timeout=5) as it:
        context = Context(model="it", request_id="r1", headers=RawHeaders([(b"X-A", b"b")]))
        assert await ask(it, context, act="context") == ["it", "r1", "b", True]


@pytest.mark.parametrize("act", ["exit", "crash", "kill"])
async def test_a_lost_worker_fails_what_it_ran_and_nothing_that_waited(
    wrapper: Path, act: str
) -> None:
    async with instance(wrapper, workers=1) as it, anyio.create_task_group() as tasks:
        results: list[Any] = []

        async def one(**inputs: Any) -> None:
            try:
                results.append(await ask(it, **inputs))
            except AtomError as exc:
                results.append(exc)

        tasks.start_soon(partial(one, act="sleep" if act == "kill" else act, n=5))
        for n in range(5):
            tasks.start_soon(partial(one, act="add", n=n))
        if act == "kill":
            await anyio.sleep(0.3)
            it.processes[0].kill()
        while not results:
            await anyio.sleep(0.01)
        assert [type(result) for result in results] == [WorkerLost]
        assert results[0].retry_after
        assert it.model.state == "restarting"
        await it.start(tasks)
        while len(results) < 6:
            await anyio.sleep(0.01)
        assert results[1:] == [1, 2, 3, 4, 5]
        assert it.model.state == "ready"
        tasks.cancel_scope.cancel()


async def test_an_idempotent_request_runs_once_more_elsewhere(wrapper: Path) -> None:
    async with instance(wrapper, workers=2, idempotent=True) as it:
        async with anyio.create_task_group() as tasks:
            results: list[Any] = []

            async def one() -> None:
                results.append(await ask(it, act="sleep", n=1))

            tasks.start_soon(one)
            await anyio.sleep(0.3)
            (busy,) = [slot for slot in it.backend.slots if slot.busy]
            os.kill(busy.pid, signal.SIGKILL)
        assert results == ["slept"]


async def test_the_deadline_answers_and_a_worker_that_stays_is_told_hung(wrapper: Path) -> None:
    async with instance(wrapper, timeout=0.2, grace=0.2) as it:
        with pytest.raises(DeadlineExceeded):
            await ask(it, act="sleep", n=1)
        assert not it.hung  # it noticed that nobody waits
        assert await ask(it, act="add", n=1) == 2
        it.processes[0].send_signal(signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded):
            await ask(it, act="add", n=1)
        with anyio.fail_after(3):
            await it.told.wait()
        assert it.hung == [(0, it.processes[0].pid, "hung")]
        it.processes[0].send_signal(signal.SIGCONT)
        await anyio.sleep(0.2)
        assert await ask(it, act="add", n=5) == 6  # the late answer reached nobody


async def test_a_job_has_its_time_from_when_it_begins(wrapper: Path) -> None:
    async with instance(wrapper, timeout=2, grace=1) as it:
        (slot,) = it.backend.slots
        bodies = [b'{"act": "ignore", "n": 2}'] * 2
        first, second = (Job(Payload(body=body), Context(model="it"), One()) for body in bodies)
        slot.run([first, second])
        await first.reply  # type: ignore[misc]
        second.give_up(DeadlineExceeded())  # It is as old as its timeout, and begins just now.
        with pytest.raises(DeadlineExceeded):
            await second.reply  # type: ignore[misc]
        with anyio.fail_after(10):
            while slot.busy:
                await anyio.sleep(0.01)
        assert not it.hung


async def test_a_client_that_waits_less_makes_no_worker_hung(wrapper: Path) -> None:
    async with instance(wrapper, timeout=10, grace=0.1) as it:
        payload = Payload(body=b'{"act": "ignore", "n": 1}')
        with pytest.raises(DeadlineExceeded):
            await it.model.call(payload, Context(model="it"), wait=0.1).answer()
        assert await ask(it, act="add", n=1) == 2
        assert not it.hung


async def test_a_client_that_leaves_a_stream_makes_no_worker_hung(tmp_path: Path) -> None:
    slow = """
        import time
        from typing import Iterator
        from atomserve import Wrapper

        class It(Wrapper):
            def predict(self, delay: float) -> Iterator[int]:
                yield 1
                time.sleep(delay)
                yield 2
    """
    async with instance(write(tmp_path, slow), timeout=10, grace=0.1) as it:
        payload = Payload(body=b'{"delay": 1}')
        async with it.model.stream(payload, Context(model="it")) as stream:
            await anext(stream)
        async with it.model.stream(Payload(body=b'{"delay": 0}'), Context(model="it")) as stream:
            assert [answer.body async for answer in stream] == [b"1", b"2"]
        assert not it.hung


async def test_a_worker_that_never_greets_is_hung(wrapper: Path) -> None:
    async with instance(wrapper, timeout=0.1, grace=0.1) as it:
        frames, side = socket.socketpair(), socket.socketpair(type=socket.SOCK_SEQPACKET)
        with frames[1], side[1]:
            await it.backend.link(7, 8, frames[0], side[0])
            with anyio.fail_after(15):
                await it.told.wait()
            assert it.hung == [(7, 8, "hung")]
            it.backend.cut(8)


async def test_a_link_that_ends_for_no_reason_is_told(wrapper: Path) -> None:
    async with instance(wrapper, workers=2) as it:
        first, second = it.processes
        first.kill()
        with anyio.fail_after(10):
            while len(it.backend.slots) == 2:
                await anyio.sleep(0.01)
        (slot,) = it.backend.slots
        slot._handle(Window(3))
        slot._link.abort()
        with anyio.fail_after(10):
            await it.told.wait()
        assert it.hung == [(1, second.pid, "unlinked")]


async def test_a_worker_watches_what_its_api_process_has_left(wrapper: Path) -> None:
    async with instance(wrapper, timeout=0.2, grace=0.2) as it:
        (slot,) = it.backend.slots
        job = Job(Payload(body=b'{"act": "ignore", "n": 60}'), Context(model="it"), One())
        slot.run([job])
        with anyio.fail_after(10):
            while slot._began(1) is None:
                await anyio.sleep(0.001)
        slot._link.abort()
        with pytest.raises(WorkerLost):
            await job.reply  # type: ignore[misc]
        with anyio.fail_after(10):
            await anyio.to_thread.run_sync(it.processes[0].wait)


async def test_a_worker_that_ends_what_nobody_wants_lives(wrapper: Path) -> None:
    async with instance(wrapper, timeout=0.2, grace=0.2) as it:
        (slot,) = it.backend.slots
        job = Job(Payload(body=b'{"act": "sleep", "n": 60}'), Context(model="it"), One())
        slot.run([job])
        with anyio.fail_after(10):
            while slot._began(1) is None:
                await anyio.sleep(0.001)
        slot._link.abort()
        with pytest.raises(WorkerLost):
            await job.reply  # type: ignore[misc]
        with pytest.raises(TimeoutExpired):
            await anyio.to_thread.run_sync(partial(it.processes[0].wait, 1.0))


async def test_a_model_that_has_failed_ends_what_runs_in_peace(wrapper: Path) -> None:
    async with instance(wrapper, timeout=10, grace=0.1) as it:
        (slot,) = it.backend.slots
        running, behind = (
            Job(Payload(body=b'{"act": "ignore", "n": 1}'), Context(model="it"), One())
            for _ in range(2)
        )
        slot.run([running])
        with anyio.fail_after(10):
            while slot._began(1) is None:
                await anyio.sleep(0.001)
            it.backend.become("failed", "too many deaths")
            while it.model.state != "failed":
                await anyio.sleep(0.001)
            answer = await running.reply  # type: ignore[misc]
            assert answer.body == b'"slept"'
            assert not it.hung
            it.processes[0].send_signal(signal.SIGSTOP)
            slot.run([behind])
            it.processes[0].kill()
            with pytest.raises(NotReady):
                await behind.reply  # type: ignore[misc]


async def test_cancelling_can_mean_killing(wrapper: Path) -> None:
    async with instance(wrapper, timeout=0.2, cancel="kill") as it:
        with pytest.raises(DeadlineExceeded):
            await ask(it, act="sleep", n=1)
        assert it.hung == [(0, it.processes[0].pid, "cancelled")]


TENSOR = """
    from typing import Annotated, Any
    import numpy as np
    from atomserve import Tensor, Wrapper

    Array = Annotated[np.ndarray, Tensor("float32", (-1,))]

    class It(Wrapper):
        def load(self, config: dict[str, Any]) -> None:
            self.kept: list[Any] = []

        def predict(self, x: Array) -> Array:
            assert not x.flags.writeable and not x.flags.owndata
            if x[0] == 7:
                self.kept.append(x[1:3])
            return x
"""


def npy(array: np.ndarray[Any, Any]) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


async def send(it: Instance, body: bytes) -> bytes:
    sink = it.model.sink(len(body))
    for start in range(0, len(body), 65536):
        sink.write(body[start : start + 65536])
    payload = Payload(form="npy", body=sink.close(), media_type="application/x-npy", answer="npy")
    answer = await it.model.call(payload, Context(model="it")).answer()
    return answer.head + answer.body


async def test_large_tensors_go_and_come_through_shared_memory(tmp_path: Path) -> None:
    async with instance(write(tmp_path, TENSOR)) as it:
        for size in (20_000, 1_200_000, 3_000_000, 20_000):
            body = npy(np.arange(size, dtype=np.float32))
            assert await send(it, body) == body
        with anyio.fail_after(2):
            while it.backend.arena.used:
                await anyio.sleep(0.01)


async def test_a_kept_view_keeps_its_block_and_nothing_else(tmp_path: Path) -> None:
    async with instance(write(tmp_path, TENSOR)) as it:
        kept = npy(np.full(100_000, 7, dtype=np.float32))
        other = npy(np.full(100_000, 1, dtype=np.float32))
        assert await send(it, kept) == kept
        for _ in range(5):
            assert await send(it, other) == other
        await anyio.sleep(0.1)
        assert len(kept) <= it.backend.arena.used < 2 * len(kept)
        it.processes[0].kill()
        with anyio.fail_after(2):
            while it.backend.arena.used:
                await anyio.sleep(0.01)


PART = """
    from typing import Annotated, Any
    import numpy as np
    from atomserve import Tensor, Wrapper

    Any2 = Annotated[np.ndarray, Tensor("float32", (-1, -1))]

    class It(Wrapper):
        def predict(self, x: Any2) -> Any2:
            return {1: x, 2: x[1:], 3: x[:, 1:], 4: x + 0}[int(x[0, 0])]
"""


@pytest.mark.parametrize(
    ("way", "within"),
    [(1, True), (2, True), (3, False), (4, False)],
    ids=["same", "rows", "columns", "new"],
)
async def test_an_answer_that_is_part_of_the_request_does_not_travel_back(
    tmp_path: Path, way: int, within: bool
) -> None:
    array = np.arange(120_000, dtype=np.float32).reshape(300, 400)
    array[0, 0] = way
    expected = {1: array, 2: array[1:], 3: array[:, 1:], 4: array}[way]
    async with instance(write(tmp_path, PART)) as it:
        sink = it.model.sink(None)
        sink.write(npy(array))
        payload = Payload(
            form="npy", body=sink.close(), media_type="application/x-npy", answer="npy"
        )
        answer = await it.model.call(payload, Context(model="it")).answer()
        it.processes[0].kill()  # What was answered outlives the worker.
        it.processes[0].wait()
        with anyio.fail_after(2):
            while it.backend.slots:
                await anyio.sleep(0.01)
        assert bool(it.backend.arena.used) == within
        assert answer.head + answer.body == npy(np.ascontiguousarray(expected))
        del answer
        with anyio.fail_after(2):
            while it.backend.arena.used:
                await anyio.sleep(0.01)


async def test_a_worker_that_answers_with_another_requests_bytes_is_cut_off(tmp_path: Path) -> None:
    async with instance(write(tmp_path, PART)) as it:
        array = np.full((300, 400), 1, dtype=np.float32)
        other = it.backend.pool.take(1_000_000)
        (slot,) = it.backend.slots
        right = slot._answered

        def wrong(frame: Answered) -> None:
            right(msgspec.structs.replace(frame, body=other.place))

        slot._handlers[Answered] = wrong
        with pytest.raises(WorkerLost):
            await send(it, npy(array))


STREAM = """
    import threading, time
    from typing import Any, Iterator
    from atomserve import Wrapper

    closed = threading.Event()

    class It(Wrapper):
        def session(self, inputs: Iterator[str]) -> Iterator[str]:
            try:
                for line in inputs:
                    if line == "pad":
                        yield "x" * 200_000
                    else:
                        yield line.upper()
            finally:
                open("closed", "a").write("closed ")
"""


async def test_a_session_crosses_the_process_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with instance(write(tmp_path, STREAM)) as it:
        async with it.model.session(Payload(), Context(model="it")) as session:
            for word in ("a", "b", "pad", "y" * 100_000):
                await session.send(Payload(body=msgspec.json.encode(word)))
                answer = msgspec.json.decode(bytes((await anext(session)).body))
                assert answer == ("x" * 200_000 if word == "pad" else word.upper())
            session.finish()
            with pytest.raises(StopAsyncIteration):
                await anext(session)
        assert (tmp_path / "closed").read_text() == "closed "
        async with it.model.session(Payload(), Context(model="it")) as session:
            await session.send(Payload(body=b'"a"'))
            await anext(session)
        with anyio.fail_after(2):
            while (tmp_path / "closed").read_text() != "closed closed ":
                await anyio.sleep(0.01)
        assert not it.backend.arena.used


FILM = """
    from typing import Iterator
    from atomserve import BadRequest, Video, Wrapper
    from atomserve.fields import VideoClip

    TYPES = ["mp4", "\\ud800", "x" * 2_000_000, "\\ud800"]

    class Wordless(BadRequest):
        def __str__(self) -> str:
            raise ValueError("no words")

    class It(Wrapper):
        def predict(self, n: int) -> Video:
            if n == 4:
                raise Wordless()
            return VideoClip(b"abc" * (1 + 100_000 * (n == 3)), "video/" + TYPES[n])
"""


async def test_what_cannot_be_sent_fails_its_own_request(tmp_path: Path) -> None:
    async with instance(write(tmp_path, FILM)) as it:

        async def film(n: int) -> bytes:
            payload = Payload(body=msgspec.json.encode({"n": n}), answer="media")
            with anyio.fail_after(10):
                return bytes((await it.model.call(payload, Context(model="it")).answer()).body)

        for n in (1, 2, 3):
            with pytest.raises(BadAnswer):
                await film(n)
        with pytest.raises(PluginFailed):
            await film(4)
        assert await film(0) == b"abc"
        assert it.backend.slots[0].busy == 0


async def test_headers_too_large_for_a_worker_fail_their_own_request(wrapper: Path) -> None:
    async with instance(wrapper) as it:
        context = Context(model="it", headers=RawHeaders([(b"x-a", b"a" * 1_500_000)]))
        with pytest.raises(HeadersTooLarge):
            await ask(it, context, act="add", n=1)
        body = {"act": "add", "n": 1, "text": "x" * 100_000}
        with pytest.raises(HeadersTooLarge):
            await ask(it, context, **body)
        assert not it.backend.slots[0]._leases
        assert await ask(it, act="add", n=1) == 2


ONCE = """
    from typing import Iterator
    from atomserve import Wrapper

    class It(Wrapper):
        def session(self, inputs: Iterator[str]) -> Iterator[str]:
            yield next(inputs)
"""


async def test_what_a_session_is_sent_after_its_end_is_given_back(tmp_path: Path) -> None:
    async with instance(write(tmp_path, ONCE)) as it:
        large = Payload(body=msgspec.json.encode("y" * 100_000))
        for _ in range(3):
            async with it.model.session(Payload(), Context(model="it")) as session:
                for _ in range(4):  # The wrapper has ended before it is sent all of them.
                    await session.send(large)
                await anext(session)
                with pytest.raises(StopAsyncIteration):
                    await anext(session)
                await session.send(large)  # Nobody is there any more.
        with anyio.fail_after(10):
            while it.backend.arena.used:
                await anyio.sleep(0.01)
        assert not it.backend.slots[0]._leases


async def test_a_frame_of_a_job_that_is_over_is_nobodys_fault(tmp_path: Path) -> None:
    async with instance(write(tmp_path, ONCE)) as it:
        (slot,) = it.backend.slots
        async with it.model.session(Payload(), Context(model="it")) as session:
            await session.send(Payload(body=b'"a"'))
            assert (await anext(session)).body == b'"a"'
            with pytest.raises(StopAsyncIteration):
                await anext(session)
        with anyio.fail_after(10):
            while slot.busy:
                await anyio.sleep(0.001)
        slot._handle(Took(1, 1))
        slot._handle(Done(1))
        assert slot.room == 1


@pytest.mark.parametrize(
    "frame",
    [
        Took(9, 1),
        Done(9),
        Ended(9),
        Answered(9, b"", "", last=True),
        Failed(9, "", ""),
        Release(Place(0, 64, 9)),
        Ledger(Place(7, 0, 32)),
    ],
    ids=lambda frame: type(frame).__name__,
)
async def test_what_a_worker_was_never_given_is_nonsense(wrapper: Path, frame: Any) -> None:
    async with instance(wrapper) as it:
        with pytest.raises(BrokenFrame):
            it.backend.slots[0]._handle(frame)


COUNT = """
    from typing import Any, Iterator
    from atomserve import Wrapper

    class It(Wrapper):
        def predict(self, count: int) -> Iterator[int]:
            for n in range(count):
                yield n
"""


async def test_a_stream_is_bounded_and_stops_when_nobody_reads(tmp_path: Path) -> None:
    async with instance(write(tmp_path, COUNT)) as it:
        payload = Payload(body=b'{"count": 1000}')
        async with it.model.stream(payload, Context(model="it")) as stream:
            found = [msgspec.json.decode(answer.body) async for answer in stream]
        assert found == list(range(1000))
        endless = Payload(body=b'{"count": 1000000000}')
        async with it.model.stream(endless, Context(model="it")) as stream:
            for _ in range(20):
                await anext(stream)
        async with it.model.stream(payload, Context(model="it")) as stream:
            assert (await anext(stream)).body == b"0"


ASYNC = """
    import asyncio
    from atomserve import Wrapper

    class It(Wrapper):
        capacity = 4
        inside = most = 0

        async def predict(self, n: int) -> int:
            It.inside += 1
            It.most = max(It.most, It.inside)
            await asyncio.sleep(0.02)
            It.inside -= 1
            return It.most
"""


async def test_a_worker_takes_as_many_as_its_capacity_from_the_start(tmp_path: Path) -> None:
    async with instance(write(tmp_path, ASYNC)) as it:
        (slot,) = it.backend.slots
        with anyio.fail_after(10):
            while not slot.room:
                await anyio.sleep(0.001)
        assert slot.room == 4


async def test_capacity_holds_in_a_worker(tmp_path: Path) -> None:
    async with instance(write(tmp_path, ASYNC)) as it, anyio.create_task_group() as tasks:
        most: list[int] = []

        async def one(n: int) -> None:
            most.append(await ask(it, n=n))

        for n in range(20):
            tasks.start_soon(one, n)
        while len(most) < 20:
            await anyio.sleep(0.01)
        assert max(most) == 4
