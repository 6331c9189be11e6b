"""Clients that leave while their requests run, and callers that give up as the answer comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import h2raw
import msgspec
import pytest
from batch_rig import Rig, rig
from faults import await_that, faulty
from flows import PLUGIN, Flow, flowing, told
from load import run_all

from atomserve.backends.batches import BatchSlot
from atomserve.backends.coroutines import LoopSlot
from atomserve.backends.desk import AHEAD
from atomserve.backends.processes import ProcessBackend, ProcessSlot
from atomserve.backends.threads import ThreadSlot
from atomserve.context import Context
from atomserve.engine.calls import Call, Stream
from atomserve.engine.jobs import Payload
from atomserve.engine.models import Model
from atomserve.errors import AtomError

# G03: clients leave in the middle.

SOON = 1.0
CLIENTS = 8
KINDS = ("Left", "LeftAsync", "LeftStream", "LeftAsyncStream", "LeftBatch")
SETTINGS = 'capacity = 8\nmax_batch_delay = "0s"\nqueue_size = 64\nexecutor = "{executor}"'


def leave(flow: Flow, token: str, *, linger: float, reset: bool, deaf: bool = False) -> float:
    """Be a client that leaves ``linger`` seconds after its request began; return when it did."""
    body = json.dumps({"token": token, "deaf": deaf}).encode()
    head = (
        "POST /v1/models/it/predict HTTP/1.1\r\nHost: test\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", flow.port), 10) as sock:
        sock.sendall(head.encode() + body)
        await_that(lambda: token in flow.notes.times("began"), within=10.0)
        time.sleep(linger)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return time.monotonic()


def late(gone: dict[str, float], left: dict[str, float]) -> list[str]:
    """Return the requests whose wrapper was not told within a second that its client left."""
    return [token for token, at in gone.items() if left.get(token, at + 60) - at > SOON]


def leaving(flow: Flow, count: int, seed: int) -> dict[str, float]:
    """Have 8 clients leave ``count`` times together; return when each did."""
    gone: dict[str, float] = {}
    turn = iter(range(count))

    def work() -> None:
        draw = random.Random(f"{seed} {threading.get_ident()}")
        for number in turn:
            token = f"t{seed}-{number}"
            linger = draw.choice((0.0, 0.001, 0.005))
            gone[token] = leave(flow, token, linger=linger, reset=bool(number % 2))

    run_all([work] * CLIENTS)
    assert len(gone) == count
    return gone


def busy(flow: Flow) -> tuple[int, int, int]:
    """Return the jobs that run and that wait, and how much the slot has in hand."""
    found = flow.it.get("/v1/models/it").json()
    slots = sum(slot["busy"] for slot in found["slots"])
    return found["running"], found["queue"]["waiting"], slots


def dropped(flow: Flow) -> list[str]:
    """Return what the log says of tasks that were dropped."""
    return [line for line in flow.it.server.logged if "was destroyed" in line]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("executor", ["process", "thread"])
@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_g03_a_wrapper_is_told_within_a_second_that_its_client_left(
    tmp_path: Path, executor: str, cls: str, count: int
) -> None:
    with flowing(tmp_path, cls, SETTINGS.format(executor=executor)) as flow:
        for attempt in range(3):
            gone = leaving(flow, count, attempt)
            with contextlib.suppress(AssertionError):
                flow.notes.awaits("left", count * (attempt + 1), within=5.0)
            left = flow.notes.times("left")
            assert gone.keys() <= left.keys(), "some were never told"
            print(told("told", [left[token] - at for token, at in gone.items()]))
            if not late(gone, left):
                break
        assert not late(gone, left)
        await_that(lambda: busy(flow) == (0, 0, 0), within=2.0)
        assert not flow.notes.all("stayed")
        assert flow.it.errors() == []
    assert dropped(flow) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("executor", ["process", "thread"])
def test_g03_a_reset_stream_of_http_2_is_a_client_that_left(tmp_path: Path, executor: str) -> None:
    async def all_streams(flow: Flow) -> dict[str, float]:
        gone: dict[str, float] = {}
        async with h2raw.connect(flow.port) as client:
            for number in range(50):
                token = f"s{number}"
                field = ("content-type", "application/json")
                path = "/v1/models/it/predict"
                stream = await client.request(path, field, method="POST", end=False)
                await client.data(stream, json.dumps({"token": token}).encode(), end=True)
                while token not in flow.notes.times("began"):
                    await anyio.sleep(0.002)
                gone[token] = time.monotonic()
                client.connection.reset_stream(stream)
                await client.flush()
        return gone

    with flowing(tmp_path, "Left", SETTINGS.format(executor=executor)) as flow:
        gone = anyio.run(all_streams, flow)
        flow.notes.awaits("left", 50)
        left = flow.notes.times("left")
        print(told("told", [left[token] - at for token, at in gone.items()]))
        assert not late(gone, left)
        await_that(lambda: busy(flow) == (0, 0, 0), within=2.0)


@pytest.mark.timeout(40)
@pytest.mark.parametrize("cls", KINDS)
def test_g03_a_wrapper_that_looks_away_is_seen(tmp_path: Path, cls: str) -> None:
    with flowing(tmp_path, cls, SETTINGS.format(executor="process")) as flow:
        at = leave(flow, "deaf", linger=0.0, reset=False, deaf=True)
        assert busy(flow)[2] == 1
        flow.notes.awaits("left", 1)
        assert late({"deaf": at}, flow.notes.times("left")) == ["deaf"]
        await_that(lambda: busy(flow) == (0, 0, 0), within=5.0)


def test_g03_a_dropped_task_is_seen_in_the_log(tmp_path: Path) -> None:
    with faulty(tmp_path, {}, "", f"--plugins=it={PLUGIN}:Destroying") as it:
        assert it.ask("it").status == 200
        it.server.await_line(lambda line: "was destroyed" in line)
        assert dropped(Flow(it, tmp_path))


# G04: somebody gives up at the moment of the end.

ASK = """
    class Ask(msgspec.Struct):
        token: int = 0
        n: float = 0
        pad: str = ""
"""
WRAPPERS = {
    "call": """
    class It(Wrapper):
        def predict(self, token: int = 0, n: float = 0, pad: str = "") -> Any:
            time.sleep(n)
            return [token, pad]
    """,
    "async": """
    import asyncio

    class It(Wrapper):
        async def predict(self, token: int = 0, n: float = 0, pad: str = "") -> Any:
            await asyncio.sleep(n)
            return [token, pad]
    """,
    "batch": ASK
    + """
    class It(Wrapper):
        max_batch_size = 4

        def predict_batch(self, requests: list[Ask]) -> list[Any]:
            time.sleep(max(each.n for each in requests))
            return [[each.token, each.pad] for each in requests]
    """,
    "stream": """
    from collections.abc import Iterator

    class It(Wrapper):
        def predict(self, token: int = 0, n: float = 0, pad: str = "") -> Iterator[Any]:
            for _ in range(3):
                time.sleep(n)
                yield [token, pad]
    """,
    "async stream": """
    import asyncio
    from collections.abc import AsyncIterator

    class It(Wrapper):
        async def predict(self, token: int = 0, n: float = 0, pad: str = "") -> AsyncIterator[Any]:
            for _ in range(3):
                await asyncio.sleep(n)
                yield [token, pad]
    """,
}
AT_ONCE = 5
LARGE = "x" * 100_000
ALLOWED = {
    "wait": {"answered"},
    "abandon": {"answered", "Abandoned"},
    "cancel": {"answered", "cancelled"},
    "deadline": {"answered", "DeadlineExceeded", "Overloaded"},
    "abandon at the end": {"answered"},
    "cancel at the end": {"answered", "cancelled"},
    "deadline at the end": {"answered"},
}
WAYS = tuple(ALLOWED)


def miscounted(model: Model) -> list[str]:
    """Say which counter of ``model`` is beyond its bounds now."""
    lane, found = model._lane, []
    if not 0 <= lane.in_hand - len(lane) <= len(model.jobs):
        found.append(f"running: {lane.in_hand - len(lane)} of {len(model.jobs)}")
    for slot in model.slots:
        held, most = in_slot(slot)
        if not 0 <= held <= most:
            found.append(f"{slot!r}: {held} of {most}")
    return found


def in_slot(slot: Any) -> tuple[int, int]:
    """Return what ``slot`` has in hand as it counts, and the most that this may be."""
    match slot:
        case ThreadSlot() | LoopSlot():
            return slot._capacity - slot._idle, slot._capacity
        case BatchSlot():
            return slot._given, slot._options.capacity + 1
        case ProcessSlot():
            options = slot._backend.options
            batches = (options.capacity + 1) * options.max_batch_size
            return len(slot._sent), batches if slot._whole else max(AHEAD, options.capacity)
    raise AssertionError(slot)


def leaked(model: Model) -> list[str]:
    """Say what ``model`` still holds although nothing is asked of it."""
    found = miscounted(model)
    if model.jobs or model._lane.in_hand:
        found.append(f"{len(model.jobs)} jobs, {model._lane.in_hand} in hand")
    for slot in model.slots:
        if in_slot(slot)[0] or slot.busy:
            found.append(f"{slot!r}: {slot.busy} busy")
        if isinstance(slot, ProcessSlot):
            kept = (slot._sent, slot._numbers, slot._leases)
            found += [f"{slot!r} keeps {each}" for each in kept if each]
    if isinstance(model.backend, ProcessBackend) and model.backend.arena.used:
        found.append(f"{model.backend.arena.used} bytes of bodies")
    return found


class Races:
    """Requests to a model, of which many are given up about when they end."""

    def __init__(self, model: Model, seed: int) -> None:
        self.model = model
        self.outcomes: dict[int, list[str]] = defaultdict(list)
        self.wrong: list[str] = []
        self._draw = random.Random(seed)
        self._streams = model.signature is not None and model.signature.streams
        self._shared = model.options.cacheable

    async def run(self, count: int) -> None:
        """Make ``count`` requests, a few at a time."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, facts: self.wrong.append(repr(facts)))
        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                await self._one(number)
                self.wrong += miscounted(self.model)

        try:
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE):
                    tasks.start_soon(client)
        finally:
            loop.set_exception_handler(None)

    async def _one(self, number: int) -> None:
        draw = self._draw
        way, n = draw.choice(WAYS), draw.choice((0.0, 0.0, 0.0003, 0.001))
        if self._shared:
            n = 0.0005  # equal requests are equal in all
        token = number // 4 if self._shared else number
        pad = LARGE if token % 16 == 0 else ""
        after = draw.uniform(0.0, AT_ONCE * (n * (3 if self._streams else 1) + 0.001))
        payload = Payload(body=msgspec.json.encode({"token": token, "n": n, "pad": pad}))
        context = Context(model="it", request_id=f"r{number}")
        work = self._streamed if self._streams else self._called
        try:
            found = await work(payload, context, way, after)
        except asyncio.CancelledError:
            outcome = "cancelled"
        except AtomError as exc:
            outcome = type(exc).__name__
        else:
            outcome = "answered"
            if found != [[token, pad]] * (3 if self._streams else 1):
                self.wrong.append(f"{number}: another's answer, {found!r:.100}")
        self.outcomes[number].append(outcome)
        # Of a stream the last answer is not the end yet.
        allowed = ALLOWED[way] | ({"Abandoned", "DeadlineExceeded"} if self._streams else set())
        if outcome not in allowed:
            self.wrong.append(f"{number}: {way}, {outcome}")

    async def _called(self, payload: Payload, context: Context, way: str, after: float) -> Any:
        wait = after if way == "deadline" else None
        call = self.model.call(payload, context, wait=wait)

        async def body() -> list[Any]:
            answer = await call.answer()
            return [msgspec.json.decode(answer.head + bytes(answer.body))]

        return await self._given_up(call, body(), call._reply._future, way, after)

    async def _streamed(self, payload: Payload, context: Context, way: str, after: float) -> Any:
        wait = after if way == "deadline" else None
        stream = self.model.stream(payload, context, wait=wait)
        over = asyncio.get_running_loop().create_future()

        async def body() -> list[Any]:
            async with stream:
                found = []
                async for answer in stream:
                    found.append(msgspec.json.decode(answer.head + bytes(answer.body)))
                    if len(found) == 3 and not over.done():
                        over.set_result(None)
                return found

        try:
            return await self._given_up(stream, body(), over, way, after)
        finally:
            over.cancel()

    async def _given_up(
        self,
        asked: Call | Stream,
        body: Coroutine[Any, Any, Any],
        over: asyncio.Future[Any],
        way: str,
        after: float,
    ) -> Any:
        loop = asyncio.get_running_loop()
        task = loop.create_task(body)
        acts: dict[str, Callable[[], object]] = {
            "cancel": task.cancel,
            "deadline": asked._expire,
        }
        act = acts.get(way.partition(" ")[0], asked.abandon)
        if way in ("abandon", "cancel"):
            loop.call_later(after, act)
        elif way.endswith("at the end"):
            # Called in the very turn that wakes whoever waits for the answer.
            over.add_done_callback(lambda _: act())
        return await task

    def complaints(self, count: int) -> list[str]:
        """Say what is not as it must be after ``count`` requests."""
        ends = [len(self.outcomes[number]) for number in range(count)]
        return [
            *self.wrong,
            *(f"{number}: ended {n} times" for number, n in enumerate(ends) if n != 1),
        ]


async def raced(it: Rig, count: int, seed: int) -> list[str]:
    """Return what was wrong in ``count`` races on ``it`` and after them."""
    races = Races(it.model, seed)
    await races.run(count)
    kinds: dict[str, int] = defaultdict(int)
    for outcomes in races.outcomes.values():
        for outcome in outcomes:
            kinds[outcome] += 1
    print(dict(kinds))
    assert kinds["answered"] > count / 10
    assert kinds["Abandoned"] + kinds["cancelled"] + kinds["DeadlineExceeded"] > count / 10
    with contextlib.suppress(TimeoutError), anyio.fail_after(5.0):
        while leaked(it.model):
            await anyio.sleep(0.01)
    return [*races.complaints(count), *leaked(it.model), *map(str, it.hung)]


FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "call": ("call", {}),
    "calls": ("call", {"capacity": 3}),
    "shared": ("call", {"cacheable": True, "cache_ttl": 0.001}),
    "async": ("async", {"capacity": 3}),
    "batch": ("batch", {}),
    "batches": ("batch", {"capacity": 2}),
    "stream": ("stream", {"capacity": 2}),
    "async stream": ("async stream", {"capacity": 2}),
}


@pytest.mark.anyio
@pytest.mark.timeout(120)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [300, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["thread", "process"])
async def test_g04_a_request_that_is_given_up_as_it_ends_ends_once_and_leaves_nothing(
    tmp_path: Path, kind: str, form: str, count: int
) -> None:
    wrapper, options = FORMS[form]
    async with rig(kind, tmp_path, WRAPPERS[wrapper], queue_size=64, **options) as it:
        assert not await raced(it, count, seed=count)


@pytest.mark.anyio
async def test_g04_a_counter_too_low_or_never_given_back_is_seen(tmp_path: Path) -> None:
    async with rig("thread", tmp_path, WRAPPERS["call"], capacity=2) as it:
        slot = it.slot
        assert isinstance(slot, ThreadSlot)
        assert leaked(it.model) == []
        slot._freed([])
        assert miscounted(it.model)
        slot._idle -= 2
        assert not miscounted(it.model)
        assert leaked(it.model)
        slot._idle += 1
        (job,) = it.jobs([{}])
        job.taken = 0.0
        it.model._lane.finished(job, 0.0)
        assert miscounted(it.model)


@pytest.mark.anyio
async def test_g04_a_second_end_and_a_wrong_one_are_seen(tmp_path: Path) -> None:
    async with rig("thread", tmp_path, WRAPPERS["call"]) as it:
        races = Races(it.model, seed=1)
        await races.run(2)
        assert races.complaints(2) == []
        races.outcomes[1].append("answered")
        assert races.complaints(3) == ["1: ended 2 times", "2: ended 0 times"]
