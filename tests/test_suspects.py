"""Which job killed its worker: found with three lost workers among any number, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomserve import Wrapper
from atomserve.context import Context
from atomserve.engine.backend import Host, Sink
from atomserve.engine.calls import Call
from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.loops import Mailbox
from atomserve.engine.models import Model
from atomserve.engine.options import Options
from atomserve.engine.suspects import MOST_KILLS, Part, judge, judge_each
from atomserve.errors import Abandoned, PoisonRequest
from atomserve.signature import Signature, read_contract


class Told:
    """A reply that only keeps what it is told."""

    ended = False


def jobs(count: int) -> list[Job]:
    return [Job(Payload(), Context(), cast("Any", Told())) for _ in range(count)]


def run(waiting: list[Job], deadly: set[Job]) -> tuple[list[Job], list[Job], list[Job], int]:
    """Run ``waiting`` as one batch, then part by part; return the answered, found and given up."""
    answered: list[Job] = []
    guilty: list[Job] = []
    unclear: list[Job] = []
    kills = 0
    batches = [waiting]
    while batches:
        batch = batches.pop(0)
        if not deadly.intersection(batch):
            answered += batch
            continue
        kills += 1
        verdict = judge(batch, len(batch))
        guilty += verdict.guilty
        unclear += verdict.unclear
        parts: dict[Any, list[Job]] = {}
        for job in verdict.again:
            parts.setdefault(job.key, []).append(job)
        batches = [*parts.values(), *batches]
    return answered, guilty, unclear, kills


@given(st.integers(1, 300), st.data())
def test_one_guilty_job_is_found_with_three_kills_and_all_others_are_answered(
    count: int, data: st.DataObject
) -> None:
    batch = jobs(count)
    killer = batch[data.draw(st.integers(0, count - 1))]
    answered, guilty, unclear, kills = run(batch, {killer})
    assert guilty == [killer]
    assert not unclear
    assert set(answered) == set(batch) - {killer}
    assert kills == MOST_KILLS


@given(st.integers(2, 100), st.data())
def test_with_several_guilty_nobody_innocent_is_blamed_and_everyone_ends(
    count: int, data: st.DataObject
) -> None:
    batch = jobs(count)
    killers = {batch[n] for n in data.draw(st.sets(st.integers(0, count - 1), min_size=2))}
    answered, guilty, unclear, _ = run(batch, killers)
    assert set(guilty) <= killers
    assert sorted(map(id, [*answered, *guilty, *unclear])) == sorted(map(id, batch))


def test_no_more_than_three_deaths_are_excused() -> None:
    batch = jobs(4)
    assert judge(batch, 4).excused
    assert judge(batch[:2], 2).excused
    assert judge(batch[:1], 1).excused
    assert not judge(batch[1:2], 1).excused


def test_jobs_that_nobody_can_tell_apart_run_once_more() -> None:
    batch = jobs(3)
    first = judge_each(batch)
    assert list(first.again) == batch
    assert len({job.key for job in batch}) == 3
    assert all(isinstance(job.key, Part) for job in batch)
    second = judge_each(batch)
    assert list(second.unclear) == batch
    assert not second.again
    assert not second.guilty


@pytest.mark.parametrize("count", [2, 5, 32])
def test_what_was_left_of_a_larger_batch_is_not_taken_for_alone(count: int) -> None:
    (left,) = jobs(1)
    judge([left], count)
    judge([left], count)
    assert not judge([left], count).guilty


class Large:
    """A body in shared memory, which nobody can read once it is given back."""

    def __init__(self, text: bytes) -> None:
        self._view = memoryview(text)

    @property
    def data(self) -> memoryview:
        return self._view.toreadonly()

    def __len__(self) -> int:
        return 64

    def release(self) -> None:
        self._view.release()


class Worker:
    """The one slot of a model, and its backend: a batch is lost when the test says so."""

    options = Options(idempotent=True, max_batch_delay=0.0)
    signature: Signature
    room = 1
    ahead = 0
    busy = 0

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.slots = [self]
        self.given: list[Job] = []

    @asynccontextmanager
    async def open(self, host: Host) -> AsyncIterator[Worker]:
        yield self

    async def failure(self) -> str:
        await anyio.sleep_forever()
        raise AssertionError

    def sink(self, declared: int | None) -> Sink:
        raise AssertionError

    def run(self, jobs: Sequence[Job]) -> None:
        self.given, self.room = list(jobs), 0

    def drop(self, job: Job) -> None:
        """It runs on."""


class Lossy:
    """A model whose worker is lost whenever the test says so."""

    def __init__(self) -> None:
        self.worker = Worker(read_contract(Batch).signature)
        self.model = Model("it", self.worker, lambda _: None)

    def call(self, body: Any = b'{"x":1}') -> Call:
        return self.model.call(Payload(body=body), Context(model="it"))

    async def given(self) -> list[Job]:
        """Wait for what the worker is given next."""
        with anyio.fail_after(10):
            while not self.worker.given:
                await anyio.lowlevel.checkpoint()
        jobs, self.worker.given = self.worker.given, []
        return jobs

    def have_room(self) -> None:
        """Let the worker take one more batch."""
        self.worker.room = 1
        self.model.on_room()

    def lose(self, *begun: Job) -> bool:
        """Lose the worker with what it has begun; there is another at once."""
        self.have_room()
        return self.model.lost(begun, [])


class Batch(Wrapper):
    def predict_batch(self, x: list[int]) -> list[int]:
        return x


@asynccontextmanager
async def lossy() -> AsyncIterator[Lossy]:
    it = Lossy()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.model.serve, Mailbox())
        while it.model.state != "ready":
            await anyio.lowlevel.checkpoint()
        yield it
        tasks.cancel_scope.cancel()


async def end(call: Call) -> None:
    """Have the client of ``call`` leave, and its body be given back."""
    call.abandon()
    with pytest.raises(Abandoned):
        await call.answer()


async def killer_and_other(it: Lossy, guilty: Job) -> Job:
    """Have ``guilty`` kill all but one of its workers, and the last one take another job, too."""
    for _ in range(MOST_KILLS - 1):
        assert it.lose(guilty)
        assert await it.given() == [guilty]
    it.have_room()
    [other] = await it.given()
    return other


@pytest.mark.anyio
async def test_a_guilty_job_whose_client_left_with_its_body_keeps_no_other_waiting() -> None:
    async with lossy() as it:
        guilty = it.call(Large(b'{"x":-1}'))
        [killer] = await it.given()
        innocent = it.call()
        other = await killer_and_other(it, killer)
        await end(guilty)
        it.lose(other, killer)
        assert await it.given() == [other]
        other.reply.answer(Answer(b"1"))
        assert (await innocent.answer()).body == b"1"


@pytest.mark.anyio
async def test_a_guilty_body_that_nobody_can_read_keeps_no_other_waiting() -> None:
    async with lossy() as it:
        guilty = it.call(Large(b'{"x":-1}'))
        [killer] = await it.given()
        innocent = it.call()
        other = await killer_and_other(it, killer)
        killer.payload.release()
        assert it.lose(other, killer)
        assert await it.given() == [other]
        with pytest.raises(PoisonRequest):
            await guilty.answer()
        other.reply.answer(Answer(b"1"))
        assert (await innocent.answer()).body == b"1"


@pytest.mark.anyio
async def test_the_others_are_looked_through_although_the_last_ones_client_left() -> None:
    async with lossy() as it:
        calls = [it.call(b'{"x":%d}' % number) for number in range(4)]
        jobs = await it.given()
        await end(calls[3])
        assert it.lose(*jobs)
        assert await it.given() == jobs[:2]
        assert all(isinstance(job.key, Part) for job in jobs[:3])
        for job in jobs[:3]:
            job.reply.answer(Answer(b"1"))
        for call in calls[:3]:
            await call.answer()


@pytest.mark.anyio
async def test_a_worker_lost_with_nobodys_jobs_is_not_excused() -> None:
    async with lossy() as it:
        calls = [it.call(), it.call()]
        jobs = await it.given()
        for call in calls:
            await end(call)
        assert not it.lose(*jobs)


@pytest.mark.anyio
async def test_an_answered_batch_is_not_suspected_for_the_next_whose_clients_left() -> None:
    async with lossy() as it:
        first = it.call()
        [answered] = await it.given()
        it.have_room()
        last = it.call()
        [left] = await it.given()
        await end(last)
        assert not it.lose(answered, left)
        assert await it.given() == [answered]
        assert answered.key is None
        answered.reply.answer(Answer(b"1"))
        await first.answer()


@pytest.mark.anyio
async def test_a_guilty_request_is_refused_when_it_comes_again() -> None:
    async with lossy() as it:
        guilty = it.call()
        for _ in range(MOST_KILLS):
            assert it.lose(*await it.given())
        with pytest.raises(PoisonRequest):
            await guilty.answer()
        with pytest.raises(PoisonRequest):
            it.call()
