"""Equal requests share one job: who waits, who leaves, what ends it, what is kept of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from one_worker import Instance, instance
from test_engine import Gate, asks, serving

from atomserve import BadRequest, Wrapper
from atomserve.context import Context
from atomserve.engine.cache import Cache
from atomserve.engine.calls import Call
from atomserve.engine.flights import Flights
from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.models import Model
from atomserve.errors import (
    Abandoned,
    AtomError,
    DeadlineExceeded,
    Draining,
    Overloaded,
    WorkerLost,
)

pytestmark = pytest.mark.anyio


def call(model: Model, body: bytes = b'{"x":1}', **more: Any) -> Call:
    return model.call(Payload(body=body), Context(model="it"), **more)


def status(of: Call) -> str:
    [(name, value)] = of.headers
    assert name == b"cache-status"
    return value.decode().removeprefix("atomserve; ")


async def outcome(of: Call, found: list[Any]) -> None:
    """Add to ``found`` how the call ended."""
    try:
        found.append((await of.answer()).body)
    except AtomError as exc:
        found.append(exc)


async def entered() -> None:
    await anyio.to_thread.run_sync(Gate.last.entered.acquire)


async def test_equal_requests_in_flight_are_computed_once() -> None:
    async with serving(Gate, cacheable=True) as model:
        calls = [call(model, body) for body in (b'{"x":1}', b' {"x" : 1}', b'{"x":1}')]
        await entered()
        assert (len(model.jobs), model.waiting) == (1, 0)
        Gate.last.open.set()
        assert [(await each.answer()).body for each in calls] == [b"1"] * 3
        assert [status(each) for each in calls] == [
            "fwd=miss; stored; ttl=300",
            "fwd=miss; collapsed",
            "fwd=miss; collapsed",
        ]
        assert not Gate.last.entered.acquire(blocking=False)
        assert not model.jobs


async def test_a_kept_answer_is_given_again() -> None:
    async with serving(Gate, cacheable=True, cache_ttl=1000.9) as model:
        Gate.last.open.set()
        first = call(model)
        await first.answer()
        again = call(model)
        assert (await again.answer()).body == b"1"
        assert status(first) == "fwd=miss; stored; ttl=1000"
        found, ttl = status(again).split("=")
        assert found == "hit; ttl"
        assert 0 <= int(ttl) <= 1000


async def test_what_another_version_answered_is_not_given() -> None:
    async with serving(Gate, cacheable=True) as model:
        Gate.last.open.set()
        await call(model).answer()
        assert model.signature is not None
        model.renew(msgspec.structs.replace(model.signature, version="2"))
        anew = call(model)
        await anew.answer()
        assert status(anew).startswith("fwd=miss; stored")


async def test_who_joins_a_job_that_loses_its_place_for_its_tenant_keeps_waiting() -> None:
    def ask(x: int, tenant: str) -> Call:
        return model.call(Payload(body=b'{"x":%d}' % x), Context(model="it", tenant=tenant))

    async with serving(Gate, cacheable=True, queue_size=3) as model:
        running = ask(1, "greedy")
        await entered()
        waiting = [ask(x, "greedy") for x in (2, 4, 3)]
        follower = ask(3, "modest")
        newcomer = ask(5, "other")  # takes the place of what greedy asked last
        for refused in waiting[1:]:  # and the follower that of what it asked before
            with pytest.raises(Overloaded):
                await refused.answer()
        Gate.last.open.set()
        kept = [running, waiting[0], newcomer, follower]
        assert [(await each.answer()).body for each in kept] == [b"1", b"2", b"5", b"3"]
        assert not model.jobs


async def test_who_joins_in_a_greater_hurry_hastens_the_job() -> None:
    async with serving(Gate, cacheable=True) as model:
        calls = [call(model, b'{"x":1}')]
        await entered()
        calls += [call(model, b'{"x":2}', urgency=3), call(model, b'{"x":3}', urgency=5)]
        calls += [call(model, b'{"x":3}', urgency=1)]
        ended: list[Any] = []
        async with anyio.create_task_group() as tasks:
            for each in calls:
                tasks.start_soon(outcome, each, ended)
            await anyio.lowlevel.checkpoint()
            Gate.last.open.set()
        assert ended == [b"1", b"3", b"3", b"2"]


async def test_a_kept_answer_takes_no_place_in_the_queue() -> None:
    async with serving(Gate, cacheable=True, queue_size=1) as model:
        Gate.last.open.set()
        await call(model).answer()
        Gate.last.open.clear()
        waiting = [call(model, b'{"x":2}')]
        await entered()
        await entered()
        waiting += [call(model, b'{"x":3}')]
        with pytest.raises(Overloaded):
            call(model, b'{"x":4}')
        model.check()  # what is asked for may be known
        hit, follower = call(model), call(model, b'{"x":3}')
        assert (await hit.answer()).body == b"1"
        assert status(hit).startswith("hit")
        Gate.last.open.set()
        assert [(await each.answer()).body for each in (*waiting, follower)] == [b"2", b"3", b"3"]


async def test_a_model_that_is_not_cacheable_says_nothing() -> None:
    async with serving(Gate) as model:
        Gate.last.open.set()
        one, two = call(model), call(model)
        await one.answer()
        await two.answer()
        assert (one.headers, two.headers) == ((), ())
        assert Gate.last.entered.acquire(blocking=False)
        assert Gate.last.entered.acquire(blocking=False)


async def test_what_the_codec_refuses_is_refused_and_not_shared() -> None:
    async with serving(Gate, cacheable=True) as model:
        Gate.last.open.set()
        for body in (b'{"x":1,"x":2}', b"{", b'{"x":NaN}'):
            refused = call(model, body)
            with pytest.raises(BadRequest):
                await refused.answer()
            assert status(refused) == "fwd=bypass"


@pytest.mark.parametrize("leaving", ["first", "last", "both"])
async def test_the_job_lives_as_long_as_anybody_waits(leaving: str) -> None:
    async with serving(Gate, cacheable=True) as model:
        calls = [call(model), call(model)]
        found: list[Any] = []
        async with anyio.create_task_group() as tasks:
            for each in calls:
                tasks.start_soon(outcome, each, found)
            await entered()
            [job] = model.jobs
            leavers = {"first": calls[:1], "last": calls[1:], "both": calls}[leaving]
            for each in leavers:
                assert not job.context.cancelled
                each.abandon()
            assert job.context.cancelled == (leaving == "both")
            Gate.last.open.set()
        assert sum(isinstance(each, Abandoned) for each in found) == len(leavers)
        assert found.count(b"1") == 2 - len(leavers)
        await anyio.lowlevel.checkpoint()
        assert not model.jobs


async def test_a_caller_that_is_cancelled_leaves_the_others_alone() -> None:
    async with serving(Gate, cacheable=True) as model:
        first, second = call(model), call(model)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.answer)
            await entered()
            tasks.cancel_scope.cancel()
        [job] = model.jobs
        assert not job.context.cancelled
        Gate.last.open.set()
        assert (await second.answer()).body == b"1"


@pytest.mark.parametrize("hasty", [0, 1])
async def test_each_caller_has_its_own_deadline(hasty: int) -> None:
    async with serving(Gate, cacheable=True) as model:
        calls = [call(model, wait=0.01 if n == hasty else None) for n in range(2)]
        [job] = model.jobs
        assert job.context.remaining is not None
        assert job.context.remaining > 1  # the latest of theirs
        with pytest.raises(DeadlineExceeded):
            await calls[hasty].answer()
        Gate.last.open.set()
        assert (await calls[1 - hasty].answer()).body == b"1"


async def test_who_comes_back_in_the_turn_of_the_last_ones_leaving_begins_anew() -> None:
    async with serving(Gate, cacheable=True) as model:
        first = call(model)
        first.abandon()
        second = call(model)
        assert status(second) == "fwd=miss"
        Gate.last.open.set()
        assert (await second.answer()).body == b"1"
        with pytest.raises(Abandoned):
            await first.answer()


async def test_a_failure_is_everybodys_and_is_not_kept() -> None:
    class Failing(Wrapper):
        cacheable = True

        def load(self, config: dict[str, Any]) -> None:
            self.runs = 0

        def predict(self, x: int) -> int:
            self.runs += 1
            if self.runs == 1:
                raise BadRequest("the first one")
            return self.runs

    async with serving(Failing) as model:
        calls = [call(model) for _ in range(3)]
        found: list[Any] = []
        for each in calls:
            await outcome(each, found)
        assert isinstance(found[0], BadRequest)
        assert found == [found[0]] * 3
        after = call(model)
        assert (await after.answer()).body == b"2"


async def test_at_the_end_all_callers_are_told() -> None:
    async with serving(Gate, cacheable=True) as model:
        calls = [call(model), call(model)]
        await entered()
        model.close(Draining())
        for each in calls:
            with pytest.raises(Draining):
                await each.answer()
        with pytest.raises(Draining):
            call(model)
        Gate.last.open.set()


async def test_streams_are_never_shared() -> None:
    runs = []

    class Count(Wrapper):
        cacheable = True

        def predict(self, to: int) -> Iterator[int]:
            runs.append(to)
            yield from range(to)

    async with serving(Count) as model:
        assert await asks(model, to=2) == await asks(model, to=2) == [0, 1]
    assert runs == [2, 2]


async def test_the_requests_of_a_batch_are_shared() -> None:
    sizes = []

    class Batched(Wrapper):
        cacheable = True

        def predict_batch(self, requests: list[int]) -> list[int]:
            sizes.append(len(requests))
            return requests

    async with serving(Batched) as model:
        bodies = [b'{"input":1}', b'{"input":1}', b'{"input":2}']
        calls = [call(model, body) for body in bodies]
        assert [(await each.answer()).body for each in calls] == [b"1", b"1", b"2"]
    assert sum(sizes) == 2


class Table:
    """Takes jobs as a model does, and has no slot."""

    def __init__(self, longest: float = 60.0) -> None:
        self.jobs: list[Job] = []
        self.forgotten: list[Job] = []
        self.refusal: AtomError | None = None
        self.flights = Flights(
            Cache(1024 * 1024, 60.0),
            "1",
            longest,
            accept=self.accept,
            hasten=self.hasten,
            forget=self.forgotten.append,
        )

    def hasten(self, job: Job, urgency: int) -> None:
        job.urgency = urgency

    def accept(self, job: Job) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.jobs.append(job)

    def call(self, *, patience: float = 60.0) -> Call:
        context = Context(deadline=time.monotonic() + patience)
        payload = Payload(body=b'{"x":1}')
        return self.flights.call(payload, context, patience=patience, urgency=3)


async def test_nobody_joins_a_job_that_is_as_old_as_one_may_be() -> None:
    table = Table(longest=0.0)
    calls = [table.call(), table.call()]
    assert len(table.jobs) == 2
    for number, job in enumerate(table.jobs):
        job.reply.answer(Answer(b"%d" % number))
    assert [(await each.answer()).body for each in calls] == [b"0", b"1"]
    assert table.forgotten == table.jobs


async def test_a_job_that_was_refused_as_expired_runs_again_for_who_has_time() -> None:
    table = Table()
    hasty, patient = table.call(patience=0.001), table.call()
    with pytest.raises(DeadlineExceeded):
        await hasty.answer()
    [first] = table.jobs
    first.reply.fail(DeadlineExceeded("as the worker knew it"))
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    _, second = table.jobs
    assert table.forgotten == [first]
    assert second.context is first.context
    assert second.payload.body == b'{"x":1}'
    second.reply.fail(DeadlineExceeded("twice is enough"))
    with pytest.raises(DeadlineExceeded, match="twice"):
        await patient.answer()
    assert table.forgotten == [first, second]


async def test_a_second_run_that_is_refused_fails_for_that() -> None:
    table = Table()
    patient = table.call()
    table.refusal = Overloaded()
    table.jobs[0].reply.fail(DeadlineExceeded())
    with pytest.raises(Overloaded):
        await patient.answer()
    assert repr(table.flights).startswith("<Flights: 0 under way, <Cache: 0 answers")


async def test_a_job_that_is_not_accepted_leaves_nothing_behind() -> None:
    table = Table()
    table.refusal = Overloaded()
    with pytest.raises(Overloaded):
        table.call()
    table.refusal = None
    after = table.call()
    table.jobs[0].reply.answer(Answer(b"1"))
    assert (await after.answer()).body == b"1"


LARGE = """
import os
from pathlib import Path

from atomserve import Blob, Wrapper

FLAG = Path(__file__).with_name("die")


class Large(Wrapper):
    cacheable = True

    def predict(self, data: Blob, times: int = 1) -> Blob:
        if FLAG.exists():
            FLAG.unlink()
            os._exit(1)
        return bytes(data) * times if times > 1 else data[10:]
"""
BODY = os.urandom(300_000)


def pour(it: Instance, **more: Any) -> Call:
    """Ask with a body that lies in shared memory."""
    sink = it.model.sink(len(BODY))
    sink.write(BODY)
    payload = Payload(form="raw", media_type="x/y", body=sink.close(), answer="media", **more)
    return it.model.call(payload, Context(model="it"))


@pytest.mark.parametrize(
    ("times", "cache_size", "kept"),
    [(1, 8 << 20, True), (3, 16 << 20, True), (3, 1 << 20, False)],
)
async def test_large_bodies_are_given_back(
    tmp_path: Path, times: int, cache_size: int, kept: bool
) -> None:
    (tmp_path / "large.py").write_text(LARGE)
    async with instance(tmp_path / "large.py", cache_size=cache_size) as it:
        calls = [pour(it, query=f"times={times}") for _ in range(4)]
        one_block = it.backend.arena.used
        assert len(BODY) <= one_block < 2 * len(BODY)
        answers = [(await each.answer()).body for each in calls]
        expected = BODY * times if times > 1 else BODY[10:]
        assert [bytes(each) for each in answers] == [expected] * 4
        again = pour(it, query=f"times={times}")
        assert bytes((await again.answer()).body) == expected
        assert status(again).startswith("hit" if kept else "fwd=miss")
        assert "stored" in status(calls[0]) if kept else status(calls[0]) == "fwd=miss"
        assert isinstance(answers[0], bytes) == kept
        del answers, calls, again
        with anyio.fail_after(10):
            while it.backend.arena.used:
                await anyio.sleep(0.001)


async def test_a_lost_worker_is_everybodys_loss_and_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(LARGE)
    (tmp_path / "die").touch()
    async with instance(tmp_path / "large.py", workers=2) as it:
        calls = [pour(it), pour(it)]
        for each in calls:
            with pytest.raises(WorkerLost):
                await each.answer()
        after = pour(it)
        assert bytes((await after.answer()).body) == BODY[10:]
        assert status(after).startswith("fwd=miss; stored")
        del calls, after
        with anyio.fail_after(10):
            while it.backend.arena.used:
                await anyio.sleep(0.001)
