"""The engine with its thread backend: real wrappers, real threads, no HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import msgspec
import pytest

from atomserve import BadRequest, Example, Wrapper, current
from atomserve.backends.local import ThreadBackend
from atomserve.backends.runner import Runner
from atomserve.context import Context
from atomserve.engine.engine import Engine
from atomserve.engine.jobs import Job, Payload
from atomserve.engine.models import Model
from atomserve.engine.options import Options, class_options
from atomserve.engine.replies import One
from atomserve.errors import (
    Abandoned,
    AtomError,
    DeadlineExceeded,
    Draining,
    ModelNotFound,
    NotReady,
    Overloaded,
    PluginFailed,
)
from atomserve.signature import read_contract

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(
    cls: type[Wrapper], *, config: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Model]:
    async with running(cls, config=config, **options) as engine:
        model = engine.model("it")
        while model.state == "loading":
            await anyio.lowlevel.checkpoint()
            await anyio.sleep(0.001)
        yield model


@asynccontextmanager
async def running(
    cls: type[Wrapper], *, config: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Engine]:
    contract = read_contract(cls)
    decided = msgspec.convert({**class_options(cls), **options}, Options)
    runner = partial(Runner, cls, contract, model="it", config=config or {})
    engine = Engine(expected=1)
    engine.add("it", ThreadBackend(runner, decided))
    async with engine.running():
        yield engine


async def ask(model: Model, **inputs: Any) -> Any:
    call = model.call(Payload(body=msgspec.json.encode(inputs)), Context(model="it"))
    return msgspec.json.decode((await call.answer()).body)


async def asks(model: Model, **inputs: Any) -> list[Any]:
    payload = Payload(body=msgspec.json.encode(inputs))
    async with model.stream(payload, Context(model="it")) as stream:
        return [msgspec.json.decode(answer.body) async for answer in stream]


class Req(msgspec.Struct):
    a: int
    b: int = 1


class Config(msgspec.Struct):
    factor: int = 1


class Gate(Wrapper):
    """Waits in predict until the test opens it."""

    timeout = 5.0

    def load(self, config: dict[str, Any]) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.inside = 0
        self.most = 0
        Gate.last = self

    def predict(self, x: int) -> int:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.entered.release()
        self.open.wait(10)
        self.inside -= 1
        return x


class Double(Wrapper):
    def predict(self, x: float) -> float:
        return 2 * x


class Pages(Wrapper):
    async def predict(self, count: int) -> AsyncIterator[str]:
        for number in range(count):
            Pages.made = number + 1
            yield "x" * 400_000


async def test_a_coroutines_stream_is_bounded_in_bytes() -> None:
    payload = Payload(body=b'{"count": 20}')
    async with serving(Pages) as model, model.stream(payload, Context(model="it")) as stream:
        await anext(stream)
        await anyio.sleep(0.2)  # It would go on now if it did at all.
        assert Pages.made <= 4
        assert len([answer async for answer in stream]) == 19


async def test_a_coroutine_does_not_begin_what_has_expired() -> None:
    class Late(Wrapper):
        async def predict(self, x: int) -> int:
            return x

    async with serving(Late) as model:
        reply = One()
        job = Job(Payload(body=b'{"x": 1}'), Context(model="it", deadline=1e-9), reply)
        model.slots[0].run([job])
        with pytest.raises(DeadlineExceeded), anyio.fail_after(10):
            await reply


async def test_a_wrapper_answers() -> None:
    async with serving(Double) as model:
        assert await ask(model, x=21) == 42


async def test_many_answers_each_reach_their_own_request() -> None:
    async with serving(Double, slots=2, queue_size=1000) as model:
        found: dict[int, float] = {}

        async def one(n: int) -> None:
            found[n] = await ask(model, x=n)

        async with anyio.create_task_group() as tasks:
            for n in range(500):
                tasks.start_soon(one, n)
        assert found == {n: 2.0 * n for n in range(500)}


async def test_an_unknown_model_is_named() -> None:
    async with running(Double) as engine:
        with pytest.raises(ModelNotFound, match="'other'"):
            engine.model("other")


async def test_a_slot_is_never_entered_twice() -> None:
    async with serving(Gate) as model, anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(partial(ask, model, x=n))
        await anyio.to_thread.run_sync(Gate.last.entered.acquire)
        await anyio.sleep(0.05)
        assert (Gate.last.inside, model.waiting) == (1, 4)
        Gate.last.open.set()
    assert Gate.last.most == 1


async def test_a_slot_runs_up_to_its_capacity_at_once() -> None:
    async with serving(Gate, capacity=3) as model, anyio.create_task_group() as tasks:
        for n in range(5):
            tasks.start_soon(partial(ask, model, x=n))
        for _ in range(3):
            await anyio.to_thread.run_sync(Gate.last.entered.acquire)
        await anyio.sleep(0.05)
        assert (Gate.last.inside, model.waiting) == (3, 2)
        Gate.last.open.set()
    assert Gate.last.most == 3


async def test_a_full_lane_refuses_at_once_and_says_when_to_come_back() -> None:
    async with serving(Gate, queue_size=2) as model, anyio.create_task_group() as tasks:
        for n in range(3):
            tasks.start_soon(partial(ask, model, x=n))
        await anyio.to_thread.run_sync(Gate.last.entered.acquire)
        with pytest.raises(Overloaded) as caught:
            model.check()
        assert caught.value.retry_after
        Gate.last.open.set()


async def test_idle_slots_take_more_than_the_lane_holds() -> None:
    async with serving(Double, slots=6, queue_size=1) as model, anyio.create_task_group() as tasks:
        for n in range(6):
            tasks.start_soon(partial(ask, model, x=n))


async def test_the_deadline_answers_while_the_slot_stays_busy() -> None:
    async with serving(Gate, timeout=0.05) as model:
        with pytest.raises(DeadlineExceeded):
            await ask(model, x=1)
        with pytest.raises(DeadlineExceeded):
            await ask(model, x=2)
        assert Gate.last.most == 1
        Gate.last.open.set()
        await anyio.sleep(0.05)
        assert await ask(model, x=3) == 3


async def test_a_waiting_request_that_is_abandoned_never_runs() -> None:
    async with serving(Gate) as model, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(ask, model, x=1))
        await anyio.to_thread.run_sync(Gate.last.entered.acquire)
        call = model.call(Payload(body=b'{"x":2}'), Context(model="it"))
        assert model.waiting == 1
        call.abandon()
        assert model.waiting == 0
        with pytest.raises(Abandoned):
            await call.answer()
        Gate.last.open.set()
        assert await ask(model, x=3) == 3
    assert not Gate.last.entered.acquire(blocking=False) or not Gate.last.entered.acquire(
        blocking=False
    )


async def test_a_cancelled_caller_marks_the_context() -> None:
    seen: list[Context] = []
    entered, leave = threading.Event(), threading.Event()

    class Watching(Wrapper):
        def predict(self) -> None:
            seen.append(current())
            entered.set()
            leave.wait(5)

    async with serving(Watching) as model:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(ask, model))
            await anyio.to_thread.run_sync(entered.wait)
            assert not seen[0].cancelled
            tasks.cancel_scope.cancel()
        assert seen[0].cancelled
        assert not model.jobs
        leave.set()


async def test_a_plugins_exception_is_told_by_an_id_and_not_by_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(Wrapper):
        def predict(self) -> None:
            raise ValueError("the password is swordfish")

    async with serving(Broken) as model:
        with pytest.raises(PluginFailed) as caught:
            await ask(model)
        assert "swordfish" not in str(caught.value)
        assert caught.value.error_id
        assert "swordfish" in (log := "".join(capsys.readouterr()))
        assert caught.value.error_id in log


@pytest.mark.parametrize(
    "error",
    [
        Exception,
        BaseException,
        SystemExit,
        KeyboardInterrupt,
        GeneratorExit,
        StopIteration,
        RecursionError,
        MemoryError,
        anyio.get_cancelled_exc_class,
    ],
)
async def test_whatever_a_plugin_raises_hurts_only_its_request(error: Any) -> None:
    raised = error() if error is anyio.get_cancelled_exc_class else error

    class Broken(Wrapper):
        def predict(self, fail: bool) -> int:
            if fail:
                raise raised("no")
            return 1

    async with serving(Broken) as model:
        with pytest.raises(PluginFailed):
            await ask(model, fail=True)
        assert await ask(model, fail=False) == 1


async def test_a_plugin_can_refuse_a_request_in_its_own_words() -> None:
    class Picky(Wrapper):
        def predict(self) -> None:
            raise BadRequest("only on Tuesdays")

    async with serving(Picky) as model:
        with pytest.raises(BadRequest, match="only on Tuesdays"):
            await ask(model)


async def test_current_shows_the_request() -> None:
    class Curious(Wrapper):
        def predict(self) -> list[Any]:
            now = current()
            return [now.model, now.request_id, now.remaining is not None and now.remaining > 4]

    async with serving(Curious, timeout=5) as model:
        call = model.call(Payload(body=b"{}"), Context(model="it", request_id="r1"))
        assert msgspec.json.decode((await call.answer()).body) == ["it", "r1", True]


async def test_a_generator_streams_and_is_closed_when_nobody_reads() -> None:
    closed = threading.Event()
    produced = []

    class Counter(Wrapper):
        def predict(self, count: int) -> Iterator[int]:
            try:
                for n in range(count):
                    produced.append(n)
                    yield n
            finally:
                closed.set()

    async with serving(Counter) as model:
        assert await asks(model, count=3) == [0, 1, 2]
        closed.clear()
        produced.clear()
        payload = Payload(body=b'{"count": 1000000}')
        async with model.stream(payload, Context(model="it")) as stream:
            await anext(stream)
        assert await anyio.to_thread.run_sync(closed.wait, 5)
        assert len(produced) < 20
        assert await asks(model, count=1) == [0]


async def test_a_stream_that_fails_midway_has_its_error_at_its_place() -> None:
    class Stumbling(Wrapper):
        def predict(self) -> Iterator[int]:
            yield 1
            raise ValueError("stumbled")

    payload = Payload(body=b"{}")
    async with serving(Stumbling) as model, model.stream(payload, Context()) as stream:
        assert (await anext(stream)).body == b"1"
        with pytest.raises(PluginFailed):
            await anext(stream)


async def test_each_item_of_a_stream_has_the_timeout() -> None:
    leave = threading.Event()

    class Slow(Wrapper):
        def predict(self) -> Iterator[int]:
            yield 1
            leave.wait(5)
            yield 2

    async with serving(Slow, timeout=0.1) as model:
        async with model.stream(Payload(body=b"{}"), Context(model="it")) as stream:
            assert (await anext(stream)).body == b"1"
            with pytest.raises(DeadlineExceeded):
                await anext(stream)
        leave.set()


async def test_a_session_talks_both_ways() -> None:
    class Shout(Wrapper):
        def session(self, inputs: Iterator[str]) -> Iterator[str]:
            for line in inputs:
                yield line.upper()

    async with serving(Shout) as model, model.session(Payload(), Context()) as session:
        for word in ("a", "b"):
            await session.send(Payload(body=msgspec.json.encode(word)))
            assert (await anext(session)).body == msgspec.json.encode(word.upper())
        session.finish()
        with pytest.raises(StopAsyncIteration):
            await anext(session)


async def test_an_abandoned_session_frees_its_slot() -> None:
    ended = threading.Event()

    class Listener(Wrapper):
        def session(self, inputs: Iterator[str]) -> Iterator[str]:
            try:
                for _ in inputs:
                    yield "heard"
            finally:
                ended.set()

    async with serving(Listener) as model:
        async with model.session(Payload(), Context(model="it")) as session:
            await session.send(Payload(body=b'"x"'))
            await anext(session)
        assert await anyio.to_thread.run_sync(ended.wait, 5)


async def test_an_async_wrapper_runs_as_many_as_its_capacity_at_once() -> None:
    class Async(Wrapper):
        capacity = 3
        inside = most = 0

        async def predict(self, x: int) -> int:
            Async.inside += 1
            Async.most = max(Async.most, Async.inside)
            await anyio.sleep(0.01)
            Async.inside -= 1
            return x + 1

    async with serving(Async) as model, anyio.create_task_group() as tasks:
        assert await ask(model, x=1) == 2
        for n in range(10):
            tasks.start_soon(partial(ask, model, x=n))
    assert Async.most == 3


async def test_an_async_generator_streams() -> None:
    class Async(Wrapper):
        async def predict(self, count: int) -> AsyncIterator[int]:
            for n in range(count):
                await anyio.sleep(0)
                yield n

    async with serving(Async) as model:
        assert await asks(model, count=30) == list(range(30))


async def test_an_async_wrapper_is_cancelled_when_nobody_waits() -> None:
    cancelled = threading.Event()

    class Async(Wrapper):
        async def predict(self) -> None:
            try:
                await anyio.sleep(10)
            finally:
                cancelled.set()

    async with serving(Async, timeout=0.05) as model:
        with pytest.raises(DeadlineExceeded):
            await ask(model)
        assert await anyio.to_thread.run_sync(cancelled.wait, 5)


async def test_a_batch_wrapper_answers_single_requests() -> None:
    class Batch(Wrapper):
        def predict_batch(self, requests: list[Req]) -> list[int]:
            return [r.a + r.b for r in requests]

    async with serving(Batch) as model:
        assert await ask(model, a=2, b=3) == 5


async def test_load_gets_its_configuration_typed_and_unload_runs_in_the_same_thread() -> None:
    threads = []

    class Configured(Wrapper):
        def load(self, config: Config) -> None:
            self.config = config
            threads.append(threading.get_ident())

        def predict(self) -> int:
            threads.append(threading.get_ident())
            return self.config.factor

        def unload(self) -> None:
            threads.append(threading.get_ident())

    async with serving(Configured, config={"factor": "3"}) as model:
        assert await ask(model) == 3
    assert len(threads) == 3
    assert len(set(threads)) == 1


async def test_a_wrong_configuration_is_one_line() -> None:
    class Configured(Wrapper):
        def load(self, config: Config) -> None: ...

        def predict(self) -> int:
            return 1

    async with serving(Configured, config={"factor": "x"}) as model:
        assert model.state == "failed"
        assert model.detail == "models.it.config: Expected `int`, got `str` - at `$.factor`"
        with pytest.raises(NotReady):
            await ask(model)


async def test_a_model_is_ready_only_after_its_examples_ran_right() -> None:
    class Wrong(Wrapper):
        examples = (Example(inputs={"x": 1}, output=3, name="one"),)

        def predict(self, x: int) -> int:
            return x + 1

    async with serving(Wrong) as model:
        assert model.state == "failed"
        assert "example one" in model.detail
        assert "expected 3" in model.detail


async def test_closing_ends_what_runs_and_what_waits() -> None:
    errors: list[AtomError] = []

    async def one(model: Model) -> None:
        try:
            await ask(model, x=1)
        except AtomError as exc:
            errors.append(exc)

    async with serving(Gate, unload_timeout=0.1) as model, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(one, model)
        await anyio.to_thread.run_sync(Gate.last.entered.acquire)
        model.close(Draining())
        with pytest.raises(Draining):
            model.check()
    assert [type(error) for error in errors] == [Draining] * 3
    Gate.last.open.set()


async def test_a_wrapper_that_never_unloads_does_not_hold_the_engine() -> None:
    leave = threading.Event()

    class Stuck(Wrapper):
        def predict(self) -> int:
            return 1

        def unload(self) -> None:
            leave.wait(30)

    began = time.monotonic()
    async with serving(Stuck, unload_timeout=0.2) as model:
        assert await ask(model) == 1
    assert time.monotonic() - began < 3
    leave.set()


class Box(msgspec.Struct):
    tags: list[str] = []


async def test_a_default_that_the_wrapper_changes_is_new_for_the_next_request() -> None:
    class Tagging(Wrapper):
        def predict(self, box: Box = Box(["a"])) -> list[str]:  # noqa: B008 - what is tested
            box.tags.append("b")
            return box.tags

    async with serving(Tagging) as model:
        assert await ask(model) == ["a", "b"]
        assert await ask(model) == ["a", "b"]


async def test_an_answer_that_does_not_fit_is_in_the_log_under_its_id(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Wrong(Wrapper):
        def predict(self) -> float:
            return object()  # type: ignore[return-value]

    async with serving(Wrong) as model:
        with pytest.raises(PluginFailed) as caught:
            await ask(model)
        assert caught.value.code == "bad_answer"
        assert caught.value.error_id
        assert caught.value.error_id in "".join(capsys.readouterr())
