"""What happens to a batch in its slot, in a thread and in a worker."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from batch_rig import Rig, rig

from atomserve.backends.desk import Desk
from atomserve.backends.process_slots import ProcessSlot
from atomserve.context import RawHeaders
from atomserve.engine.jobs import Job
from atomserve.engine.loops import EndOfTurn
from atomserve.engine.options import Options
from atomserve.errors import (
    BadAnswer,
    BadRequest,
    DeadlineExceeded,
    Invalid,
    PluginFailed,
    WorkerLost,
)

pytestmark = pytest.mark.anyio

WRAPPER = """
    class Ask(msgspec.Struct):
        n: int = 0
        act: str = "echo"
        key: str = ""

    class It(Wrapper):
        timeout = 20.0
        examples = [Example(inputs={"n": 1}, output=[1, 1])]

        def load(self, config: Any) -> None:
            self.calls = []

        def predict_batch(self, requests: list[Ask]) -> list[Any]:
            self.calls.append([r.n for r in requests])
            acts = {r.act for r in requests}
            for n, r in enumerate(requests):
                if r.act == "refuse":
                    raise BadRequest(f"not {r.n}")
                if r.act == "fail":
                    raise ValueError("swordfish")
                if r.act == "interrupt":
                    raise KeyboardInterrupt
                if r.act == "exit":
                    os._exit(7)
                if r.act == "wait":
                    (HERE / "entered").touch()
                    while not (HERE / "leave").exists():
                        time.sleep(0.002)
                if r.act == "watch":
                    (HERE / "entered").touch()
                    while not any(each.cancelled for each in current_batch()):
                        time.sleep(0.002)
            if "short" in acts:
                return [1]
            if "none" in acts:
                return None
            return [getattr(self, "do_" + r.act)(r, len(requests), n)
                    for n, r in enumerate(requests)]

        def do_echo(self, r: Ask, size: int, place: int) -> Any:
            return [r.n, size]

        do_wait = do_watch = do_echo

        def do_item(self, r: Ask, size: int, place: int) -> Any:
            return BadRequest("this one") if r.n else ValueError("that one")

        def do_calls(self, r: Ask, size: int, place: int) -> Any:
            return self.calls[:-1]

        def do_object(self, r: Ask, size: int, place: int) -> Any:
            return object()

        def do_contexts(self, r: Ask, size: int, place: int) -> Any:
            try:
                alone = current().request_id
            except LookupError as exc:
                alone = str(exc)
            batch = current_batch()
            return [alone, [c.request_id for c in batch], batch[place].cancelled]
"""


@pytest.fixture(params=["thread", "process"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def it(kind: str, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(kind, tmp_path, WRAPPER) as found:
        yield found


def echo(n: int) -> dict[str, Any]:
    return {"n": n}


def act(name: str, n: int = 0) -> dict[str, Any]:
    return {"act": name, "n": n}


async def calls(it: Rig) -> list[list[int]]:
    """Return the numbers of each call since the examples."""
    (found,) = await it.ask(act("calls"))
    return list(found[1:])


async def test_the_jobs_of_one_run_are_one_batch(it: Rig) -> None:
    assert await it.ask(*map(echo, range(5))) == [[n, 5] for n in range(5)]
    assert await it.ask(echo(9)) == [[9, 1]]


async def test_a_request_that_cannot_be_read_fails_alone(it: Rig) -> None:
    first, second, third = await it.ask(echo(1), {"n": "x"}, echo(3))
    assert (first, third) == ([1, 2], [3, 2])
    assert isinstance(second, Invalid)
    assert isinstance((await it.ask({"n": "x"}))[0], Invalid)
    assert await it.ask(echo(1)) == [[1, 1]]


async def test_one_bad_request_of_32_costs_31_others_nothing(it: Rig) -> None:
    found = await it.ask(*(act("fail" if n == 19 else "echo", n) for n in range(32)))
    assert [answer[0] for answer in found if isinstance(answer, list)] == [
        n for n in range(32) if n != 19
    ]
    assert isinstance(found[19], PluginFailed)
    assert found[19].error_id
    sizes = [len(call) for call in await calls(it)]
    assert sizes == [32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


async def test_the_guilty_fails_in_its_own_words(it: Rig) -> None:
    first, second = await it.ask(echo(1), act("refuse", 2))
    assert first == [1, 1]
    assert isinstance(second, BadRequest)
    assert str(second) == "not 2"


async def test_a_wrapper_that_always_fails_is_not_called_63_times(it: Rig) -> None:
    found = await it.ask(*(act("fail", n) for n in range(32)))
    assert all(isinstance(answer, PluginFailed) for answer in found)
    assert len(await calls(it)) <= 23


async def test_whatever_is_raised_is_split_and_the_slot_lives(it: Rig) -> None:
    first, second = await it.ask(act("interrupt"), echo(2))
    assert isinstance(first, PluginFailed)
    assert second == [2, 1]
    await it.free()


async def test_bisection_can_be_switched_off(kind: str, tmp_path: Path) -> None:
    text = WRAPPER.replace("timeout = 20.0", "bisect = False")
    async with rig(kind, tmp_path, text) as it:
        found = await it.ask(echo(1), act("fail"), echo(3))
        assert all(isinstance(answer, PluginFailed) for answer in found)
        assert len({answer.error_id for answer in found}) == 1
        assert await calls(it) == [[1, 0, 3]]


async def test_an_exception_in_an_answers_place_is_that_requests_failure(it: Rig) -> None:
    first, second, third, fourth = await it.ask(act("item", 1), echo(2), act("item"), act("object"))
    assert isinstance(first, BadRequest)
    assert str(first) == "this one"
    assert second == [2, 4]
    assert isinstance(third, PluginFailed)
    assert isinstance(fourth, BadAnswer)
    assert len(await calls(it)) == 1


@pytest.mark.parametrize(
    ("wrong", "told"), [("short", "1 answers to 3 requests"), ("none", "returned NoneType")]
)
async def test_another_number_of_answers_is_a_bad_answer_for_all(
    it: Rig, wrong: str, told: str
) -> None:
    found = await it.ask(echo(1), act(wrong), echo(3))
    assert all(isinstance(answer, BadAnswer) and told in str(answer) for answer in found)
    assert len(await calls(it)) == 1


async def test_a_batch_sees_all_its_requests_and_no_single_one(it: Rig) -> None:
    for size in (1, 3):
        ids = [f"r{n}" for n in range(size)]
        for alone, batch, cancelled in await it.ask(*[act("contexts")] * size):
            assert "current_batch()" in alone
            assert (batch, cancelled) == (ids, False)


async def test_one_full_batch_may_be_sent_ahead(it: Rig) -> None:
    assert (it.slot.room, it.slot.ahead) == (1, 1)
    running = it.run(act("wait"))
    await it.sees("entered")
    assert (it.slot.room, it.slot.ahead) == (0, 1)
    waiting = it.run(echo(1), echo(2))
    assert (it.slot.room, it.slot.ahead) == (0, 0)
    (it.folder / "leave").touch()
    assert await it.answers([*running, *waiting]) == [[0, 1], [1, 2], [2, 2]]
    await it.free()
    assert it.slot.ahead == 1


async def test_what_nobody_waits_for_is_left_out_right_before_the_call(it: Rig) -> None:
    running = it.run(act("watch", 8), echo(9))
    await it.sees("entered")
    waiting = it.run(*map(echo, range(3)))
    await it.leave(waiting[1])
    await it.leave(running[1])  # The running call ends when it hears of this, and of that.
    assert await it.answers([waiting[0], waiting[2]]) == [[0, 2], [2, 2]]
    assert await calls(it) == [[8, 9], [0, 2]]


async def test_an_expired_request_is_never_run(it: Rig) -> None:
    running = it.run(act("wait", 9))
    await it.sees("entered")
    late = it.run(echo(1), echo(2), deadline=time.monotonic() + 0.02)
    await anyio.sleep(0.05)
    (it.folder / "leave").touch()
    await it.answers(running)
    assert all(isinstance(each, DeadlineExceeded) for each in await it.answers(late))
    assert await calls(it) == [[9]]
    await it.free()


async def test_one_client_less_does_not_disturb_the_others(it: Rig) -> None:
    jobs = it.run(act("watch", 1), echo(2), echo(3))
    await it.sees("entered")
    await it.leave(jobs[1])
    assert await it.answers([jobs[0], jobs[2]]) == [[1, 3], [3, 3]]
    await it.free()
    assert await it.ask(echo(4)) == [[4, 1]]


async def test_only_equal_keys_share_a_call_in_order(kind: str, tmp_path: Path) -> None:
    async with rig(kind, tmp_path, WRAPPER.replace("timeout = 20.0", "batch_key = 'key'")) as it:
        keys = "abacb"
        found = await it.ask(*({"n": n, "key": key} for n, key in enumerate(keys)))
        assert found == [[0, 2], [1, 2], [2, 2], [3, 1], [4, 2]]
        assert await calls(it) == [[0, 2], [1, 4], [3]]


async def test_capacity_counts_batches(kind: str, tmp_path: Path) -> None:
    async with rig(kind, tmp_path, WRAPPER, capacity=2) as it:
        await it.free(2)
        running = it.run(act("wait"), act("wait"))
        await it.sees("entered")
        assert (it.slot.room, it.slot.ahead) == (1, 1)
        assert await it.ask(echo(5), echo(6)) == [[5, 2], [6, 2]]
        (it.folder / "leave").touch()
        await it.answers(running)


async def test_a_key_that_the_operator_sets_must_be_an_input(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with rig("thread", tmp_path, WRAPPER, batch_key="x"):
            pass
    assert "'x' is no scalar input; expected of: n, act, key" in str(caught.value.exceptions[0])


class Feeder:
    """Cuts whatever waits into batches of ``most``, as soon as the slot takes one."""

    def __init__(self, it: Rig, most: int) -> None:
        self.it = it
        self.most = most
        self.waiting: list[Job] = []
        self.turn = EndOfTurn(self.fill)

    def fill(self) -> None:
        while self.waiting and self.it.slot.room + self.it.slot.ahead > 0:
            batch, self.waiting = self.waiting[: self.most], self.waiting[self.most :]
            self.it.slot.run(batch)

    async def ask(self, n: int) -> Any:
        (job,) = self.it.jobs([echo(n)])
        self.waiting.append(job)
        self.turn.ask()
        try:
            return await self.it.answer(job)
        finally:
            self.turn.ask()


async def test_2000_requests_of_8_clients_each_get_their_own_answer(it: Rig) -> None:
    feeder = Feeder(it, most=4)
    sizes: set[int] = set()

    async def client(first: int) -> None:
        for n in range(first, first + 250):
            token, size = await feeder.ask(n)
            assert token == n
            sizes.add(size)

    async with anyio.create_task_group() as tasks:
        for first in range(0, 2000, 250):
            tasks.start_soon(client, first)
    assert max(sizes) == 4


# In a worker only.


async def test_a_lost_worker_had_begun_its_batch_and_not_the_one_ahead(tmp_path: Path) -> None:
    async with rig("process", tmp_path, WRAPPER) as it:
        begun = it.run(act("wait", 1), act("exit", 2))
        await it.sees("entered")
        ahead = it.run(echo(3), echo(4))
        (it.folder / "leave").touch()
        found = await it.answers(begun)
        assert all(isinstance(answer, WorkerLost) for answer in found)
        assert it.model.waiting == 2
        assert not any(job.reply.ended for job in ahead)


async def test_a_batch_is_killed_when_nobody_waits_for_any_of_it(tmp_path: Path) -> None:
    async with rig("process", tmp_path, WRAPPER, cancel="kill") as it:
        running = it.run(act("wait", 1), echo(2))
        await it.sees("entered")
        ahead = it.run(echo(3))
        await it.leave(ahead[0])
        await it.leave(running[0])
        assert not it.hung
        await it.leave(running[1])
        assert [reason for _, _, reason in it.hung] == ["cancelled"]


async def test_a_batch_that_does_not_come_back_is_hung(tmp_path: Path) -> None:
    async with rig("process", tmp_path, WRAPPER, timeout=0.1, grace=0.1) as it:
        (job,) = it.run(act("wait"))
        await it.sees("entered")
        await it.leave(job)
        with anyio.fail_after(10):
            while not it.hung:
                await anyio.sleep(0.01)
        assert it.hung[0][2] == "hung"


async def test_the_time_of_a_batch_ahead_begins_when_the_one_before_has_ended(
    tmp_path: Path,
) -> None:
    async with rig("process", tmp_path, WRAPPER) as it:
        slot = it.slot
        assert isinstance(slot, ProcessSlot)
        running = it.run(act("wait"))
        await it.sees("entered")
        ahead = it.run(echo(1), act("watch"))
        numbers = [slot._numbers[job] for job in ahead]
        assert [slot._began(number) for number in numbers] == [None, None]
        left = time.monotonic()
        (it.folder / "leave").touch()
        await it.answers(running)
        with anyio.fail_after(10):
            while (began := slot._began(numbers[1])) is None:
                await anyio.sleep(0.002)
        assert began >= left
        await it.leave(ahead[0])
        assert await it.answer(ahead[1]) == [0, 2]
        assert not it.hung


async def test_links_take_turns_by_batch() -> None:
    class Recording:
        room, ahead, busy = 2, 1, 0

        def __init__(self) -> None:
            self.ran: list[list[str]] = []

        def run(self, jobs: Any) -> None:
            self.ran.append(jobs)

        def drop(self, job: Job) -> None: ...

    class Waiting:
        def __init__(self, *batches: list[str]) -> None:
            self.waiting = deque(batches)

    desk, slot = Desk("it", Options(), bool, bool, bool, whole=True), Recording()
    desk.begin(slot)
    desk.callers += [Waiting(["a1", "a2"], ["a3"], ["a4"]), Waiting(["b1"])]  # type: ignore[list-item]
    desk.turn.ask()
    await anyio.sleep(0)
    await anyio.sleep(0)
    assert slot.ran == [["a1", "a2"], ["b1"], ["a3"]]


async def test_what_does_not_fit_into_a_frame_leaves_its_batch(tmp_path: Path) -> None:
    async with rig("process", tmp_path, WRAPPER) as it:
        jobs = it.jobs([echo(1), echo(2), echo(3)])
        jobs[2].context.headers = RawHeaders([(b"x-a", b"a" * 1_500_000)])
        it.slot.run(jobs)
        first, second, third = await it.answers(jobs)
        assert (first, second, third.code) == ([1, 2], [2, 2], "headers_too_large")


async def test_what_does_not_fit_into_shared_memory_leaves_its_batch(tmp_path: Path) -> None:
    async with rig("process", tmp_path, WRAPPER) as it:
        it.model.backend.arena.bound = 0  # type: ignore[attr-defined]
        jobs = it.jobs([echo(1), {"key": "x" * 100_000}, {"key": "x" * 100_000}])
        it.slot.run(jobs)
        first, second, third = await it.answers(jobs)
        assert first == [1, 1]
        assert [second.code, third.code] == ["arena_full", "arena_full"]
