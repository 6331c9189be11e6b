"""A batch model in the real engine, on the real loop, with slots that the test holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import anyio
import anyio.abc
import msgspec
import pytest

from atomserve import Wrapper
from atomserve.context import Context
from atomserve.engine.backend import Host
from atomserve.engine.engine import Engine
from atomserve.engine.jobs import Answer, Job, Payload
from atomserve.engine.models import Model
from atomserve.engine.options import Options
from atomserve.errors import Overloaded
from atomserve.settings import TenantSettings
from atomserve.signature import read_contract

pytestmark = pytest.mark.anyio


class Batches(Wrapper):
    def predict_batch(self, requests: list[int]) -> list[int]:
        return requests


class HeldSlot:
    """Keeps each batch until the test answers it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.given: list[Sequence[Job]] = []
        self.begun = anyio.Event()

    @property
    def room(self) -> int:
        return 1 - min(1, len(self.given))

    @property
    def ahead(self) -> int:
        return 2 - max(1, len(self.given))

    @property
    def busy(self) -> int:
        return len(self.given)

    def run(self, jobs: Sequence[Job]) -> None:
        self.given.append(jobs)
        self.begun.set()

    def drop(self, job: Job) -> None: ...

    def answer(self) -> None:
        for job in self.given.pop(0):
            job.reply.answer(Answer(job.payload.body))
        self.host.on_room()


class HeldBackend:
    """One slot, in the hands of the test."""

    signature = read_contract(Batches).signature

    def __init__(self, options: Options) -> None:
        self.options = options
        self.slots: list[HeldSlot] = []

    @asynccontextmanager
    async def open(self, host: Host) -> AsyncIterator[HeldBackend]:
        self.slots = [HeldSlot(host)]
        yield self

    async def failure(self) -> NoReturn:
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    def sink(self, declared: int | None) -> Any: ...


@asynccontextmanager
async def held(**options: Any) -> AsyncIterator[tuple[Model, HeldSlot]]:
    backend = HeldBackend(Options(**options))
    engine = Engine(expected=1)
    model = engine.add("it", backend)
    async with engine.running():
        while model.state != "ready":
            await anyio.sleep(0)
        yield model, backend.slots[0]


async def ask(model: Model, number: int, tenant: str = "") -> None:
    context = Context(model="it", tenant=tenant)
    answer = await model.call(Payload(body=b"%d" % number), context).answer()
    assert msgspec.json.decode(answer.body) == number


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await anyio.sleep(0)


async def test_what_waits_when_a_slot_becomes_free_is_one_batch() -> None:
    async with held(max_batch_delay=0) as (model, slot), anyio.create_task_group() as tasks:
        tasks.start_soon(ask, model, 0)
        await slot.begun.wait()
        for number in range(1, 6):
            tasks.start_soon(ask, model, number)
        await turns()
        assert [len(batch) for batch in slot.given] == [1]
        slot.answer()
        await turns()
        assert [len(batch) for batch in slot.given] == [5]
        slot.answer()


async def test_a_full_batch_is_sent_ahead_and_no_other() -> None:
    async with held(max_batch_size=2) as (model, slot), anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(ask, model, number)
            await turns()
        assert [len(batch) for batch in slot.given] == [1, 2]
        assert model.waiting == 2
        for _ in range(3):
            slot.answer()
            await turns()
        assert not slot.given


async def test_a_wait_for_company_ends_by_itself() -> None:
    async with held(max_batch_delay=0.01) as (model, slot), anyio.create_task_group() as tasks:
        # Four who always come back together make the lane expect them.
        for _ in range(20):
            await answered(model, slot, tasks, 4)
        await answered(model, slot, tasks, 1)


async def answered(model: Model, slot: HeldSlot, tasks: anyio.abc.TaskGroup, clients: int) -> None:
    """Let ``clients`` ask at once, and answer whatever reaches the slot, until all have ended."""
    for number in range(clients):
        tasks.start_soon(ask, model, number)
    await turns()
    while model.jobs:
        await slot.begun.wait()
        slot.begun = anyio.Event()
        await anyio.sleep(0.002)  # what the wrapper takes
        while slot.given:
            slot.answer()
        await turns(10)


async def test_each_api_process_has_its_share_of_the_places() -> None:
    options = {"queue_size": 5, "api_processes": 2, "max_batch_size": 1}
    async with held(**options) as (model, slot), anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(ask, model, number)
            await turns()
        assert (model.waiting, [len(batch) for batch in slot.given]) == (3, [1, 1])
        with pytest.raises(Overloaded):
            model.check()
        assert model.check("another").takes == "batch"
        while slot.given:
            slot.answer()
            await turns()


async def test_a_tenant_over_its_rate_is_refused() -> None:
    tenants = {"a": TenantSettings(rate="1/h")}
    async with held(tenants=tenants) as (model, slot), anyio.create_task_group() as tasks:
        tasks.start_soon(ask, model, 1, "a")
        await slot.begun.wait()
        with pytest.raises(Overloaded) as caught:
            await ask(model, 2, "a")
        assert caught.value.code == "quota_exceeded"
        assert 3000 < (caught.value.retry_after or 0) <= 3600
        slot.answer()
